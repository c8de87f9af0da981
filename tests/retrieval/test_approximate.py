"""Approximate indexes against exact search: scores, filters, ties, batches, what is measured, chosen, kept and refused.

Shape suffixes: B queries, D dimension, I items, K ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from recsys_ray.base.errors import BundleError, ConfigError, ModelError, StorageError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import FitContext, FloatArray, ItemLists, ItemVectors
from recsys_ray.models import MODELS
from recsys_ray.recommend.bundle import Bundle, open_bundle, write_bundle
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.recommend.options import read_options, search_index, with_stages
from recsys_ray.recommend.rank import recommend
from recsys_ray.retrieval import ExactIndex, Index, IndexSettings, TopK, approximate, open_index, pair_scores
from recsys_ray.retrieval.approximate import ApproximateIndex, build, restored
from recsys_ray.retrieval.choice import measured
from recsys_ray.runs.batch import ShardRecommender
from recsys_ray.runs.config import GateSettings
from recsys_ray.runs.gate import check_run
from tests.data_worlds import prepare_values
from tests.recommend.test_rank import world

KINDS = ("flat", "ivf", "hnsw", "sq8", "pq")


@dataclass(frozen=True)
class Problem:
    """Queries and the items they are for."""

    queries_BD: FloatArray
    items: ItemVectors

    @classmethod
    def of(cls, queries_BD: FloatArray, items_ID: FloatArray, bias_I: FloatArray | None = None) -> Problem:
        return cls(queries_BD, ItemVectors(items_ID, bias_I))


def some_problem(seed: int = 0, rows: int = 60, items: int = 3000, dim: int = 12, bias: bool = False) -> Problem:
    """Random, with item lengths as uneven as a catalogue's."""
    rng = np.random.default_rng(seed)
    queries_BD, items_ID = (rng.standard_normal((count, dim)).astype(np.float32) for count in (rows, items))
    items_ID *= (1.0 + rng.permutation(items)[:, None]).astype(np.float32) ** np.float32(-0.3)
    return Problem.of(queries_BD, items_ID, rng.standard_normal(items).astype(np.float32) if bias else None)


def exact(problem: Problem) -> ExactIndex:
    return ExactIndex(problem.items.vectors_ID, problem.items.bias_I)


def built(problem: Problem, kind: Any, **values: Any) -> ApproximateIndex:
    return build(problem.items, IndexSettings(kind=kind, **values), lambda: exact(problem))


def opened(place: Location, problem: Problem, settings: IndexSettings, progress: Any = print) -> Any:
    return open_index(
        place,
        problem.items,
        settings,
        exact=lambda: exact(problem),
        sample=lambda: problem.queries_BD,
        progress=progress,
    )


def recall(found: TopK, expected: TopK) -> float:
    pairs = zip(found.rows_BK, expected.rows_BK, strict=True)
    return float(np.mean([len(set(row) & set(listed)) / len(listed) for row, listed in pairs]))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_most_of_the_exact_list_is_found_with_exact_scores_in_order(kind: str, bias: bool) -> None:
    problem = some_problem(bias=bias)
    index = built(problem, kind, **({"ef_search": 400} if kind == "hnsw" else {}))
    assert isinstance(index, Index) and not index.is_exact
    found, expected = index.search(problem.queries_BD, 20), exact(problem).search(problem.queries_BD, 20)
    assert recall(found, expected) > (0.999 if kind == "flat" else 0.85)
    for row in range(60):
        at = {item: score for item, score in zip(expected.rows_BK[row], expected.scores_BK[row], strict=True)}
        for item, score in zip(found.rows_BK[row], found.scores_BK[row], strict=True):
            assert at.get(item, score) == score  # bit by bit what exact search says of the pair
    assert (np.diff(found.scores_BK, axis=1) <= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_filters_hold_and_every_list_is_full(kind: str) -> None:
    problem, rng = some_problem(1), np.random.default_rng(1)
    best = exact(problem).search(problem.queries_BD, 400)
    hidden = [best.rows_BK[row, : row * 5].tolist() for row in range(60)]  # the very items that would be found first
    allowed = rng.random(3000) < 0.4
    found = built(problem, kind).search(problem.queries_BD, 15, ItemLists.from_lists(hidden), allowed)
    assert (found.rows_BK >= 0).all() and allowed[found.rows_BK].all()
    assert not any(set(row) & set(listed) for row, listed in zip(found.rows_BK.tolist(), hidden, strict=True))
    assert all(len(set(row)) == 15 for row in found.rows_BK.tolist())
    expected = exact(problem).search(problem.queries_BD, 15, ItemLists.from_lists(hidden), allowed)
    assert recall(found, expected) > 0.7


@pytest.mark.parametrize("kind", KINDS)
def test_where_too_little_is_found_the_exact_index_answers(kind: str) -> None:
    problem = some_problem(2)
    narrow = np.zeros(3000, np.bool_)
    narrow[[7, 70, 700]] = True
    hidden = ItemLists.from_lists([[7]] * 60)
    found = built(problem, kind).search(problem.queries_BD, 4, hidden, narrow)
    expected = exact(problem).search(problem.queries_BD, 4, hidden, narrow)
    np.testing.assert_array_equal(found.rows_BK, expected.rows_BK)  # two items, then -1 twice
    np.testing.assert_array_equal(found.scores_BK, expected.scores_BK)
    assert set(found.rows_BK[0].tolist()) == {70, 700, -1}


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_does_not_depend_on_its_batch_nor_an_index_on_when_it_was_built(kind: str) -> None:
    problem, rng = some_problem(3), np.random.default_rng(3)
    hidden = ItemLists.from_lists([rng.integers(0, 3000, rng.integers(0, 50)).tolist() for _ in range(60)])
    whole = built(problem, kind).search(problem.queries_BD, 10, hidden)
    again = built(problem, kind)
    for row in range(60):
        alone = again.search(problem.queries_BD[row : row + 1], 10, hidden.slice(row, row + 1))
        np.testing.assert_array_equal(alone.rows_BK[0], whole.rows_BK[row])
        np.testing.assert_array_equal(alone.scores_BK[0], whole.scores_BK[row])


def test_rounding_does_not_make_a_list_depend_on_its_batch() -> None:
    """Items that differ in their last bits: which are found depends on the order in which a product is added up."""
    rng = np.random.default_rng(4)
    base_D = rng.standard_normal((1, 48)).astype(np.float32)
    noise_ID = rng.integers(-2, 3, (2000, 48)).astype(np.float32) * np.float32(2**-22)
    problem = Problem.of(np.repeat(base_D, 64, axis=0), base_D + noise_ID)
    index = built(problem, "flat")
    whole = index.search(problem.queries_BD, 10)
    alone = index.search(problem.queries_BD[:1], 10)
    np.testing.assert_array_equal(whole.rows_BK, np.repeat(alone.rows_BK, 64, axis=0))


def test_hidden_items_are_made_up_for_without_the_exact_index() -> None:
    problem = some_problem(1)
    best = exact(problem).search(problem.queries_BD, 300)
    index = build(problem.items, IndexSettings(kind="flat"), lambda: pytest.fail("asked for the exact index"))
    assert (index.search(problem.queries_BD, 15, ItemLists.from_lists(best.rows_BK.tolist())).rows_BK >= 0).all()


def test_equal_items_come_in_row_order() -> None:
    problem = Problem.of(np.ones((1, 4), np.float32), np.ones((500, 4), np.float32))
    assert (np.diff(built(problem, "flat").search(problem.queries_BD, 9).rows_BK[0]) > 0).all()


def test_pairs_score_as_exact_search_scores_them() -> None:
    for bias in (False, True):
        problem = some_problem(4, items=300, dim=37, bias=bias)
        top = exact(problem).search(problem.queries_BD, 300, ItemLists.from_lists([[5]] * 60))
        np.testing.assert_array_equal(pair_scores(problem.queries_BD, problem.items, top.rows_BK), top.scores_BK)


# --- measured, chosen, kept ---


def test_recall_is_that_of_the_sampled_queries() -> None:
    problem = some_problem(5)
    settings = IndexSettings(kind="ivf", nprobe=2, recall_at=12, min_recall=0.0)
    index, facts = measured(problem.items, problem.queries_BD, settings, lambda: exact(problem))
    expected = recall(
        built(problem, "ivf", nprobe=2).search_alone(problem.queries_BD, 12),
        exact(problem).search(problem.queries_BD, 12),
    )
    assert facts["recall"] == pytest.approx(expected) and 0 < expected < 0.9
    assert facts["used"] == "ivf" and facts["queries"] == 60 and not index.is_exact


def test_below_the_wanted_recall_the_exact_index_is_used_and_it_says_so(tmp_path: Path) -> None:
    problem, said = some_problem(5), list[str]()
    settings = IndexSettings(kind="ivf", nprobe=1)
    place = Location.of(tmp_path)
    for _ in range(2):  # built, and read back
        index, facts = opened(place, problem, settings, said.append)
        assert index.is_exact and facts["kind"] == "ivf" and facts["used"] == "exact" and facts["recall"] < 0.95
    assert len(said) == 1 and "below min_recall=0.95: exact is used; set recommend.index.nprobe higher" in said[0]
    assert [name.rsplit(".")[-1] for name in place.names()] == ["json"]


def test_without_a_query_to_measure_on_the_exact_index_is_used() -> None:
    problem = replace(some_problem(5), queries_BD=np.zeros((0, 12), np.float32))
    index, facts = measured(
        problem.items, problem.queries_BD, IndexSettings(kind="flat", min_recall=0.0), lambda: exact(problem)
    )
    assert index.is_exact and facts["recall"] is None and facts["used"] == "exact"


@pytest.mark.parametrize("kind", KINDS)
def test_a_kept_index_gives_the_same_lists_and_is_not_built_again(kind: Any, tmp_path: Path) -> None:
    problem, said, place = some_problem(6, bias=True), list[str](), Location.of(tmp_path)
    settings = IndexSettings(kind=kind, min_recall=0.5)
    first, facts = opened(place, problem, settings, said.append)
    second, facts_again = opened(place, problem, settings, said.append)
    assert facts == facts_again and len(said) == 1 and first is not second
    one, two = first.search(problem.queries_BD, 10), second.search(problem.queries_BD, 10)
    np.testing.assert_array_equal(one.rows_BK, two.rows_BK)
    np.testing.assert_array_equal(one.scores_BK, two.scores_BK)


def test_a_foreign_index_is_refused_and_a_broken_one_built_again(tmp_path: Path) -> None:
    problem, place = some_problem(6), Location.of(tmp_path)
    settings = IndexSettings(kind="flat", min_recall=0.5)
    opened(place, problem, settings)
    other = some_problem(6, items=2999)
    with pytest.raises(BundleError, match="an index of other item vectors"):
        opened(place, other, settings)
    whole, record = next(tmp_path.glob("*.faiss")), next(tmp_path.glob("*.json"))
    kept = {file: file.read_bytes() for file in (whole, record)}
    for file, data in kept.items():
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 1
        for damaged in (b"", b"nothing", b"{}", data[:-3], bytes(flipped)):
            file.write_bytes(damaged)
            opened(place, problem, settings)
            assert whole.read_bytes() == kept[whole]
    with pytest.raises(BundleError, match="not a readable index; delete it"):
        restored(b"nothing", problem.items, settings, lambda: exact(problem), "a.faiss")


def test_where_an_index_can_not_be_kept_it_is_used_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Location, data: bytes) -> None:
        raise StorageError(f"{self}: can't write (Read-only file system)")

    monkeypatch.setattr(Location, "write_bytes", refuse)
    problem, said = some_problem(6), list[str]()
    settings = IndexSettings(kind="flat", min_recall=0.5)
    index, _ = opened(Location.of(tmp_path), problem, settings, said.append)
    assert not index.is_exact and "not kept" in said[-1] and "Read-only" in said[-1]


def test_a_catalogue_too_small_to_leave_anything_out_is_measured_but_searched_exactly() -> None:
    problem = some_problem(6, items=60)
    index, facts = measured(
        problem.items, problem.queries_BD, IndexSettings(kind="ivf", nprobe=3, min_recall=0), lambda: exact(problem)
    )
    assert facts["used"] == "ivf" and 0 < facts["recall"] < 1
    found, expected = index.search(problem.queries_BD, 20), exact(problem).search(problem.queries_BD, 20)
    np.testing.assert_array_equal(found.rows_BK, expected.rows_BK)


def test_what_does_not_fit_is_refused() -> None:
    problem = some_problem(7)
    index = built(problem, "flat")
    bad = problem.queries_BD.copy()
    bad[4, 1] = np.nan
    with pytest.raises(ModelError, match="queries: row 4 holds NaN or inf"):
        index.search(bad, 2)
    with pytest.raises(ModelError, match="queries have 11 columns, the index has 12"):
        index.search(np.ascontiguousarray(bad[:1, :11]), 2)
    with pytest.raises(ModelError, match="k must be at least 1"):
        index.search(problem.queries_BD, 0)
    with pytest.raises(ModelError, match="a score is beyond float32"):
        index.search(np.full((1, 12), 3e38, np.float32), 2)
    with pytest.raises(ModelError, match="item vectors: row 0 holds NaN"):
        built(Problem.of(bad, bad[4:]), "flat")
    with pytest.raises(ValidationError, match=r"index\.nprobe: belongs to kind=ivf, found kind=hnsw"):
        IndexSettings(kind="hnsw", nprobe=8)


# --- in a bundle ---


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("trained")
    prepared = prepare_values(folder, source="synthetic", users=200, items=400, interactions_per_user=10, shards=2)
    scorer = MODELS["als"](embedding_dim=8).fit_scorer(prepared.train_data(("train",)), FitContext())
    location = Location.of(folder / "als")
    write_bundle(location, scorer, prepared, ("train",), {"model": "als", "prepared": "prepared"})
    return open_bundle(location)


def table(bundle: Bundle, settings: RecommendSettings) -> pa.Table:
    options = with_stages(bundle, settings, read_options(bundle, settings))
    return pa.concat_tables([recommend(bundle, bundle.requests(shard), options) for shard in range(bundle.num_shards)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_through_an_index_passes_the_gate_and_agrees_with_exact_search(
    trained: Bundle, tmp_path: Path, kind: Any
) -> None:
    settings = RecommendSettings(n=5, index=IndexSettings(kind=kind, sample=50, recall_at=5))
    recommender = ShardRecommender(str(trained.location), str(tmp_path), settings)
    assert isinstance(recommender.options.index, ApproximateIndex)
    for shard in range(trained.num_shards):
        recommender(shard)
    check_run(trained, Location.of(tmp_path), settings, GateSettings())
    run = pa.concat_tables([Location.of(path).read_parquet() for path in sorted(tmp_path.glob("part-*"))])
    plain = table(trained, RecommendSettings(n=5))
    shown, expected = (set(zip(*[t[name].to_pylist() for name in ("user_id", "item_id")], strict=True))
                       for t in (run, plain))  # fmt: skip
    assert len(shown & expected) / len(expected) > 0.95
    _, facts = search_index(trained, settings)
    assert facts is not None and facts["used"] == kind and facts["queries"] == 50


def test_a_model_without_item_vectors_can_not_be_indexed() -> None:
    with pytest.raises(ConfigError, match=r"recommend\.index\.kind=hnsw: model table has no item vectors"):
        read_options(world(), RecommendSettings(n=2, index=IndexSettings(kind="hnsw")))


def test_two_equal_queries_find_the_same(trained: Bundle) -> None:
    queries: FloatArray = np.ones((2, 8), np.float32)
    index, _ = search_index(trained, RecommendSettings(index=IndexSettings(kind="hnsw", min_recall=0)))
    assert index is not None
    found = index.search(queries, 3)
    assert found.rows_BK[0].tolist() == found.rows_BK[1].tolist()


# -- small codes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
def test_coarse_kinds_are_small_and_what_they_find_is_scored_exactly(bias: bool) -> None:
    problem = some_problem(items=4000, dim=32, bias=bias)
    sizes = {kind: len(built(problem, kind).saved()) for kind in ("flat", "sq8", "pq")}
    assert sizes["sq8"] < sizes["flat"] / 3
    assert sizes["pq"] < sizes["flat"] / 4
    expected = exact(problem).search(problem.queries_BD, 20)
    assert recall(built(problem, "sq8").search(problem.queries_BD, 20), expected) > 0.999
    few, many = (
        recall(built(problem, "pq", oversample=n).search_alone(problem.queries_BD, 20), expected) for n in (1, 16)
    )
    assert few < many and many > 0.95


@pytest.mark.parametrize("items", [1, 3, 40])
@pytest.mark.parametrize("kind", ["sq8", "pq"])
def test_coarse_kinds_of_few_items(kind: str, items: int) -> None:
    problem = some_problem(items=items, dim=5, bias=True)
    found = built(problem, kind, oversample=40).search(problem.queries_BD, items)
    np.testing.assert_array_equal(found.rows_BK, exact(problem).search(problem.queries_BD, items).rows_BK)


def test_a_gpu_that_is_not_there_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"recommend\.index\.gpu: this FAISS sees no GPU"):
        built(some_problem(items=50), "flat", gpu=True)


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_a_gpu_gives_what_the_cpu_gives(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the GPU: that its index has no filters is what is tested."""
    monkeypatch.setattr(approximate.FAISS, "StandardGpuResources", lambda: None, raising=False)
    monkeypatch.setattr(approximate.FAISS, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(
        approximate.FAISS, "index_cpu_to_gpu", lambda _, __, graph: _WithoutFilters(graph), raising=False
    )
    problem, allowed = some_problem(), np.random.default_rng(1).random(3000) < 0.5
    settings = {"nprobe": 3000} if kind == "ivf" else {}
    found = built(problem, kind, gpu=True, **settings).search(problem.queries_BD, 20, None, allowed)
    expected = exact(problem).search(problem.queries_BD, 20, None, allowed)
    np.testing.assert_array_equal(found.rows_BK, expected.rows_BK)


class _WithoutFilters:
    def __init__(self, graph: Any) -> None:
        self.graph = graph

    def search(self, queries: FloatArray, k: int) -> Any:
        return self.graph.search(queries, k)
