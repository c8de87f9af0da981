"""The content model: queries worked out by hand on worlds of a few items."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base.errors import ConfigError, DataError, ModelError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import FitContext, Histories, ItemContent, ItemLists, Requests, TrainData
from recsys_ray.models import MODELS, load_scorer, save_scorer
from recsys_ray.models.content import Content, ContentScorer, centered, last_events
from recsys_ray.models.scorers.base import cosines
from recsys_ray.models.svd import SVD
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.recommend.similar import similar_items

DAY = 86_400_000
EAST, NORTH, NORTH_EAST, NOWHERE = range(4)
VECTORS = np.array([[1, 0], [0, 1], [0.6, 0.8], [0, 0]], np.float32)


def content(vectors: Any = VECTORS) -> ItemContent:
    vectors = np.array(vectors, np.float32)
    return ItemContent(vectors, vectors.any(axis=1))


def data(histories: Histories, vectors: Any = VECTORS) -> TrainData:
    return TrainData(histories, pa.table({"item_id": np.arange(len(vectors))}), content(vectors))


def ask(histories: Histories) -> Requests:
    rows = len(histories)
    return Requests(pa.array(range(rows)), np.full(rows, -1, np.int32), histories, ItemLists.empty(rows))


def fit(histories: Histories, vectors: Any = VECTORS, **settings: Any) -> ContentScorer:
    return Content(**{"center": False} | settings).fit_scorer(data(histories, vectors), FitContext())


def queries(histories: Histories, **settings: Any) -> np.ndarray:
    return fit(histories, **settings).queries_of(histories)


def unit(x: float, y: float) -> list[float]:
    return (np.array([x, y]) / np.hypot(x, y)).tolist()


# --- queries by hand


def test_score_is_the_cosine_with_the_mean() -> None:
    histories = Histories.from_lists([[EAST, NORTH], [NORTH_EAST], [EAST, EAST, NORTH]])
    scores = fit(histories).score(ask(histories))
    half, (two, one) = np.sqrt(0.5), unit(2, 1)
    expected = [[half, half, 1.4 * half, 0], [0.6, 0.8, 1, 0], [two, one, 0.6 * two + 0.8 * one, 0]]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_half_life_counts_back_from_the_users_own_last_event() -> None:
    times = [[0, 10 * DAY], [1000 * DAY, 1020 * DAY], [7 * DAY, 7 * DAY]]
    histories = Histories.from_lists([[EAST, NORTH]] * 3, timestamps=times)
    expected = [unit(0.5, 1), unit(0.25, 1), unit(1, 1)]
    np.testing.assert_allclose(queries(histories, half_life_days=10.0), expected, atol=1e-6)


def test_an_event_long_ago_is_not_lost_when_it_is_the_last_with_a_vector() -> None:
    times = [[0, 10**6 * DAY]] * 2
    histories = Histories.from_lists([[EAST, NOWHERE], [EAST, NORTH]], timestamps=times)
    np.testing.assert_allclose(queries(histories, half_life_days=1.0), [[1, 0], [0, 1]])


def test_recent_events_are_the_last_that_have_a_vector() -> None:
    histories = Histories.from_lists([[EAST, NORTH, NOWHERE], [NOWHERE, NOWHERE], [], [NORTH, EAST, EAST]])
    np.testing.assert_allclose(queries(histories, recent=1), [[0, 1], [0, 0], [0, 0], [1, 0]])
    two = last_events(histories, content().present_I, 2)
    assert two.lengths_B.tolist() == [2, 0, 0, 2]
    assert two.items_E.tolist() == [EAST, NORTH, EAST, EAST]


def test_ratings_as_weights() -> None:
    histories = Histories.from_lists([[EAST, NORTH], [EAST, NORTH, NORTH_EAST]], [[4, 1], [5, 1, 3]])
    expected = [unit(4, 1), unit(5 + 1.8, 1 + 2.4)]
    np.testing.assert_allclose(queries(histories, rating_weight="rating"), expected, atol=1e-6)
    expected = [unit(1.5, -1.5), unit(2, -2)]
    np.testing.assert_allclose(queries(histories, rating_weight="centered"), expected, atol=1e-6)


def test_ratings_are_centered_over_the_events_that_count() -> None:
    histories = Histories.from_lists([[EAST, EAST, NOWHERE, EAST, NORTH]], [[1, 1, 1, 4, 2]])
    np.testing.assert_allclose(queries(histories, rating_weight="centered", recent=2), [unit(1, -1)], atol=1e-6)


@pytest.mark.parametrize("rating", [1.0, 0.1, 3.3])
def test_equal_ratings_say_nothing(rating: float) -> None:
    """Implicit data, and a single event: as if ratings were not asked for."""
    histories = Histories.from_lists([[EAST, NORTH, NORTH], [EAST]], [[rating] * 3, [rating]])
    np.testing.assert_allclose(queries(histories, rating_weight="centered"), [unit(1, 2), [1, 0]], atol=1e-6)


def test_weights_that_cancel_leave_the_plain_mean_and_vectors_that_cancel_leave_nothing() -> None:
    histories = Histories.from_lists([[EAST, EAST], [EAST, NORTH]], [[5, 1], [5, 1]])
    np.testing.assert_allclose(queries(histories, rating_weight="centered"), [[1, 0], unit(1, -1)], atol=1e-6)
    uneven = Histories.from_lists([[EAST] * 3] * 3, [[1e6, 2e6, 4e6], [1e6, 3e6, 3e6], [7e6, 1e6, 2e6]])
    np.testing.assert_allclose(queries(uneven, rating_weight="centered"), [[1, 0]] * 3)
    opposite = np.array([[1, 0], [-1, 0], [0, 1]])
    scorer = fit(histories, opposite)
    np.testing.assert_array_equal(scorer.queries_of(histories)[1], [0, 0])
    np.testing.assert_array_equal(scorer.score(ask(histories))[1], [0, 0, 0])


# --- which items, which users


def test_items_with_a_vector_are_scorable_whoever_has_touched_them() -> None:
    scorer = fit(Histories.from_lists([[NOWHERE], [NOWHERE]]))
    assert scorer.scorable_I.tolist() == [True, True, True, False]
    requests = ask(Histories.from_lists([[NOWHERE], [NOWHERE, EAST], []]))
    assert scorer.answers(requests).tolist() == [False, True, False]
    assert np.isfinite(scorer.score(requests)).all()


def test_centering_takes_away_what_all_share() -> None:
    shared = np.array([[3, 1, 0], [3, -1, 0], [3, 0, 1], [3, 0, -1], [0, 0, 0]], np.float32)
    present = shared.any(axis=1)
    shared[present] /= np.linalg.norm(shared[present], axis=1, keepdims=True)
    found = centered(ItemContent(shared, present)).vectors_ID
    expected = [[0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1], [0, 0, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    histories = Histories.from_lists([[0]])
    scorer = fit(histories, shared, center=True)
    np.testing.assert_allclose(scorer.score(ask(histories)), [[1, -1, 0, 0, 0]], atol=1e-6)
    assert scorer.scorable_I.tolist() == present.tolist()


def test_an_item_like_the_mean_has_no_vector_of_its_own() -> None:
    vectors = np.array([unit(1, 1), [1, 0], [0, 1]])
    vectors[0] = vectors[1:].mean(axis=0)  # not of length 1, so that the mean is the same with it
    scorer = fit(Histories.from_lists([[1]]), vectors, center=True)
    assert scorer.scorable_I.tolist() == [False, True, True]
    with pytest.raises(ModelError, match=r"^content: no item has a vector of its own; .*center=false$"):
        fit(Histories.from_lists([[0]]), [[1, 0], [1, 0]], center=True)


def test_vectors_are_taken_as_they_lie_unless_centered() -> None:
    given = data(Histories.from_lists([[EAST]]))
    scorer = Content(center=False).fit_scorer(given, FitContext())
    assert given.content is not None and np.shares_memory(scorer.items_ID, given.content.vectors_ID)
    before = VECTORS.copy()
    Content(center=True).fit_scorer(given, FitContext())
    np.testing.assert_array_equal(given.content.vectors_ID, before)


@pytest.mark.parametrize("rating_weight", ["none", "rating", "centered"])
def test_batch_is_one_by_one_to_the_bit_and_survives_saving(rating_weight: str) -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((50, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lists = [rng.integers(0, 50, length).tolist() for length in rng.integers(0, 30, 40)]
    ratings = [rng.integers(1, 6, len(row)).astype(float).tolist() for row in lists]
    times = [np.sort(rng.integers(1, 99 * DAY, len(row))).tolist() for row in lists]
    histories = Histories.from_lists(lists, ratings, times)
    scorer = fit(histories, vectors, rating_weight=rating_weight, half_life_days=20.0, recent=10)
    whole = scorer.queries_of(histories)
    single = np.concatenate([scorer.queries_of(histories.slice(row, row + 1)) for row in range(40)])
    np.testing.assert_array_equal(whole, single)
    loaded = load_scorer(*save_scorer(scorer))
    np.testing.assert_array_equal(loaded.score(ask(histories)), scorer.score(ask(histories)))


# --- refusals


def test_no_vectors_is_one_line() -> None:
    given = TrainData(Histories.from_lists([[0]]), pa.table({"item_id": [1]}))
    with pytest.raises(ModelError, match=r"^content needs item vectors; add a section content$"):
        Content().fit_scorer(given, FitContext())


def test_half_life_needs_timestamps_and_weights_need_ratings() -> None:
    with pytest.raises(ModelError, match=r"^content: half_life_days needs timestamps.*unset it$"):
        fit(Histories.from_lists([[0, 1]], timestamps=[[0, 0]]), half_life_days=3.0)
    for rating, weight in ((-1.0, "rating"), (np.nan, "centered"), (np.inf, "rating")):
        with pytest.raises(
            ModelError, match=rf'^content: rating_weight = "{weight}" .*{rating};.* a rating threshold$'
        ):
            fit(Histories.from_lists([[0, 1]], [[3.0, rating]]), rating_weight=weight)
    fit(Histories.from_lists([[0, 1]], [[3.0, -1.0]]), rating_weight="centered")


# --- similar items


def bundle_of(scorer: Any, ids: list[str]) -> Bundle:
    return Bundle(Location("memory"), {"user_id_type": "int64"}, scorer, pa.table({"item_id": ids}))


def test_similar_items_as_a_table() -> None:
    bundle = bundle_of(fit(Histories.from_lists([[EAST]])), ["east", "north", "between", "nowhere"])
    rows = similar_items(bundle, np.array([NORTH, NOWHERE, EAST], np.int32), 3).to_pylist()
    assert [(row["item_id"], row["rank"], row["similar_item_id"]) for row in rows] == [
        ("north", 1, "between"),
        ("north", 2, "east"),
        ("east", 1, "between"),
        ("east", 2, "north"),
    ]
    np.testing.assert_allclose([row["score"] for row in rows], [0.8, 0, 0.6, 0], atol=1e-6)
    assert similar_items(bundle, np.zeros(0, np.int32), 1).num_rows == 0


def test_similar_items_in_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    bundle = bundle_of(fit(Histories.from_lists([[0]]), vectors), [str(item) for item in range(30)])
    rows = np.arange(30, dtype=np.int32)
    whole = similar_items(bundle, rows, 5)
    assert whole.num_rows == 30 * 5
    monkeypatch.setattr("recsys_ray.recommend.similar.BLOCK_BYTES", 7 * 30 * 4)
    assert similar_items(bundle, rows, 5).drop(["score"]).equals(whole.drop(["score"]))


def test_similar_items_refuses_what_it_cannot_do() -> None:
    bundle = bundle_of(fit(Histories.from_lists([[EAST]])), ["a", "b", "c", "d"])
    for n in (0, 5):
        with pytest.raises(ConfigError, match=f"^similar items: n must be between 1 and the 4 items, found {n}$"):
            similar_items(bundle, np.array([0], np.int32), n)
    for row in (-1, 4):
        with pytest.raises(DataError, match=f"^similar items: row {row} is not one of the 4 items$"):
            similar_items(bundle, np.array([0, row], np.int32), 1)


def test_only_scorable_items_are_similar() -> None:
    """An item without training interactions is like nothing to a model of interactions."""
    histories = Histories.from_lists([[0, 1], [0, 1, 2], [2]])
    given = TrainData(histories, pa.table({"item_id": ["a", "b", "c", "new"]}))
    bundle = bundle_of(MODELS["item_cf"]().fit_scorer(given, FitContext()), ["a", "b", "c", "new"])
    rows = similar_items(bundle, np.arange(4, dtype=np.int32), 4).to_pylist()
    assert {row["item_id"] for row in rows} == {"a", "b", "c"} == {row["similar_item_id"] for row in rows}
    assert next(row["similar_item_id"] for row in rows if row["item_id"] == "a") == "b"


def test_what_a_model_compares_but_cannot_recommend_is_left_out() -> None:
    whole = fit(Histories.from_lists([[EAST]]))

    class Narrow(ContentScorer):
        def similar(self, items_R: np.ndarray) -> np.ndarray:
            return whole.similar(items_R)

    narrow = Narrow.from_state(whole.state())
    narrow.scorable_I = np.array([True, True, False, False])
    rows = similar_items(bundle_of(narrow, ["a", "b", "c", "d"]), np.array([EAST], np.int32), 4).to_pylist()
    assert [row["similar_item_id"] for row in rows] == ["b"]


def test_cosines_leave_out_what_all_items_agree_in() -> None:
    items = np.array([[1, 0, 9], [0, 1, 9], [-2, 0, 9], [5, 5, 0]], np.float32)
    known = np.array([True, True, True, False])
    found = cosines(items, np.array([0, 3], np.int32), known)
    np.testing.assert_allclose(found, [[-np.inf, 0, -1, -np.inf], [-np.inf] * 4], atol=1e-6)


def test_a_rating_models_constant_makes_no_items_alike() -> None:
    rng = np.random.default_rng(1)
    lists = [rng.choice(12, 6, replace=False).tolist() for _ in range(30)]
    ratings = [rng.integers(1, 6, 6).astype(float).tolist() for _ in range(30)]
    given = TrainData(Histories.from_lists(lists, ratings), pa.table({"item_id": np.arange(12)}))
    scorer = SVD(embedding_dim=3).fit_scorer(given, FitContext())
    factors = scorer.items_ID[:, :3].astype(float)
    lengths = np.linalg.norm(factors, axis=1)
    expected = factors @ factors.T / np.outer(lengths, lengths)
    np.fill_diagonal(expected, -np.inf)
    np.testing.assert_allclose(scorer.similar(np.arange(12, dtype=np.int32)), expected, atol=1e-5)
