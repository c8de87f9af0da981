"""Vectors, audiences and a vector store: what other programs get agrees with the lists of the run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base.errors import ConfigError, DataError, PublishError
from recsys_ray.base.storage import Location
from recsys_ray.data.forgotten import add_forgotten
from recsys_ray.recommend.rank import seen_items
from recsys_ray.runs import qdrant
from recsys_ray.runs.audience import audience
from recsys_ray.runs.export import export_embeddings
from recsys_ray.runs.publish import OpenedRun, latest_run, open_published
from tests.serving_worlds import prepared_world, publish_run


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


def opened(output: Path, model: str, **settings: Any) -> tuple[OpenedRun, Location]:
    publish_run(output, prepared_world(output), model, tag=str(len(list(output.glob("models/*")))), **settings)
    place = latest_run(Location.of(output / "recommendations"))
    assert place is not None
    return open_published(Location.of(output), place), place


@pytest.mark.parametrize("model", ["als", "svd"])
def test_exported_vectors_are_the_scores(output: Path, tmp_path: Path, model: str) -> None:
    run, _ = opened(output, model)
    facts = export_embeddings(run, Location.of(tmp_path))
    items = Location.of(tmp_path / "items.parquet").read_parquet()
    names = sorted(Location.of(tmp_path / "users").names())
    users = pa.concat_tables([Location.of(tmp_path / "users" / name).read_parquet() for name in names])
    assert (facts["items"], facts["users"]) == (items.num_rows, users.num_rows)
    vectors = {
        name: np.stack(table.column("vector").to_numpy(zero_copy_only=False))
        for name, table in (("i", items), ("u", users))
    }
    scores = vectors["u"] @ vectors["i"].T + (items.column("bias").to_numpy() if "bias" in items.column_names else 0)
    rows_of = {user: row for row, user in enumerate(users.column("user_id").to_pylist())}
    columns = run.bundle.item_rows(items.column("item_id").combine_chunks(), "test")
    checked = 0
    for shard in range(run.bundle.num_shards):
        requests = run.bundle.requests(shard)
        expected = run.bundle.scorer.score(requests)
        for b, user in enumerate(requests.user_ids.to_pylist()):
            if user in rows_of:
                np.testing.assert_allclose(scores[rows_of[user]], expected[b, columns], rtol=1e-4, atol=1e-5)
                checked += 1
    assert checked == users.num_rows > 10


def test_a_model_without_vectors_says_so(output: Path, tmp_path: Path) -> None:
    run, _ = opened(output, "ease")
    with pytest.raises(ConfigError, match="model ease has no vectors of users and items"):
        export_embeddings(run, Location.of(tmp_path))
    with pytest.raises(ConfigError, match="has no item vectors to search"):
        qdrant.export_items(run, ":memory:", "items")


def by_hand(run: OpenedRun, rows: list[int]) -> dict[int, list[tuple[float, Any]]]:
    """Of each item all users that may be told of it, by score and id."""
    found: dict[int, list[tuple[float, Any]]] = {row: [] for row in rows}
    for shard in range(run.bundle.num_shards):
        requests = run.bundle.requests(shard)
        scores, seen = run.bundle.scorer.score(requests), seen_items(requests)
        answers = run.bundle.scorer.answers(requests)
        for b, user in enumerate(requests.user_ids.to_pylist()):
            for row in rows:
                if (
                    answers[b]
                    and row not in seen.row(b)
                    and np.isfinite(scores[b, row])
                    and run.bundle.scorer.scorable_I[row]
                ):
                    found[row].append((float(scores[b, row]), user))
    return {row: sorted(users, key=lambda pair: (-pair[0], pair[1])) for row, users in found.items()}


@pytest.mark.parametrize("model", ["als", "ease", "svd"])
def test_an_audience_is_the_top_of_the_whole_column(output: Path, model: str) -> None:
    run, place = opened(output, model)
    rows = [3, 0, 7]
    items = run.bundle.item_ids.take(pa.array(rows))
    table = audience(run, Location.of(output), place, items, 6)
    expected = by_hand(run, rows)
    for row, item in zip(rows, items.to_pylist(), strict=True):
        mine = [entry for entry in table.to_pylist() if entry["item_id"] == item]
        assert [entry["rank"] for entry in mine] == list(range(1, len(mine) + 1))
        best = expected[row][:6]
        np.testing.assert_allclose(
            [entry["score"] for entry in mine], [score for score, _ in best], rtol=1e-4, atol=1e-6
        )
        if len({round(score, 5) for score, _ in expected[row][:7]}) == len(expected[row][:7]):  # no ties at the edge
            assert [entry["user_id"] for entry in mine] == [user for _, user in best]


@pytest.mark.parametrize(("users", "most"), [(3, 1), (5, 2), (1000, 2)])
def test_a_user_is_listed_for_so_many_items_at_most_best_scores_first(output: Path, users: int, most: int) -> None:
    run, place = opened(output, "svd")
    rows = [3, 0, 7, 9]
    items = run.bundle.item_ids.take(pa.array(rows))
    table = audience(run, Location.of(output), place, items, users, most_per_user=most).to_pylist()
    pairs = [(score, user, row) for row, found in by_hand(run, rows).items() for score, user in found]
    listed: dict[int, list[float]] = {row: [] for row in rows}
    busy: dict[Any, int] = {}
    for score, user, row in sorted(pairs, reverse=True):
        if len(listed[row]) < users and busy.get(user, 0) < most:
            listed[row].append(score)
            busy[user] = busy.get(user, 0) + 1
    for row, item in zip(rows, items.to_pylist(), strict=True):
        found = [entry["score"] for entry in table if entry["item_id"] == item]
        np.testing.assert_allclose(found, listed[row], rtol=1e-4, atol=1e-6)
    counts = {user: sum(entry["user_id"] == user for entry in table) for user in {entry["user_id"] for entry in table}}
    assert max(counts.values()) <= most


def test_forgotten_users_are_in_no_audience_and_no_export(output: Path, tmp_path: Path) -> None:
    run, place = opened(output, "als")
    items = run.bundle.item_ids.take(pa.array([3]))
    first = audience(run, Location.of(output), place, items, 3).column("user_id").to_pylist()
    copied = tmp_path / "copy"
    shutil.copytree(output, copied)
    add_forgotten(Location.of(copied), [str(first[0])])
    again = audience(run, Location.of(copied), place, items, 3).column("user_id").to_pylist()
    assert first[0] not in again and again[:2] == first[1:]
    (tmp_path / "to" / "users").mkdir(parents=True)
    (tmp_path / "to" / "users" / "part-00099.parquet").write_bytes(b"of an export before")
    export_embeddings(run, Location.of(tmp_path / "to"), forgotten=frozenset({str(first[0])}))
    names = Location.of(tmp_path / "to" / "users").names()
    tables = [Location.of(tmp_path / "to" / "users" / name).read_parquet() for name in names]
    assert first[0] not in pa.concat_tables(tables).column("user_id").to_pylist()


def test_an_unknown_item_is_one_line(output: Path) -> None:
    run, place = opened(output, "als")
    with pytest.raises(DataError, match=r"audience: item .* is not in the catalogue|item ids must be"):
        audience(run, Location.of(output), place, pa.array(["nothing"]), 3)


# -- Qdrant --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["als", "svd"])
def test_a_collection_answers_as_the_run_does_and_filters_by_payload(output: Path, model: str) -> None:
    client_module = pytest.importorskip("qdrant_client")
    run, _ = opened(output, model)
    client = client_module.QdrantClient(":memory:")
    facts = qdrant.export_to(client, run, "items")
    assert facts["recall"] == 1.0 and facts["items"] == int(run.bundle.scorer.scorable_I.sum())
    requests = run.bundle.requests(0).slice(0, 1)
    vectors, bias = run.bundle.vectors, run.bundle.item_vectors
    assert vectors is not None and bias is not None
    query = [*vectors.queries(requests)[0].tolist(), *([1.0] if bias.bias_I is not None else [])]
    genre = next(row["genres"][0] for row in run.bundle.items.to_pylist() if row["genres"])
    models = client_module.models
    condition = models.FieldCondition(key="genres", match=models.MatchAny(any=[genre]))
    points = client.query_points("items", query=query, limit=5, query_filter=models.Filter(must=[condition])).points
    allowed = np.array([genre in (row["genres"] or []) for row in run.bundle.items.to_pylist()])
    expected = run.bundle.index.search(vectors.queries(requests), 5, None, allowed & run.bundle.scorer.scorable_I)
    assert [point.id for point in points] == [row for row in expected.rows_BK[0].tolist() if row >= 0]
    assert [point.payload["item_id"] for point in points] == run.bundle.item_ids.take(
        pa.array([p.id for p in points])
    ).to_pylist()


def test_the_alias_moves_at_the_end_and_a_second_export_does_nothing(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = pytest.importorskip("qdrant_client").QdrantClient(":memory:")
    first, _ = opened(output, "als")
    qdrant.export_to(client, first, "items")
    assert qdrant.export_to(client, first, "items")["skipped"]
    second, _ = opened(output, "svd")
    monkeypatch.setattr(qdrant, "LEAST_RECALL", 1.1)
    with pytest.raises(PublishError, match="items stays where it was"):
        qdrant.export_to(client, second, "items")
    assert [alias.collection_name for alias in client.get_aliases().aliases] == [f"items-{first.record.run_id}"]
    assert not client.collection_exists(f"items-{second.record.run_id}")
    monkeypatch.undo()
    qdrant.export_to(client, second, "items")
    assert [alias.collection_name for alias in client.get_aliases().aliases] == [f"items-{second.record.run_id}"]
    assert [found.name for found in client.get_collections().collections] == [f"items-{second.record.run_id}"]


def test_a_server_that_is_not_there_is_one_line(output: Path) -> None:
    pytest.importorskip("qdrant_client")
    run, _ = opened(output, "als")
    with pytest.raises(PublishError, match=r"http://127\.0\.0\.1:9: Qdrant can't be used") as failure:
        qdrant.export_items(run, "http://127.0.0.1:9", "items")
    assert "\n" not in str(failure.value)
