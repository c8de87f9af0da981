"""Cold items: the regression against least squares, and every kind of scorer against the regression of its scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base.errors import BundleError, ModelError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import (
    FitContext,
    Histories,
    ItemContent,
    ItemLists,
    Requests,
    Scorer,
    ScorerState,
    TrainData,
    by_inner_product,
)
from recsys_ray.models import MODELS, ColdItemSettings, extend_to_cold_items, load_scorer, save_scorer
from recsys_ray.models.scorers.cold_items import ColdItemScorer, fit_map, mapped
from recsys_ray.models.scorers.linear import LinearScorer, LowRankScorer
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.recommend.options import Options
from recsys_ray.recommend.rank import recommend
from tests.dense import ask, random_data

ITEMS, DIM = 40, 6
COLD = np.array([3, 11, 20, 38])
BARE_WARM, BARE_COLD = 5, 39  # without a vector: with and without interactions
SETTINGS = ColdItemSettings(regularization=2.0, popularity_power=0.5)
COLLABORATIVE = ["popularity", "item_cf", "ease", "graph_filter", "als", "svd", "pure_svd", "lightgcn", "sasrec"]
LINEAR = ["item_cf", "ease", "graph_filter"]


def world() -> TrainData:
    """Random interactions, none with the cold items; random content with a mean that is not zero."""
    given = random_data(seed=4, users=80, items=ITEMS, density=0.25)
    histories = given.histories
    keep_E = ~np.isin(histories.items_E, [*COLD, BARE_COLD])
    offsets = np.concatenate([[0], np.cumsum(keep_E)])[histories.offsets_B1].astype(np.int64)
    left = Histories(offsets, histories.items_E[keep_E], histories.ratings_E[keep_E], histories.timestamps_E[keep_E])
    vectors = (np.random.default_rng(5).standard_normal((ITEMS, DIM)) + 0.5).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[[BARE_WARM, BARE_COLD]] = 0
    return TrainData(left, given.items, ItemContent(vectors, vectors.any(axis=1)))


WORLD = world()
WARM = np.setdiff1d(np.arange(ITEMS), [*COLD, BARE_WARM, BARE_COLD])


def fit(name: str) -> Scorer:
    config_class = MODELS[name]
    wanted = {"embedding_dim": 5, "regularization": 0.5, "epochs": 4, "heads": 1, "negatives": 8, "layers": 1}
    config = config_class(**{key: value for key, value in wanted.items() if key in config_class.model_fields})
    return config.fit_scorer(WORLD, FitContext())


@pytest.fixture(scope="module", params=COLLABORATIVE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def base(name: str) -> Scorer:
    return fit(name)


@pytest.fixture(scope="module")
def scorer(base: Scorer) -> Scorer:
    return extend_to_cold_items(base, WORLD, SETTINGS)


def regression(values: np.ndarray, settings: ColdItemSettings = SETTINGS) -> np.ndarray:
    """(cold items, columns): ridge regression of the warm rows on content, as least squares on a longer system."""
    assert WORLD.content is not None
    vectors = WORLD.content.vectors_ID.astype(float)
    weights = WORLD.item_counts()[WARM].astype(float) ** settings.popularity_power
    roots = np.sqrt(weights / weights.mean())[:, None]
    observed = roots * np.column_stack([vectors[WARM], np.ones(len(WARM))])
    penalty = np.sqrt(settings.regularization) * np.eye(DIM, DIM + 1)  # none on the intercept
    left = np.vstack([observed, penalty])
    right = np.vstack([roots * values[WARM], np.zeros((DIM, values.shape[1]))])
    slopes = np.linalg.lstsq(left, right, rcond=None)[0]
    return np.column_stack([vectors[COLD], np.ones(len(COLD))]) @ slopes


def opinions(scores: np.ndarray) -> np.ndarray:
    return np.where(np.isneginf(scores), 0, scores)


# --- the regression


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("regularization", [0.01, 5.0, 1000.0])
def test_the_map_is_ridge_regression_with_a_free_intercept(
    power: float, regularization: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ColdItemSettings(regularization=regularization, popularity_power=power)
    values = np.random.default_rng(0).standard_normal((ITEMS, 3)).astype(np.float32) + 2
    assert WORLD.content is not None
    for block in (8192, 7):
        monkeypatch.setattr("recsys_ray.models.scorers.cold_items.BLOCK", block)
        found = mapped(fit_map(WORLD.content, WORLD.item_counts(), settings), values)
        np.testing.assert_allclose(found[COLD], regression(values, settings), atol=2e-6)
        others = np.setdiff1d(np.arange(ITEMS), COLD)
        np.testing.assert_array_equal(found[others], values[others])


@pytest.mark.slow
def test_much_regularization_leaves_the_weighted_mean_of_the_warm_scores(base: Scorer) -> None:
    scorer = extend_to_cold_items(base, WORLD, ColdItemSettings(regularization=1e9, popularity_power=1.0))
    weights = WORLD.item_counts()[WARM]
    mean = opinions(base.score(ask(WORLD)))[:, WARM] @ weights / weights.sum()
    expected = np.repeat(mean[:, None], len(COLD), axis=1)
    np.testing.assert_allclose(scorer.score(ask(WORLD))[:, COLD], expected, rtol=1e-4, atol=1e-5)


# --- every scorer


@pytest.mark.parametrize("known", [True, False], ids=["known", "stranger"])
def test_cold_scores_are_the_regression_of_the_warm_ones(base: Scorer, scorer: Scorer, known: bool) -> None:
    before, after = base.score(ask(WORLD, known)), scorer.score(ask(WORLD, known))
    np.testing.assert_allclose(after[:, COLD], regression(opinions(before).T).T, rtol=1e-4, atol=1e-5)
    others = np.setdiff1d(np.arange(ITEMS), COLD)
    np.testing.assert_array_equal(after[:, others], before[:, others])
    assert np.ptp(after[:, COLD], axis=1)[base.answers(ask(WORLD, known))].max() > 0


def test_factors_are_the_scores_and_keep_their_identity(name: str, scorer: Scorer) -> None:
    vectors = by_inner_product(scorer)
    assert (vectors is None) == (name in LINEAR)
    if vectors is not None:
        items = vectors.items
        bias = 0 if items.bias_I is None else items.bias_I
        np.testing.assert_allclose(
            vectors.queries(ask(WORLD)) @ items.vectors_ID.T + bias, scorer.score(ask(WORLD)), rtol=1e-5, atol=1e-5
        )
        assert vectors.items.vectors_ID is items.vectors_ID


def test_cold_items_with_a_vector_become_scorable(name: str, base: Scorer, scorer: Scorer) -> None:
    expected = base.scorable_I.copy()
    expected[COLD] = True
    assert scorer.scorable_I.tolist() == expected.tolist()
    # What nobody has touched and has no vector: only what is drawn at random has a score for it.
    assert scorer.scorable_I[BARE_COLD] == (name == "random") and scorer.scorable_I[BARE_WARM]
    assert scorer.answers(ask(WORLD)).tolist() == base.answers(ask(WORLD)).tolist()
    assert scorer.num_items == ITEMS and isinstance(scorer, Scorer)


def test_the_base_is_left_as_it_was(name: str) -> None:
    untouched = fit(name)
    before = {key: array.copy() for key, array in untouched.state().arrays.items()}
    extend_to_cold_items(untouched, WORLD, SETTINGS).score(ask(WORLD))
    for key, array in untouched.state().arrays.items():
        np.testing.assert_array_equal(before[key], array)


def test_batch_is_one_by_one(scorer: Scorer) -> None:
    requests = ask(WORLD)
    single = np.concatenate([scorer.score(requests.slice(row, row + 1)) for row in range(len(requests))])
    np.testing.assert_allclose(scorer.score(requests), single, rtol=1e-6, atol=1e-6)


def test_saved_and_loaded_scores_the_same_without_a_copy(scorer: Scorer) -> None:
    kind, state = save_scorer(scorer)
    arrays = {key: array.copy() for key, array in state.arrays.items()}
    for array in arrays.values():
        array.flags.writeable = False
    loaded = load_scorer(kind, ScorerState(arrays, dict(state.settings)))
    np.testing.assert_array_equal(loaded.score(ask(WORLD)), scorer.score(ask(WORLD)))
    np.testing.assert_array_equal(loaded.scorable_I, scorer.scorable_I)
    rows = np.arange(ITEMS, dtype=np.int32)
    np.testing.assert_array_equal(loaded.similar(rows), scorer.similar(rows))
    _, again = save_scorer(loaded)
    assert again.settings == state.settings and set(again.arrays) == set(arrays)
    assert all(np.shares_memory(again.arrays[key], array) for key, array in arrays.items())


def test_similar_items_include_cold_ones(name: str, scorer: Scorer) -> None:
    rows = np.arange(ITEMS, dtype=np.int32)
    likeness = scorer.similar(rows)
    assert likeness.shape == (ITEMS, ITEMS) and not np.isnan(likeness).any() and not np.isposinf(likeness).any()
    assert np.isneginf(likeness[rows, rows]).all()
    assert np.isneginf(likeness[BARE_COLD]).all() and np.isneginf(likeness[:, BARE_COLD]).all()
    between = likeness[np.ix_(WARM, COLD)]
    assert np.isneginf(between).all() if name == "popularity" else np.isfinite(between).all()
    np.testing.assert_allclose(likeness[np.ix_(COLD, WARM)], between.T, atol=1e-5)
    if name in LINEAR:
        assert np.isneginf(likeness[np.ix_(COLD, COLD)]).all()
        events = Histories.from_lists([[int(item)] for item in WARM])
        requests = Requests(pa.array(WARM), np.full(len(WARM), -1, np.int32), events, ItemLists.empty(len(WARM)))
        np.testing.assert_allclose(between, scorer.score(requests)[:, COLD], atol=1e-6)


# --- worlds with a known answer


def test_content_that_determines_the_vectors_recovers_cold_ones() -> None:
    """Item vectors are a linear function of the content: a little regularization finds it from the warm items."""
    rng = np.random.default_rng(3)
    assert WORLD.content is not None
    true = (WORLD.content.vectors_ID @ rng.standard_normal((DIM, 4)) + rng.standard_normal(4)).astype(np.float32)
    seen = true.copy()
    seen[COLD] = 0
    trained = WORLD.item_counts() > 0
    scorer = extend_to_cold_items(
        LowRankScorer(items_ID=seen, trained_I=trained, weighting="binary"),
        WORLD,
        ColdItemSettings(regularization=1e-6),
    )
    vectors = by_inner_product(scorer)
    assert vectors is not None
    np.testing.assert_allclose(vectors.items.vectors_ID[COLD], true[COLD], atol=1e-3)


def test_a_held_out_item_is_found_by_those_it_is_for() -> None:
    """Two groups of users and of items, told apart by the content: each group is shown its own new item."""
    groups = np.arange(20) % 2
    new = [18, 19]
    rng = np.random.default_rng(0)
    pools = [np.setdiff1d(np.flatnonzero(groups == group), new) for group in (0, 1)]
    lists = [rng.choice(pools[user % 2], 6, replace=False).tolist() for user in range(40)]
    vectors = rng.normal(0, 0.1, (20, 4)).astype(np.float32)
    vectors[np.arange(20), groups] += 1
    items = pa.table({"item_id": np.arange(20), "count": np.zeros(20, np.int32)})
    given = TrainData(Histories.from_lists(lists), items, ItemContent(vectors, np.ones(20, np.bool_)))
    everyone = Requests(pa.array(range(40)), np.arange(40, dtype=np.int32), given.histories, ItemLists.empty(40))
    allowed = np.isin(np.arange(20), new)
    for name in ("ease", "item_cf", "graph_filter", "als", "pure_svd"):
        entry = MODELS[name]
        settings = {"embedding_dim": 4} if "embedding_dim" in entry.model_fields else {}
        base = entry(**settings).fit_scorer(given, FitContext())
        scorer = extend_to_cold_items(base, given, ColdItemSettings(regularization=1.0))
        bundle = Bundle(Location("memory"), {"user_id_type": "int64", "num_users": 40}, scorer, items)
        rows = recommend(bundle, everyone, Options(n=1, allowed_I=allowed, fallback=())).to_pylist()
        assert [row["item_id"] for row in rows] == [new[user % 2] for user in range(40)], name


# --- when there is nothing to do, or no way


def test_without_cold_items_or_for_a_model_of_content_nothing_changes() -> None:
    assert WORLD.content is not None
    everything = replace(WORLD, content=ItemContent(WORLD.content.vectors_ID, WORLD.item_counts() > 0))
    base = fit("ease")
    assert extend_to_cold_items(base, everything, SETTINGS) is base
    for name in ("content", "random"):
        ranks_all = MODELS[name]().fit_scorer(WORLD, FitContext())
        assert extend_to_cold_items(ranks_all, WORLD, SETTINGS) is ranks_all


def test_what_cannot_be_extended_is_refused_in_one_line() -> None:
    base = fit("ease")
    with pytest.raises(ModelError, match=r"^cold items need item vectors; .*content.*training\.cold_items$"):
        extend_to_cold_items(base, replace(WORLD, content=None), SETTINGS)
    nobody_warm = WORLD.item_counts() == 0
    with pytest.raises(ModelError, match=r"^cold items: no item with training interactions has a vector; "):
        assert WORLD.content is not None
        content = ItemContent(WORLD.content.vectors_ID, nobody_warm)
        extend_to_cold_items(base, replace(WORLD, content=content), SETTINGS)
    extended = extend_to_cold_items(base, WORLD, SETTINGS)
    narrow = ColdItemScorer(base=extended, cold_C=np.zeros(0, np.int32))
    narrow._scorable_I[COLD] = False
    with pytest.raises(ModelError, match=r"^cold items: ColdItemScorer has no item vectors to extend; "):
        extend_to_cold_items(narrow, WORLD, SETTINGS)


def test_incomplete_state_is_a_bundle_error() -> None:
    _, state = save_scorer(extend_to_cold_items(fit("ease"), WORLD, SETTINGS))
    with pytest.raises(BundleError, match="incomplete"):
        load_scorer("cold", ScorerState(state.arrays, {"base": "nonsense", "base_settings": {}}))
    arrays: dict[str, Any] = {key: array for key, array in state.arrays.items() if key != "base.trained"}
    with pytest.raises(BundleError, match="incomplete"):
        load_scorer("cold", ScorerState(arrays, state.settings))


def test_a_pair_without_opinion_counts_as_zero() -> None:
    sparse = fit("item_cf")
    assert isinstance(sparse, LinearScorer)
    assert np.isneginf(sparse.score(ask(WORLD))).any()
    extended = extend_to_cold_items(sparse, WORLD, SETTINGS).score(ask(WORLD))
    assert np.isfinite(extended[:, COLD]).all()
