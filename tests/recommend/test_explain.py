"""Reasons: what is cited really speaks for the item, fallbacks are named as such, and runs with reasons are runs.

Shape suffixes: H distinct items of a history, I items, K items explained.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base.storage import Location
from recsys_ray.base.types import FitContext, Histories, ItemContent, ItemLists, Requests, Scorer, TrainData
from recsys_ray.evaluation import EvaluationSettings, ItemCounts, evaluate_part
from recsys_ray.models import MODELS
from recsys_ray.models.linalg.sparse import SparseRows
from recsys_ray.models.scorers.blend import BlendScorer
from recsys_ray.models.scorers.cold_items import ColdItemSettings, extend_to_cold_items
from recsys_ray.models.scorers.factor import FactorScorer, FoldIn
from recsys_ray.models.scorers.linear import LinearScorer, PopularityScorer
from recsys_ray.recommend.bundle import Bundle, open_bundle, write_bundle
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.recommend.explain import Cited, Reason, explain, explain_texts, template
from recsys_ray.recommend.options import read_options, with_stages
from recsys_ray.recommend.rank import recommend
from recsys_ray.runs.batch import ShardRecommender
from recsys_ray.runs.config import GateSettings
from recsys_ray.runs.gate import check_run
from tests.data_worlds import prepare_values
from tests.dense import random_data

BY_CONTRIBUTION = ("item_cf", "ease", "graph_filter", "transitions", "pure_svd", "als", "svd")


def strangers(histories: Histories) -> Requests:
    count = len(histories)
    return Requests(pa.array(range(count)), np.full(count, -1, np.int32), histories, ItemLists.empty(count))


def bundle_of(scorer: Scorer, items: pa.Table | None = None, counts: Any = None) -> Bundle:
    size = scorer.num_items
    items = pa.table({"item_id": pa.array(range(size))}) if items is None else items
    items = items.append_column("count", pa.array(counts or [1] * size, pa.int32()))
    return Bundle(Location("memory"), {"user_id_type": "int64", "num_users": 10, "model": "some"}, scorer, items)


def without(histories: Histories, item: int) -> Histories:
    """One history with every event on an item removed."""
    kept = histories.items_E != item
    offsets = np.array([0, kept.sum()], np.int64)
    return Histories(offsets, histories.items_E[kept], histories.ratings_E[kept], histories.timestamps_E[kept])


def score(scorer: Scorer, histories: Histories) -> np.ndarray:
    scores_I = scorer.score(strangers(histories))[0].astype(np.float64)
    return np.where(np.isneginf(scores_I), 0.0, scores_I)


# --- contributions are what the score loses ---


def fitted(name: str, seed: int = 0, **values: Any) -> tuple[Scorer, TrainData]:
    data = random_data(seed)
    config = MODELS[name]
    small = {"embedding_dim": 5, "epochs": 4} | values
    settings = config(**{key: value for key, value in small.items() if key in config.model_fields})
    return settings.fit_scorer(data, FitContext()), data


@pytest.mark.parametrize("name", BY_CONTRIBUTION)
def test_a_contribution_is_what_the_score_loses_without_the_item(name: str) -> None:
    scorer, data = fitted(name)
    rows_K = np.arange(scorer.num_items, dtype=np.int32)
    for user in range(0, data.num_users, 7):
        history = data.histories.slice(user, user + 1)
        found = scorer.contributions(history, rows_K)
        assert found is not None
        whole_I = score(scorer, history)
        for h, item in enumerate(found[0]):
            np.testing.assert_allclose(found[1][h], whole_I - score(scorer, without(history, int(item))), atol=2e-5)


@pytest.mark.parametrize("targets", ["ones", "residuals"])
@pytest.mark.parametrize("weighting", ["binary", "rating"])
@pytest.mark.parametrize("length", [1, 2, 4, 12])
def test_leave_one_out_equals_the_solve_without_the_item(length: int, weighting: Any, targets: Any) -> None:
    """Histories shorter and longer than the vectors, with repeats and an item the fit never saw."""
    rng = np.random.default_rng(length)
    items_ID = rng.standard_normal((20, 4)).astype(np.float32)
    scorer = FactorScorer(
        users_UD=np.zeros((0, 4), np.float32),
        known_U=np.zeros(0, np.bool_),
        items_ID=items_ID,
        trained_I=np.arange(20) != 19,
        fold_in=FoldIn(targets, weighting, regularization=0.3, frequency_offset=1.5, frequency_power=0.7),
        penalty_D=rng.uniform(0.1, 2, 4).astype(np.float32),
        bias_I=rng.standard_normal(20).astype(np.float32) if targets == "residuals" else None,
    )
    items = [*rng.choice(19, length, replace=False).tolist(), 19]
    items += items[:1]
    history = Histories.from_lists([items], [rng.integers(1, 6, len(items)).astype(float).tolist()])
    rows_K = np.array([0, 7, 19], np.int32)
    found = scorer.contributions(history, rows_K)
    assert found is not None and found[0].tolist() == sorted(set(items) - {19})
    query_D = scorer.solve(history)[0].astype(np.float64)
    for h, item in enumerate(found[0]):
        lost_D = query_D - scorer.solve(without(history, int(item)))[0]
        np.testing.assert_allclose(found[1][h], items_ID[rows_K] @ lost_D, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_CONTRIBUTION)
def test_removing_any_cited_item_lowers_the_score(name: str) -> None:
    scorer, data = fitted(name, seed=1)
    bundle, num_cited = bundle_of(scorer), 0
    rows_BK = np.tile(np.arange(scorer.num_items, dtype=np.int32), (data.num_users, 1))
    for user, reasons in enumerate(explain(bundle, strangers(data.histories), rows_BK)):
        history = data.histories.slice(user, user + 1)
        whole_I = score(scorer, history)
        for reason in reasons:
            for cited in reason.cited:
                assert reason.kind == "contribution" and cited.row in history.items_E and cited.row != reason.row
                lower = whole_I[reason.row] - score(scorer, without(history, cited.row))[reason.row]
                assert lower == pytest.approx(cited.value, abs=2e-5) and cited.value > 0
                num_cited += 1
    assert num_cited > 500


@pytest.mark.parametrize("name", BY_CONTRIBUTION)
def test_cold_items_are_explained_as_they_are_scored(name: str) -> None:
    base, data = fitted(name, seed=2)
    vectors = np.random.default_rng(0).standard_normal((data.num_items, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    content = ItemContent(vectors, np.ones(data.num_items, np.bool_))
    scorer = extend_to_cold_items(base, replace(data, content=content), ColdItemSettings())
    cold = np.array([data.num_items - 1], np.int32)
    assert scorer.scorable_I[cold].all() and not base.scorable_I[cold].any()
    history = data.histories.slice(3, 4)
    found = scorer.contributions(history, cold)
    assert found is not None
    whole = score(scorer, history)[cold]
    for h, item in enumerate(found[0]):
        np.testing.assert_allclose(found[1][h], whole - score(scorer, without(history, int(item)))[cold], atol=2e-5)


# --- worked by hand ---

WEIGHTS = np.array([[0, 2, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, -1, 0]], np.float32)
ITEMS = pa.table(
    {
        "item_id": ["a", "b", "c", "d"],
        "title": ["Alpha", None, "Gamma", "Delta"],
        "genres": pa.array([["war", "epic"], ["war"], ["war", "epic"], ["comedy"]], pa.list_(pa.string())),
    }
)


def linear(weighting: Literal["binary", "rating"] = "rating", sparse: bool = False) -> Bundle:
    rows, columns = np.nonzero(WEIGHTS)
    offsets = np.searchsorted(rows, np.arange(5)).astype(np.int64)
    stored = SparseRows(offsets, columns.astype(np.int32), WEIGHTS[rows, columns])
    scorer = LinearScorer(weights=stored if sparse else WEIGHTS, trained_I=np.ones(4, np.bool_), weighting=weighting)
    return bundle_of(scorer, ITEMS, [5, 1, 0, 4])


def one(items: list[int], ratings: list[float] | None = None) -> Requests:
    return strangers(Histories.from_lists([items], None if ratings is None else [ratings]))


@pytest.mark.parametrize("sparse", [False, True])
def test_a_linear_model_by_hand(sparse: bool) -> None:
    """Item c from a (rated 5), b (rated 4) and d (rated 3): 5 x 1 + 4 x 1 - 3: two speak for it, d against."""
    (reason,) = explain(linear(sparse=sparse), one([0, 1, 3], [5, 4, 3]), np.array([[2, -1]], np.int32))[0]
    cited = (Cited(0, "a", "Alpha", 5.0, 5.0, 5 / 9), Cited(1, "b", None, 4.0, 4.0, 4 / 9))
    assert reason == Reason(2, "contribution", cited, ("war", "epic"), 0.0, True)
    assert template(reason) == 'Because of "Alpha" (rated 5; 56%) and "b" (rated 4; 44%). Shared genres: war, epic.'


@pytest.mark.parametrize("sparse", [False, True])
def test_what_the_user_did_not_like_is_not_cited(sparse: bool) -> None:
    """b (rated 1) speaks for item c as the model sees it, but below the user's mean it is no reason to give."""
    (reason,) = explain(linear(sparse=sparse), one([0, 1, 3], [3, 1, 4]), np.array([[2, -1]], np.int32))[0]
    assert reason.cited == (Cited(0, "a", "Alpha", 3.0, 3.0, 0.75),)


@pytest.mark.parametrize(("middle", "cited"), [(None, [0]), (2.0, [0]), (2.5, [])])
def test_what_is_below_the_middle_of_the_scale_is_liked_by_nobody(middle: float | None, cited: list[int]) -> None:
    """A harsh critic's mean is 1.5: the item rated 2 is above it, and no reason to say "because you liked"."""
    bundle = linear()
    bundle.manifest["rating_middle"] = middle
    (reason,) = explain(bundle, one([0, 1], [2, 1]), np.array([[2]], np.int32))[0]
    assert [found.row for found in reason.cited] == cited


def test_nothing_is_cited_that_would_be_printed_as_none() -> None:
    (reason,) = explain(linear(), one([0, 1], [500, 500]), np.array([[2]], np.int32))[0]
    assert [cited.row for cited in reason.cited] == [0, 1]
    small = linear()
    weights = np.array(small.scorer.weights)  # type: ignore[attr-defined]
    weights[1] *= 0.001
    small.scorer.weights = weights  # type: ignore[attr-defined]
    (reason,) = explain(small, one([0, 1], [500, 500]), np.array([[2]], np.int32))[0]
    assert [cited.row for cited in reason.cited] == [0]


def test_where_nothing_speaks_for_an_item_its_genres_do_and_else_its_users() -> None:
    war = one([3, 1], [2, 5])  # likes b alone
    reasons = explain(linear(), war, np.array([[2, 0]], np.int32))[0]
    assert [(reason.kind, reason.genres) for reason in reasons] == [("contribution", ("war",)), ("genres", ("war",))]
    assert template(reasons[1]) == "Shares genres with what you liked: war."
    (reason,) = explain(linear(), one([0]), np.array([[3]], np.int32))[0]
    assert (reason.kind, reason.cited, reason.genres) == ("popularity", (), ())
    assert template(reason) == "Popular: 40% of all users have it."


def test_rows_of_the_fallback_are_called_popular_whatever_the_model_thinks_of_them() -> None:
    reasons = explain(linear(), one([0, 1]), np.array([[2, 1, -1]], np.int32), np.array([[0, 1, 1]], np.int8))[0]
    assert [reason.kind for reason in reasons] == ["contribution", "popularity"]
    popular = bundle_of(PopularityScorer(scores_I=np.arange(4, dtype=np.float32)), ITEMS)
    assert explain(popular, one([0]), np.array([[2]], np.int32))[0][0].kind == "popularity"


def test_rows_of_another_fallback_are_explained_by_the_model_that_filled_them_in() -> None:
    bundle = bundle_of(PopularityScorer(scores_I=np.arange(4, dtype=np.float32)), ITEMS)
    bundle.fallbacks["other"] = linear().scorer
    sources = np.array(
        [[0, bundle.sources.index("fallback:other"), bundle.sources.index("fallback:popularity")]], np.int8
    )
    reasons = explain(bundle, one([0]), np.array([[2, 1, 3]], np.int32), sources)[0]
    assert [reason.kind for reason in reasons] == ["popularity", "contribution", "popularity"]
    alone = explain(linear(), one([0]), np.array([[1]], np.int32))[0]
    assert reasons[1] == alone[0]


def test_a_blend_says_who_of_its_members_speaks_for_an_item() -> None:
    one_way, other_way = (linear(kind).scorer for kind in ("binary", "rating"))
    blend = BlendScorer(
        members={"a": one_way, "b": other_way}, weights_M=[3.0, 1.0], method="weighted", rank_constant=60
    )
    bundle = bundle_of(blend, ITEMS)
    reasons = explain(bundle, one([0, 1]), np.array([[2, 3]], np.int32))[0]
    shares = np.maximum(blend.shares(one([0, 1]), np.array([[2, 3]], np.int32))[:, 0, :], 0)
    for k, reason in enumerate(reasons):
        found = dict(reason.members)
        total = shares[:, k].sum()
        expected = {
            name: share / total for name, share in zip("ab", shares[:, k], strict=True) if share > 0.005 * total
        }
        assert found == pytest.approx(expected)
        assert list(found.values()) == sorted(found.values(), reverse=True)
    # Without ratings both members think alike, so each has the part that its weight has.
    assert template(reasons[0]).endswith(" Chosen by a (75%) and b (25%).")


def test_ratings_are_named_only_where_there_are_any() -> None:
    text = explain_texts(linear("binary"), one([0, 1]), np.array([[2]], np.int32))
    assert text == ['Because of "Alpha" (50%) and "b" (50%). Shared genres: war, epic.']
    assert explain_texts(linear(), one([0]), np.array([[1, 2]], np.int32), render=lambda reason: reason.kind) == [
        "contribution",
        "contribution",
    ]


def test_other_models_cite_the_nearest_of_the_liked_items() -> None:
    """The item asked about lies along (1, 1); of the liked items one is at 45 degrees and one opposite."""
    vectors = np.array([[1, 1], [1, 0], [-1, -1], [1, 1]], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    data = TrainData(Histories.from_lists([[1]]), ITEMS, ItemContent(vectors, np.ones(4, np.bool_)))
    config = MODELS["content"](center=False)
    bundle = bundle_of(config.fit_scorer(data, FitContext()), ITEMS)
    (reason,) = explain(bundle, one([1, 2, 3], [5, 5, 1]), np.array([[0]], np.int32))[0]
    assert reason.kind == "likeness" and [cited.row for cited in reason.cited] == [1]  # d is nearest, but not liked
    assert reason.cited[0].value == pytest.approx(np.sqrt(0.5)) and reason.cited[0].share == 1
    assert template(reason) == 'Because you liked "b" (rated 5; 100%). Shared genres: war.'


def test_no_history_and_no_items_are_no_problem() -> None:
    empty = strangers(Histories.from_lists([[], []]))
    for bundle in (linear(), linear(sparse=True), bundle_of(fitted("als")[0])):
        reasons = explain(bundle, empty, np.array([[1, -1], [-1, -1]], np.int32))
        assert [[reason.kind for reason in of_request] for of_request in reasons] == [["popularity"], []]


# --- whole runs ---


@pytest.fixture(scope="module", params=["item_cf", "als"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("trained")
    prepared = prepare_values(folder, source="synthetic", users=120, items=60, interactions_per_user=8, shards=2)
    name = request.param
    scorer = MODELS[name]().fit_scorer(prepared.train_data(("train",)), FitContext())
    write_bundle(Location.of(folder / name), scorer, prepared, ("train",), {"model": name, "prepared": "prepared"})
    return open_bundle(Location.of(folder / name))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["long", "nested"])
def test_a_run_with_reasons_passes_the_gate_and_is_evaluated(trained: Bundle, tmp_path: Path, layout: Any) -> None:
    settings = RecommendSettings(n=5, reasons=True, layout=layout)
    recommender = ShardRecommender(str(trained.location), str(tmp_path), settings)
    for shard in range(trained.num_shards):
        recommender(shard)
    check_run(trained, Location.of(tmp_path), settings, GateSettings())
    part = Location.of(tmp_path / "part-00000.parquet").read_parquet()
    texts = part["reason" if layout == "long" else "reasons"].combine_chunks()
    texts = (texts if layout == "long" else texts.flatten()).to_pylist()
    assert len(texts) == 5 * len(trained.requests(0)) and all(texts)
    requests = trained.requests(0)
    evaluated = evaluate_part(
        part,
        requests.user_ids,
        ItemLists.from_lists([[0]] * len(requests)),
        requests.histories.lengths_B,
        ItemCounts(trained.item_ids, trained.item_counts()),
        EvaluationSettings(bootstrap=0),
        shard=0,
    )
    assert int(evaluated.sums["users"]) == len(requests)


def test_reasons_change_no_row_and_do_not_depend_on_the_batch(trained: Bundle) -> None:
    settings = RecommendSettings(n=5, reasons=True)
    options = with_stages(trained, settings, read_options(trained, settings))
    requests = trained.requests(0)
    whole = recommend(trained, requests, options).combine_chunks()
    assert whole.drop_columns("reason").equals(recommend(trained, requests, replace(options, explainer=None)))
    single = [recommend(trained, requests.slice(b, b + 1), options) for b in range(len(requests))]
    assert pa.concat_tables(single).combine_chunks().equals(whole)
    assert recommend(trained, requests.slice(0, 0), options).schema == whole.schema
