"""Ranker and re-ranking: worlds worked by hand, a slow and plain re-ranker to compare with, runs that pass the gate.

Shape suffixes: B requests, I items, K candidates, D dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from recsys_ray.base.errors import ConfigError, PublishError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import FitContext, FloatArray, IntArray, ItemLists, Requests
from recsys_ray.data.prepared import Prepared
from recsys_ray.models import MODELS
from recsys_ray.recommend.bundle import Bundle, open_bundle, write_bundle
from recsys_ray.recommend.config import RankerSettings, RecommendSettings
from recsys_ray.recommend.options import Options, ScorerRanker, read_options, with_stages
from recsys_ray.recommend.rank import predict, recommend
from recsys_ray.retrieval import Reranker, RerankSettings, TopK, top_k_scores
from recsys_ray.runs.batch import ShardRecommender
from recsys_ray.runs.config import GateSettings
from recsys_ray.runs.gate import check_run
from tests.data_worlds import prepare_values
from tests.recommend.test_rank import SCORES, TableScorer, ask, lists, world

GENRES = [["war"], ["war"], ["comedy", "war"], ["comedy"], []]
NUMBERS = ItemLists.from_lists([[0], [0], [0, 1], [1], []])


def with_genres(bundle: Bundle, genres: list[list[str] | None] | None = None) -> Bundle:
    column = pa.array(genres or GENRES, pa.list_(pa.string()))
    return replace(bundle, items=bundle.items.append_column("genres", column))


def settings(**values: Any) -> RerankSettings:
    return RerankSettings(**{"pool": 5} | values)


def asked(bundle: Bundle, n: int, **values: Any) -> Options:
    return read_options(bundle, RecommendSettings(n=n, rerank=settings(**values)))


# --- worked by hand ---


def test_variety_by_genres_worked_by_hand() -> None:
    """Scores 5 4 3 2 1 are relevances 1 .75 .5 .25 0; the weight of both sides is a half.

    a first (.5). Then b .375 - .5, c .25 - .5 / sqrt 2, d .125, e 0: d. Then e 0 before b and c: e.
    Then c .25 - .5 / sqrt 2 = -.10 and b .375 - .5 = -.125.
    """
    table = recommend(with_genres(world()), ask([0], [[]]), asked(with_genres(world()), 5, diversity=0.5))
    assert lists(table) == {100: "adecb"}
    expected = [0.5, 0.125, 0.0, 0.25 - 0.5 / np.sqrt(2), -0.125]
    np.testing.assert_allclose(table["score"].to_numpy(), expected, atol=1e-7)


def test_caps_worked_by_hand() -> None:
    """One of a genre: a takes war; b and c are war too; d is comedy; e has no genre. Scores stay the model's."""
    bundle = with_genres(world())
    table = recommend(bundle, ask([0], [[]]), asked(bundle, 3, max_per_genre=1))
    assert lists(table) == {100: "ade"} and table["score"].to_pylist() == [5, 2, 1]
    table = recommend(bundle, ask([0], [[]]), asked(bundle, 4, max_per_genre=2))
    assert lists(table) == {100: "abde"}  # c would be the third of war


def test_caps_bind_the_fallback_and_leave_lists_short_rather_than_break() -> None:
    bundle = with_genres(world())
    options = asked(bundle, 4, max_per_genre=1)
    # Unknown user: popularity is b c d a e. User 2: the model's b d a e, of which a is war again; nothing else is left.
    assert lists(recommend(bundle, ask([-1, 2], [[], []]), options)) == {99: "bde", 102: "bde"}
    # The model's rows count for the fallback's: user 2 knows nothing of c, and after b there is no room for it.
    allowed = np.array([False, True, True, False, False])
    assert lists(recommend(bundle, ask([2], [[]]), replace(options, allowed_I=allowed))) == {102: "b"}


def test_variety_alone_takes_nothing_alike_while_there_is_something_else() -> None:
    bundle = with_genres(world())
    assert lists(recommend(bundle, ask([0], [[]]), asked(bundle, 3, diversity=1.0))) == {100: "ade"}


def test_vectors_that_point_apart_are_nothing_alike() -> None:
    vectors = np.array([[1, 0], [2, 0], [-1, 0], [0, 3], [0, 0]], np.float32)
    reranker = Reranker(settings(diversity=1.0, similarity="vectors"), ItemLists.empty(5), vectors)
    candidates = TopK(np.arange(5, dtype=np.int32)[None], np.array([[5, 4, 3, 2, 1]], np.float32))
    picked = reranker.pick(candidates, 5)
    assert picked.rows_BK.tolist() == [[0, 2, 3, 4, 1]] and picked.scores_BK.tolist() == [[0, 0, 0, 0, -1]]


# --- against a slow and plain one ---


def slow_pick(scores_K: FloatArray, rows_K: IntArray, alike: Any, genres: list[set[int]], n: int, wanted: Any) -> Any:
    low, high = min(scores_K), max(scores_K)
    relevance = {int(row): (s - low) / (high - low) for row, s in zip(rows_K, scores_K, strict=True)}
    listed: list[int] = []
    values = []
    while len(listed) < n:
        worth = {}
        for row in relevance.keys() - set(listed):
            full = [sum(genre in genres[other] for other in listed) for genre in genres[row]]
            if wanted.max_per_genre is None or max(full, default=0) < wanted.max_per_genre:
                near = max([0.0, *(alike(row, other) for other in listed)])
                worth[row] = (1 - wanted.diversity) * relevance[row] - wanted.diversity * near
        if not worth:
            break
        best = max(sorted(worth), key=lambda row: worth[row])
        listed.append(best)
        values.append(worth[best])
    return listed, values


@pytest.mark.parametrize("similarity", ["genres", "vectors"])
@pytest.mark.parametrize("cap", [None, 1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_definition(seed: int, cap: int | None, similarity: Any) -> None:
    rng = np.random.default_rng(seed)
    genres = [set(rng.choice(6, rng.integers(0, 4), replace=False).tolist()) for _ in range(40)]
    vectors = rng.standard_normal((40, 19)).astype(np.float32)
    wanted = RerankSettings(diversity=float(rng.uniform(0.1, 0.9)), similarity=similarity, max_per_genre=cap, pool=25)

    def alike(i: int, j: int) -> float:
        if similarity == "genres":
            return len(genres[i] & genres[j]) / np.sqrt(len(genres[i]) * len(genres[j]) or 1)
        return float(vectors[i] @ vectors[j] / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[j]))

    candidates = top_k_scores(rng.standard_normal((9, 40)).astype(np.float32), 25)
    reranker = Reranker(wanted, ItemLists.from_lists([sorted(of_item) for of_item in genres]), vectors)
    picked = reranker.pick(candidates, 8)
    for row in range(9):
        expected, values = slow_pick(candidates.scores_BK[row], candidates.rows_BK[row], alike, genres, 8, wanted)
        count = len(expected)
        assert picked.rows_BK[row].tolist() == expected + [-1] * (8 - count)
        np.testing.assert_allclose(picked.scores_BK[row, :count], values, atol=1e-5)
        assert (np.diff(picked.scores_BK[row, :count]) <= 0).all()
    longer = reranker.pick(candidates, 12)
    np.testing.assert_array_equal(longer.rows_BK[:, :8], picked.rows_BK)  # a longer list begins with the shorter one


def test_of_equal_values_the_lower_item_row_comes_first() -> None:
    candidates = TopK(np.array([[3, 1, 2, -1]], np.int32), np.array([[1, 1, 1, -np.inf]], np.float32))
    picked = Reranker(settings(diversity=0.5), ItemLists.empty(5)).pick(candidates, 4)
    assert picked.rows_BK.tolist() == [[1, 2, 3, -1]] and picked.scores_BK.tolist() == [[0.5, 0.5, 0.5, -np.inf]]


def test_the_answer_does_not_depend_on_the_other_requests() -> None:
    rng = np.random.default_rng(3)
    bundle = with_genres(world(rng.integers(0, 4, (30, 5)).astype(np.float32), factored=True))
    histories = [rng.choice(5, rng.integers(0, 3), replace=False).tolist() for _ in range(30)]
    requests = ask(list(range(30)), histories)
    options = replace(
        asked(bundle, 3, diversity=0.4, max_per_genre=2), ranker=ScorerRanker(bundle.scorer), ranker_pool=4
    )
    whole = recommend(bundle, requests, options).combine_chunks()
    assert recommend(bundle, requests, replace(options, block_bytes=600)).combine_chunks().equals(whole)
    single = [recommend(bundle, requests.slice(user, user + 1), options) for user in range(30)]
    assert pa.concat_tables(single).combine_chunks().equals(whole)


# --- the ranker ---


@dataclass
class Preference:
    """Likes items in a fixed order, has no opinion on some, and counts what it is asked."""

    scores_I: FloatArray

    def score_pairs(self, requests: Requests, rows_BK: IntArray) -> FloatArray:
        return np.where(rows_BK >= 0, self.scores_I[rows_BK], -np.inf).astype(np.float32)


def test_the_ranker_orders_what_was_retrieved_and_nothing_else() -> None:
    backwards = Preference(np.arange(5, dtype=np.float32))
    for pool, expected in ((2, "ba"), (3, "cb"), (5, "ed")):
        table = recommend(world(), ask([0], [[]]), Options(n=2, ranker=backwards, ranker_pool=pool))
        assert lists(table) == {100: expected}


def test_where_the_ranker_has_no_opinion_the_fallback_fills_and_where_it_has_none_at_all_the_candidates_stay() -> None:
    partly = Preference(np.array([1, -np.inf, 1, -np.inf, 1], np.float32))
    rows = recommend(world(), ask([0], [[]]), Options(n=4, ranker=partly, ranker_pool=5)).to_pylist()
    assert [(row["item_id"], row["source"][:5]) for row in rows] == [
        ("a", "model"), ("c", "model"), ("e", "model"), ("b", "fallb")
    ]  # fmt: skip
    mute = Preference(np.full(5, -np.inf, np.float32))
    table = recommend(world(), ask([0], [[0]]), Options(n=3, ranker=mute, ranker_pool=5))
    assert table.equals(recommend(world(), ask([0], [[0]]), Options(n=3)))


def test_a_list_longer_than_the_pools_is_full_all_the_same() -> None:
    bundle, same = with_genres(world()), Preference(np.ones(5, np.float32))
    plain = Options(n=5, ranker=same, ranker_pool=2)
    assert lists(recommend(bundle, ask([0], [[]]), plain)) == {100: "abcde"}
    varied = replace(plain, reranker=Reranker(settings(diversity=1.0, pool=1), NUMBERS))
    table = recommend(bundle, ask([0], [[]]), varied)
    assert set(table["source"].to_pylist()) == {"model"} and lists(table)[100][:3] == "ade"


@pytest.mark.parametrize("factored", [False, True])
def test_a_model_as_its_own_ranker_changes_nothing(factored: bool) -> None:
    bundle = world(np.nan_to_num(SCORES, neginf=-9), [True, True, False, True, True], factored)
    requests = ask([0, 2, -1, 1], [[1], [], [3], [0, 4]])
    itself = ScorerRanker(bundle.scorer, block_bytes=1)
    plain = recommend(bundle, requests, Options(n=3))
    assert recommend(bundle, requests, Options(n=3, ranker=itself, ranker_pool=4)).equals(plain)
    rows = np.array([[0, 2, -1], [4, 1, 1], [0, 1, 2], [-1, 3, 2]], np.int32)
    expected = predict(bundle, requests, ItemLists.from_lists(np.maximum(rows, 0).tolist())).reshape(4, 3)
    expected[np.isnan(expected) | (rows < 0)] = -np.inf
    np.testing.assert_array_equal(itself.score_pairs(requests, rows), expected)


@dataclass
class PairScorer(TableScorer):
    """Scores pairs itself, and must then not be asked for whole blocks."""

    def score_pairs(self, requests: Requests, rows_BK: IntArray) -> FloatArray:
        return np.where(rows_BK >= 0, -self.table_UI[requests.users_B[:, None], rows_BK], -np.inf)

    def score(self, requests: Requests) -> FloatArray:
        raise AssertionError("asked for a block of scores")


def test_a_model_of_pairs_is_asked_for_pairs() -> None:
    ranker = ScorerRanker(PairScorer(SCORES, np.array([True, True, True, True, False])))
    table = recommend(world(), ask([0, -1], [[], []]), Options(n=2, ranker=ranker, ranker_pool=5))
    assert lists(table) == {100: "dc", 99: "bc"}  # e is not scorable; of the unknown user nothing is known


# --- what can't be asked for ---


def test_impossible_stages_are_refused() -> None:
    plain, bundle = world(), with_genres(world())
    with pytest.raises(ConfigError, match="the catalogue has no genres"):
        asked(plain, 2, diversity=0.5)
    with pytest.raises(ConfigError, match="the catalogue has no genres"):
        asked(with_genres(world(), [None, [], [None], [], []]), 2, max_per_genre=1)
    with pytest.raises(ConfigError, match=r"model table has no item vectors; set rerank\.similarity=genres"):
        asked(bundle, 2, diversity=0.5, similarity="vectors")
    with pytest.raises(ConfigError, match=r"recommend\.rerank\.pool=2 can't fill lists of recommend\.n=3"):
        asked(bundle, 3, max_per_genre=1, pool=2)
    with pytest.raises(ValidationError, match="set diversity above 0 or max_per_genre"):
        RerankSettings()


def test_genres_are_numbered_once_per_item_whatever_the_table_holds() -> None:
    bundle = with_genres(world(), [["b", "a", "b"], None, [], ["a", None], ["c"]])
    numbers, names = bundle.genres
    assert [[names[number] for number in numbers.row(item)] for item in range(5)] == [["b", "a"], [], [], ["a"], ["c"]]


# --- whole runs ---


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("trained")
    prepared = prepare_values(folder, source="synthetic", users=150, items=60, interactions_per_user=8, shards=2)
    return {name: train(prepared, name, Location.of(folder / name)) for name in ("item_cf", "als")}


def train(prepared: Prepared, name: str, location: Location) -> Bundle:
    context = FitContext()
    scorer = MODELS[name]().fit_scorer(prepared.train_data(("train",)), context)
    write_bundle(location, scorer, prepared, ("train",), {"model": name, "predicts_ratings": False})
    return open_bundle(location)


def run(bundle: Bundle, folder: Path, wanted: RecommendSettings, ranker: Bundle | None = None) -> pa.Table:
    """Write a whole run and check it as it would be before it is published."""
    location = Location.of(folder / "run")
    ranker_url = None if ranker is None else str(ranker.location)
    recommender = ShardRecommender(str(bundle.location), str(location), wanted, ranker_url)
    for shard in range(bundle.num_shards):
        recommender(shard)
    second = None if ranker is None else ranker.location
    check_run(bundle, location, wanted, GateSettings(), ranker=second)
    return pa.concat_tables([(location / name).read_parquet() for name in location.names()])


@pytest.mark.parametrize("model", ["item_cf", "als"])
def test_a_varied_run_passes_the_gate_and_is_more_varied(
    trained: dict[str, Bundle], tmp_path: Path, model: str
) -> None:
    bundle = trained[model]
    plain = run(bundle, tmp_path / "plain", RecommendSettings(n=8))
    wanted = RerankSettings(diversity=0.6, pool=30)
    varied = run(bundle, tmp_path / "varied", RecommendSettings(n=8, rerank=wanted))
    assert plain.num_rows == varied.num_rows == 150 * 8

    def genres_per_list(table: pa.Table) -> float:
        genres = dict(zip(bundle.item_ids.to_pylist(), bundle.items["genres"].to_pylist(), strict=True))
        shown: dict[Any, set[str]] = {}
        for row in table.to_pylist():
            shown.setdefault(row["user_id"], set()).update(genres[row["item_id"]])
        return float(np.mean([len(found) for found in shown.values()]))

    assert genres_per_list(varied) > genres_per_list(plain)


def test_a_second_model_ranks_the_candidates_of_the_first(trained: dict[str, Bundle], tmp_path: Path) -> None:
    first, second = trained["item_cf"], trained["als"]
    wanted = RecommendSettings(n=5, ranker=RankerSettings(pool=20), fallback=[])
    rows = run(first, tmp_path, wanted, second).to_pylist()
    requests = first.requests(0)
    retrieved = recommend(first, requests, Options(n=20, fallback=())).to_pylist()
    candidates: dict[Any, set[Any]] = {}
    for row in retrieved:
        candidates.setdefault(row["user_id"], set()).add(row["item_id"])
    of_shard = [row for row in rows if row["user_id"] in candidates]
    assert of_shard and all(row["item_id"] in candidates[row["user_id"]] for row in of_shard)
    users = requests.user_ids.to_pylist()
    for row, after in pairwise(of_shard[:40]):
        if row["user_id"] == after["user_id"]:
            pair = first.item_rows(pa.array([row["item_id"], after["item_id"]]), "test").tolist()
            position = users.index(row["user_id"])
            scores = predict(second, requests.slice(position, position + 1), ItemLists.from_lists([pair]))
            np.testing.assert_allclose([row["score"], after["score"]], scores, rtol=1e-5)


def test_a_ranker_of_other_data_is_refused(trained: dict[str, Bundle], tmp_path: Path) -> None:
    first = trained["item_cf"]
    other = prepare_values(tmp_path, source="synthetic", users=150, items=60, interactions_per_user=8, seed=1)
    stranger = train(other, "als", Location.of(tmp_path / "als"))
    wanted = RecommendSettings(n=5, ranker=RankerSettings())
    with pytest.raises(ConfigError, match="was trained on other prepared data"):
        with_stages(first, wanted, read_options(first, wanted), stranger.location)
    with pytest.raises(ConfigError, match="no fitted model is given"):
        with_stages(first, wanted, read_options(first, wanted))


def test_a_capped_run_passes_the_gate_short_lists_included_and_a_broken_cap_does_not(
    trained: dict[str, Bundle], tmp_path: Path
) -> None:
    bundle = trained["als"]
    capped = RecommendSettings(n=20, rerank=RerankSettings(max_per_genre=1, pool=60))
    table = run(bundle, tmp_path / "capped", capped)
    assert table.num_rows < 150 * 20 and len(table["user_id"].unique()) == 150
    with pytest.raises(PublishError, match=r"genres above recommend\.rerank\.max_per_genre"):
        location = Location.of(tmp_path / "plain")
        recommender = ShardRecommender(str(bundle.location), str(location), RecommendSettings(n=20))
        for shard in range(bundle.num_shards):
            recommender(shard)
        check_run(bundle, location, capped, GateSettings())
