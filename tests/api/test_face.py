"""The Python face: the lists of a run, the frames that came in, and one clear error for what is wrong."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import recsys_ray as rr
from recsys_ray.base.errors import BundleError, ConfigError, DataError, RecsysError, SizeError
from recsys_ray.base.storage import Location
from recsys_ray.evaluation import EvaluationSettings
from recsys_ray.models import MODELS
from recsys_ray.runs.evaluate import evaluate_run
from tests.serving_worlds import prepared_world, publish_run, published_rows

MODULES = ("api.dataset", "api.recommender", "api.evaluate", "api.fit")


def frame_of(prepared: Any) -> pd.DataFrame:
    """Prepared interactions as a user would have them: with outside ids, in time."""
    ids = prepared.items.column("item_id").to_pylist()
    rows = []
    for shard in range(prepared.num_shards):
        for user in prepared.shard(shard).to_pylist():
            events = zip(user["items"], user["ratings"], user["timestamps"], strict=True)
            rows += [(user["user_id"], ids[item], rating, time) for item, rating, time in events]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp"])
    return frame.sample(frac=1.0, random_state=1).sort_values("timestamp", kind="stable", ignore_index=True)


def catalogue_of(prepared: Any) -> pd.DataFrame:
    return prepared.items.to_pandas()[["item_id", "title", "genres", "year"]]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Location]:
    """An output directory, its prepared data and its published run."""
    folder = tmp_path_factory.mktemp("published")
    prepared = prepared_world(folder, split={"kind": "leave_last_out"})
    return folder, prepared, publish_run(folder, prepared, "ease", settings={"regularization": 20.0})


@pytest.fixture(scope="module")
def events(published: Any) -> pd.DataFrame:
    return frame_of(published[1])


@pytest.fixture(scope="module")
def movies(published: Any) -> pd.DataFrame:
    return catalogue_of(published[1])


# --- what it answers ---


def test_lists_equal_the_published_ones(published: Any, events: pd.DataFrame, movies: pd.DataFrame) -> None:
    """The run learned from ``train`` of a leave-last-out split with validation; so does the face."""
    _, _, run = published
    train, _, _ = rr.Dataset(events, items=movies).split("leave_last_out", valid=True)
    lists = rr.EASE(regularization=20.0).fit(train).recommend(n=10)
    expected = pd.DataFrame([row for rows in published_rows(run).values() for row in rows])
    merged = lists.merge(expected, on=["user_id", "rank"], suffixes=("", "_run"))
    assert len(merged) == len(lists) == len(expected)
    assert (merged["item_id"] == merged["item_id_run"]).all() and (merged["source"] == merged["source_run"]).all()
    np.testing.assert_allclose(merged["score"], merged["score_run"], atol=1e-6)


def test_a_published_run_is_a_model(published: Any) -> None:
    folder, _, run = published
    expected = published_rows(run)
    for path in (folder, run.url):
        model = rr.load(path)
        lists = model.recommend()
        assert model.name == "ease" and lists["user_id"].nunique() == len(expected)
        for user, rows in lists.groupby("user_id"):
            assert rows["item_id"].tolist() == [row["item_id"] for row in expected[user]]


def test_what_is_not_given_is_as_in_the_run(published: Any, tmp_path: Path) -> None:
    run = publish_run(tmp_path, prepared_world(tmp_path), "ease", rerank={"diversity": 0.5, "pool": 30})
    model = rr.load(run.url)
    own = model.recommend()
    pd.testing.assert_frame_equal(model.recommend(max_per_genre=10), own)  # as many as there are ranks: no cap
    assert not model.recommend(diversity=0.0)["item_id"].equals(own["item_id"])


def test_some_users_get_what_they_get_among_all(events: pd.DataFrame) -> None:
    model = rr.ItemCF().fit(rr.Dataset(events))
    whole = model.recommend(n=4)
    users = whole["user_id"].unique()[[7, 3, 3]].tolist()
    some = model.recommend(users, n=4)
    assert some["user_id"].tolist() == [user for user in users for _ in range(4)]
    for user in users:
        pd.testing.assert_frame_equal(
            some[some["user_id"] == user].drop_duplicates().reset_index(drop=True),
            whole[whole["user_id"] == user].reset_index(drop=True),
        )
    assert model.recommend(users[0], n=4)["item_id"].tolist() == some["item_id"].tolist()[:4]


def test_a_history_is_answered_as_the_user_who_has_it(events: pd.DataFrame) -> None:
    model = rr.EASE().fit(rr.Dataset(events))
    user = events["user_id"].iloc[0]
    own = events[events["user_id"] == user]["item_id"].tolist()
    lists = model.recommend(history=own, n=6)
    assert "user_id" not in lists
    known = model.recommend(user, n=6)
    assert lists["item_id"].tolist() == known["item_id"].tolist()
    np.testing.assert_allclose(lists["score"], known["score"], rtol=1e-6)
    assert model.recommend(history=[], n=3)["source"].unique().tolist() == ["fallback:popularity"]


def test_what_is_filtered(events: pd.DataFrame, movies: pd.DataFrame) -> None:
    model = rr.ItemCF().fit(rr.Dataset(events, items=movies))
    pairs = set(zip(events["user_id"], events["item_id"], strict=True))
    assert not pairs & set(zip(*model.recommend(n=10)[["user_id", "item_id"]].T.values, strict=True))
    seen = model.recommend(n=10, filter_seen=False)
    assert pairs & set(zip(seen["user_id"], seen["item_id"], strict=True))
    some = movies["item_id"].tolist()[:5]
    assert set(model.recommend(n=3, allow=some)["item_id"]) <= set(some)
    assert not set(model.recommend(n=10, deny=some)["item_id"]) & set(some)
    assert model.recommend(history=[], fallback=False).empty
    reasons = model.recommend(events["user_id"].iloc[0], n=2, explain=True)["reason"]
    assert reasons.str.startswith(("Because of", "Shares genres", "Popular")).all()
    varied = model.recommend(events["user_id"].iloc[0], n=5, max_per_genre=1)
    genres = movies.set_index("item_id").loc[varied["item_id"], "genres"].explode()
    assert genres.value_counts().max() == 1


@pytest.mark.slow
@pytest.mark.parametrize("model", ["popularity", "als", "svd", "pure_svd", "graph_filter", "lightgcn"])
def test_every_model_goes_by_name(events: pd.DataFrame, model: str) -> None:
    small = {"embedding_dim": 4, "epochs": 2}
    settings = {name: value for name, value in small.items() if name in MODELS[model].model_fields}
    fitted = rr.fit(rr.Dataset(events), model, seed=3, **settings)
    assert fitted.name == model and len(fitted.recommend(n=3)) == 3 * events["user_id"].nunique()


def test_content_learns_from_vectors(events: pd.DataFrame, movies: pd.DataFrame) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(movies), 8))
    vectors[3] = np.nan
    shuffled = movies.sample(frac=1.0, random_state=0)
    data = rr.Dataset(events, items=shuffled, item_vectors=vectors[shuffled.index])
    model = rr.Content(center=False).fit(data)
    likest = model.similar_items(movies["item_id"][0], n=1)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = np.nan_to_num(unit @ unit[0], nan=-1)
    cosines[0] = -1
    assert likest["similar_item_id"].tolist() == [movies["item_id"][int(np.argmax(cosines))]]


# --- evaluation ---


def test_evaluation_equals_that_of_a_run(published: Any, events: pd.DataFrame, movies: pd.DataFrame) -> None:
    folder, prepared, run = published
    train, _, test = rr.Dataset(events, items=movies).split("leave_last_out", valid=True)
    lists = rr.EASE(regularization=20.0).fit(train).recommend(n=10)
    report = rr.evaluate(lists, test, k=[5, 10])
    settings = EvaluationSettings(k=[5, 10])
    expected = evaluate_run(prepared.location, Location.of(folder) / "models" / "ease-a", run, settings)
    for name in ("recall@10", "ndcg@5", "hit_rate@10", "mrr@5", "coverage@10"):
        assert report.metrics[name] == pytest.approx(expected.metrics[name], rel=1e-6), name
    low, high = report.intervals["ndcg@10"]
    assert low < report.metrics["ndcg@10"] < high and "ndcg" in report.table()
    model = rr.EASE(regularization=20.0).fit(train)
    assert rr.evaluate(model, test, k=[5, 10]).metrics == report.metrics
    scored = rr.evaluate(model, test, k=[1], auc=True, liked=4.0)
    again = evaluate_run(prepared.location, Location.of(folder) / "models" / "ease-a", run, scored.settings)
    assert 0.5 < scored.metrics["auc"] == pytest.approx(again.metrics["auc"])
    assert scored.metrics["rated_precision@1"] == again.metrics["rated_precision@1"]
    assert scored.intervals["auc"][0] < scored.metrics["auc"] < scored.intervals["auc"][1]


def test_a_list_that_is_missing_is_a_miss(events: pd.DataFrame) -> None:
    train, test = rr.Dataset(events).split("leave_last_out")
    lists = rr.Popularity().fit(train).recommend(n=10)
    half = lists[lists["user_id"].isin(lists["user_id"].unique()[::2])]
    whole, less = (rr.evaluate(some, test, bootstrap=0).metrics["hit_rate@10"] for some in (lists, half))
    assert 0 < less < whole


# --- frames ---


def test_frames_come_back_in_their_kind(events: pd.DataFrame, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    expected = rr.ItemCF().fit(rr.Dataset(events)).recommend(n=3)
    events.to_parquet(tmp_path / "events.parquet")
    events.to_csv(tmp_path / "events.csv", index=False)
    given: dict[str, Any] = {
        "polars": polars.from_pandas(events),
        "lazy": polars.from_pandas(events).lazy(),
        "arrow": pa.Table.from_pandas(events),
        "parquet": tmp_path / "events.parquet",
        "csv": str(tmp_path / "events.csv"),
    }
    kinds = {"polars": polars.DataFrame, "lazy": polars.DataFrame, "arrow": pa.Table}
    for name, frame in given.items():
        lists = rr.ItemCF().fit(rr.Dataset(frame)).recommend(n=3)
        assert isinstance(lists, kinds.get(name, pd.DataFrame)), name
        table = lists if isinstance(lists, pd.DataFrame) else pa.table(lists).to_pandas() if name == "arrow" else None
        pd.testing.assert_frame_equal(lists.to_pandas() if table is None else table, expected, check_dtype=False)


def test_other_names_and_text_ids(events: pd.DataFrame) -> None:
    renamed = events.rename(columns={"user_id": "customer", "item_id": "sku", "rating": "stars"})
    renamed["customer"] = "c" + renamed["customer"].astype(str)
    columns = {"user_id": "customer", "item_id": "sku", "rating": "stars"}
    lists = rr.ItemCF().fit(rr.Dataset(renamed, columns=columns)).recommend(n=3)
    plain = rr.ItemCF().fit(rr.Dataset(events)).recommend(n=3)
    both = lists.assign(user_id=lists["user_id"].str[1:].astype(int)).merge(plain, on=["user_id", "rank"])
    assert len(both) == len(plain) and (both["item_id_x"] == both["item_id_y"]).all()


def test_parts_of_a_split_hold_what_they_should(events: pd.DataFrame) -> None:
    train, test = rr.Dataset(events).split("leave_last_out")
    long = events[events.groupby("user_id")["item_id"].transform("size") >= 3]
    last = long.groupby("user_id").tail(1)
    assert set(map(tuple, test.interactions()[["user_id", "item_id"]].values)) == set(
        map(tuple, last[["user_id", "item_id"]].values)
    )
    assert train.num_interactions + test.num_interactions == len(events)
    assert repr(test).endswith("test of a split)")
    parts = rr.Dataset(events, seed=5).split("random", test_ratio=0.2, valid_ratio=0.1)
    assert len(parts) == 3 and sum(part.num_interactions for part in parts) == len(events)


def test_below_min_rating_is_seen_but_not_learned(events: pd.DataFrame) -> None:
    data = rr.Dataset(events, filters={"min_rating": 4.0})
    assert data.num_interactions == (events["rating"] >= 4).sum()
    lists = rr.ItemCF().fit(data).recommend(n=20)
    pairs = set(zip(events["user_id"], events["item_id"], strict=True))
    assert not pairs & set(zip(lists["user_id"], lists["item_id"], strict=True))


# --- saved ---


@pytest.mark.parametrize("model", ["item_cf", "als", "popularity"])
def test_saved_and_loaded_answers_the_same(events: pd.DataFrame, tmp_path: Path, model: str) -> None:
    fitted = rr.fit(rr.Dataset(events), model)
    fitted.save(tmp_path / "model")
    again = rr.load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.recommend(n=5), fitted.recommend(n=5))
    again.save(tmp_path / "copy")
    pd.testing.assert_frame_equal(
        rr.load(tmp_path / "copy", kind="arrow").recommend(n=5).to_pandas(), again.recommend(n=5)
    )


# --- what is wrong ---


def model_of(events: pd.DataFrame) -> Any:
    return rr.ItemCF().fit(rr.Dataset(events))


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


def held_out(events: pd.DataFrame) -> rr.Dataset:
    return rr.Dataset(events).split("leave_last_out")[1]


Action = Callable[[pd.DataFrame], Any]
NAMELESS: Action = lambda events: rr.Dataset(frame(a=[1], item_id=[2]))  # noqa: E731
WRONG: list[tuple[type[RecsysError], str, Action]] = [
    (DataError, "no column 'user_id'; found a, item_id; name yours with columns=", NAMELESS),
    (DataError, "interactions: give a DataFrame.*found list", lambda events: rr.Dataset([(1, 2)])),
    (DataError, "'user_id' mixes int and str", lambda events: rr.Dataset(frame(user_id=[1, "b"], item_id=[2, 2]))),
    (DataError, "integers or strings as ids", lambda events: rr.Dataset(frame(user_id=[1.5], item_id=[2])).prepared),
    (DataError, "'rating'", lambda events: rr.Dataset(frame(user_id=[1], item_id=[2], rating=["a"])).prepared),
    (ConfigError, r"filters\.min_ratng: there is no", lambda events: rr.Dataset(events, filters={"min_ratng": 3})),
    (DataError, "user 999999 is not one of the [0-9]+ users", lambda events: model_of(events).recommend([999999])),
    (DataError, "user ids of the data are int64, found 'x'", lambda events: model_of(events).recommend(["x"])),
    (DataError, "item 999999 is not in the catalogue", lambda events: model_of(events).similar_items(999999)),
    (DataError, "item 999999 is not in", lambda events: model_of(events).recommend(history=[999999])),
    (ConfigError, "n must be between 1 and the [0-9]+ items, found 0", lambda events: model_of(events).recommend(n=0)),
    (ConfigError, "n must be between 1 and", lambda events: model_of(events).similar_items(1, n=0)),
    (ConfigError, "diversity must be between 0 and 1", lambda events: model_of(events).recommend(diversity=5)),
    (ConfigError, "max_per_genre must be at least 1", lambda events: model_of(events).recommend(max_per_genre=0)),
    (ConfigError, "give either users or a history", lambda events: model_of(events).recommend([1], history=[1])),
    (ConfigError, "give item, and either user or history", lambda events: model_of(events).explain(user=1)),
    (ConfigError, r"no model 'eaze'; did you mean 'ease'\?", lambda events: rr.fit(rr.Dataset(events), "eaze")),
    (ConfigError, "ease: wait: there is no such setting", lambda events: rr.fit(rr.Dataset(events), "ease", wait=1)),
    (ConfigError, "data must be a Dataset, found DataFrame", lambda events: rr.fit(events, "ease")),
    (ConfigError, "split: .*kind 'by_luck' is none of", lambda events: rr.Dataset(events).split("by_luck")),
    (ConfigError, "test must be a held-out part", lambda events: rr.evaluate(events, rr.Dataset(events))),
    (ConfigError, "auc needs the model's scores", lambda events: rr.evaluate(events, held_out(events), auc=True)),
    (DataError, "recs: no column 'rank'", lambda events: rr.evaluate(events, held_out(events))),
    (
        DataError,
        "other items than",
        lambda events: rr.evaluate(model_of(events[events["item_id"] < 20]), held_out(events)),
    ),
    (SizeError, "ease: .* GiB", lambda events: rr.EASE().fit(rr.Dataset(events), memory_limit_gib=1e-9)),
    (BundleError, r"no model here; give the directory that save\(\) wrote", lambda events: rr.load("/no/where")),
]


@pytest.mark.parametrize(("error", "said", "action"), WRONG, ids=[said[:40] for _, said, _ in WRONG])
def test_one_clear_error(events: pd.DataFrame, error: type[RecsysError], said: str, action: Any) -> None:
    with pytest.raises(error, match=said) as caught:
        action(events)
    assert "\n" not in str(caught.value)


# --- the door itself ---


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_docstrings(name: str) -> None:
    found = doctest.testmod(import_module(f"recsys_ray.{name}"), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 0 and found.failed == 0


def test_every_public_name_is_there_and_documented() -> None:
    for name in rr.__all__:
        assert name == "__version__" or getattr(rr, name).__doc__, name
    assert set(dir(rr)) == set(rr.__all__)
    assert {model.__name__ for model in MODELS.values()} <= set(rr.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rr.nothing


@pytest.mark.slow
def test_it_is_imported_quickly_and_without_ray() -> None:
    code = """if True:
        import sys, time
        started = time.process_time()
        import recsys_ray as rr
        seconds = time.process_time() - started
        heavy = {"torch", "ray", "numpy", "pandas", "pyarrow", "numba", "scipy", "pydantic"} & set(sys.modules)
        assert not heavy, heavy
        assert seconds < 0.3, seconds
        import pandas as pd
        model = rr.EASE().fit(rr.Dataset(pd.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 2]})))
        assert len(model.recommend(n=1)) == 1
        assert "ray" not in sys.modules and "torch" not in sys.modules, "a fit in memory needs neither"
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_frame_of_users_makes_users_and_tells_of_them() -> None:
    events = pd.DataFrame({"user_id": ["ann", "bob"], "item_id": [1, 2]})
    users = pd.DataFrame({"user_id": ["cid", "ann"], "age": [30, 20], "job": ["x", None], "when": pd.Timestamp("2020")})
    data = rr.Dataset(events, users=users)
    assert data.num_users == 3
    table = data.prepared.attributes(0)
    assert table is not None
    assert table.to_pylist() == [{"age": 20, "job": None}, {"age": None, "job": None}, {"age": 30, "job": "x"}]
    assert len(data.fitted(rr.Popularity()).recommend(n=1)) == 3
    with pytest.raises(DataError, match="users: no column 'user_id'"):
        rr.Dataset(events, users=users.drop(columns="user_id"))
    with pytest.raises(DataError, match="give users as a frame, too"):
        rr.Dataset(events, users="users.csv")
