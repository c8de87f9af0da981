"""The conformance suite: what every model must keep, ours and yours, without code of its own.

    class TestMine(ModelConformance):
        @pytest.fixture(scope="class")
        @classmethod
        def model(cls) -> type[Model]:
            return Mine

The checkerboard: user u and item i go together when u + i is even, and each user's own item (u, u) is withheld. Every
other item that suits a user has been seen, so that the best unseen item is known: it is u.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base.descriptions import descriptions
from recsys_ray.base.errors import ModelError, SizeError
from recsys_ray.base.types import (
    Counts,
    FitContext,
    FloatArray,
    Histories,
    ItemContent,
    ItemLists,
    ItemVectors,
    LongArray,
    Requests,
    Scorer,
    ScorerState,
    TrainData,
    by_inner_product,
)
from recsys_ray.models import Model, check_size, load_scorer, save_scorer

SIZE = 40  # users and items of the checkerboard
UNTRAINED = SIZE  # one more item that nobody has touched
LIKED, DISLIKED = 5.0, 1.0


def small(model: type[Model]) -> Model:
    """Defaults, with few dimensions for the small world and long enough training for it."""
    wanted: dict[str, Any] = {
        "embedding_dim": 4,
        "regularization": 0.05,
        "learning_rate": 0.02,
        "epochs": 60,
        "dropout": 0.0,
        "id_dropout": 0.0,
        "negatives": 40,
    }
    if model.key == "two_tower":  # elsewhere layers are a number, of propagation
        wanted["layers"] = [8]
    return model(**{key: value for key, value in wanted.items() if key in model.model_fields})


def checkerboard(model: type[Model]) -> TrainData:
    """Implicit models see what suits. Rating models see that with a high and half of what doesn't with a low rating,
    so that the withheld item has rivals among the unseen."""
    items, ratings = [], []
    rng = np.random.default_rng(0)
    for user in range(SIZE):
        suits = [item for item in range(SIZE) if (user + item) % 2 == 0 and item != user]
        if model.ordered:
            suits = rng.permutation(
                suits
            ).tolist()  # in item order, what comes next would have nothing to do with parity
        others = [item for item in range(SIZE) if (user + item) % 2 == 1 and (user + item) % 4 == 1]
        disliked = others if model.predicts_ratings else []
        items.append(suits + disliked)
        ratings.append([LIKED] * len(suits) + [DISLIKED] * len(disliked))
    table = pa.table({"item_id": pa.array(range(SIZE + 1))})
    content = parity_content() if model().needs_content else None
    return TrainData(Histories.from_lists(items, ratings), table, content)


def parity_content() -> ItemContent:
    """Vectors that say whether an item is even or odd, and a little that says nothing; none for the untrained item."""
    vectors = np.random.default_rng(0).normal(0, 0.05, (SIZE + 1, 6)).astype(np.float32)
    vectors[np.arange(SIZE), np.arange(SIZE) % 2] += 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[UNTRAINED] = 0
    return ItemContent(vectors, np.asarray(vectors.any(axis=1)))


def requests_of(data: TrainData, known: bool = True, rows: slice = slice(None)) -> Requests:
    """Requests with the training histories, as known users or as strangers."""
    users = np.arange(data.num_users, dtype=np.int32) if known else np.full(data.num_users, -1, np.int32)
    requests = Requests(pa.array(range(data.num_users)), users, data.histories, ItemLists.empty(data.num_users))
    start, stop, _ = rows.indices(data.num_users)
    return requests.slice(start, stop)


def strangers(*histories: list[int]) -> Requests:
    users = np.full(len(histories), -1, np.int32)
    ragged = Histories.from_lists(histories, [[LIKED] * len(history) for history in histories])
    return Requests(pa.array(range(len(histories))), users, ragged, ItemLists.empty(len(histories)))


def unseen_best(scores: FloatArray, data: TrainData) -> LongArray:
    scores = scores.copy()
    scores[data.histories.rows_E, data.histories.items_E] = -np.inf
    return np.asarray(np.argmax(scores[:, :SIZE], axis=1))


def saved_and_loaded(state: ScorerState) -> ScorerState:
    """The arrays as a bundle gives them back: read-only."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **state.arrays)
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as saved:
        arrays = {key: saved[key] for key in saved.files}
    for array in arrays.values():
        array.flags.writeable = False
    return ScorerState(arrays, dict(state.settings))


def frozen(array: Any) -> Any:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


class ModelConformance:
    """Derive from it and give the fixture ``model``: pytest then runs every law on that model."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> type[Model]:
        raise NotImplementedError("give the class of the model in a fixture of this name")

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls, model: type[Model]) -> TrainData:
        return checkerboard(model)

    @pytest.fixture(scope="class")
    @classmethod
    def scorer(cls, model: type[Model], data: TrainData) -> Scorer:
        return small(model).fit_scorer(data, FitContext(seed=7))

    @pytest.mark.parametrize("known", [True, False], ids=["known", "stranger"])
    def test_withheld_item_is_on_top(self, model: type[Model], data: TrainData, scorer: Scorer, known: bool) -> None:
        if not model.personal:
            pytest.skip("the same list for everybody")
        assert unseen_best(scorer.score(requests_of(data, known)), data).tolist() == list(range(SIZE))

    def test_scores_are_a_finite_float32_block(self, data: TrainData, scorer: Scorer) -> None:
        scores = scorer.score(requests_of(data))
        assert scores.shape == (SIZE, SIZE + 1) and scores.dtype == np.float32
        assert scorer.num_items == SIZE + 1
        assert not np.isnan(scores).any() and not np.isposinf(scores).any()
        assert np.isfinite(scores).any(axis=1).all()

    def test_factors_are_the_scores(self, data: TrainData, scorer: Scorer) -> None:
        vectors = by_inner_product(scorer)
        if vectors is None:
            pytest.skip("not an inner product")
        queries_BD, items = vectors.queries(requests_of(data)), vectors.items
        assert isinstance(items, ItemVectors)
        for array in (queries_BD, items.vectors_ID):
            assert array.dtype == np.float32 and array.flags.c_contiguous
        bias = 0 if items.bias_I is None else items.bias_I
        np.testing.assert_allclose(queries_BD @ items.vectors_ID.T + bias, scorer.score(requests_of(data)), atol=1e-5)

    def test_untrained_item_is_never_the_models_answer(self, model: type[Model], scorer: Scorer) -> None:
        assert scorer.scorable_I.dtype == np.bool_
        assert scorer.scorable_I[:SIZE].all()
        if model.personal:
            assert not scorer.scorable_I[UNTRAINED]

    def test_answers_say_who_is_known(self, model: type[Model], data: TrainData, scorer: Scorer) -> None:
        personal = model.personal
        assert scorer.answers(requests_of(data)).all()
        assert scorer.answers(strangers([0, 2], [], [UNTRAINED], [UNTRAINED, 3])).tolist() == [
            True,
            not personal,
            not personal,
            True,
        ]

    def test_empty_history_scores_without_noise(self, scorer: Scorer) -> None:
        scores = scorer.score(strangers([], [0]))
        assert not np.isnan(scores).any()
        finite = scores[0][:SIZE][np.isfinite(scores[0][:SIZE])]
        assert len(finite) in (0, SIZE)

    def test_no_requests_no_rows(self, data: TrainData, scorer: Scorer) -> None:
        assert scorer.score(requests_of(data, rows=slice(0, 0))).shape == (0, SIZE + 1)

    @pytest.mark.parametrize("known", [True, False], ids=["known", "stranger"])
    def test_batch_is_one_by_one(self, data: TrainData, scorer: Scorer, known: bool) -> None:
        whole = scorer.score(requests_of(data, known))
        single = np.concatenate([scorer.score(requests_of(data, known, slice(row, row + 1))) for row in range(SIZE)])
        np.testing.assert_allclose(whole, single, rtol=1e-6, atol=1e-6)

    def test_same_seed_same_scores(self, model: type[Model], data: TrainData, scorer: Scorer) -> None:
        again = small(model).fit_scorer(data, FitContext(seed=7))
        np.testing.assert_array_equal(scorer.score(requests_of(data)), again.score(requests_of(data)))

    def test_order_of_a_history_matters_only_where_said(self, model: type[Model], scorer: Scorer) -> None:
        if model.ordered:
            pytest.skip("the last events count most, or alone")
        scores = scorer.score(strangers([0, 2, 4], [4, 0, 2]))
        np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6)  # sums in another order

    def test_saved_and_loaded_scores_the_same(self, model: type[Model], data: TrainData, scorer: Scorer) -> None:
        kind, state = save_scorer(scorer)
        before = {key: array.copy() for key, array in state.arrays.items()}
        loaded = load_scorer(kind, saved_and_loaded(state), model)
        for known in (True, False):
            np.testing.assert_array_equal(
                loaded.score(requests_of(data, known)), scorer.score(requests_of(data, known))
            )
        np.testing.assert_array_equal(loaded.scorable_I, scorer.scorable_I)
        np.testing.assert_array_equal(loaded.answers(requests_of(data)), scorer.answers(requests_of(data)))
        for key, array in before.items():
            np.testing.assert_array_equal(state.arrays[key], array)

    def test_memory_map_is_not_copied(self, model: type[Model], scorer: Scorer) -> None:
        kind, saved = save_scorer(scorer)
        state = saved_and_loaded(saved)
        _, again = save_scorer(load_scorer(kind, state, model))
        for key, array in state.arrays.items():
            assert np.shares_memory(again.arrays[key], array), key

    def test_read_only_training_data(self, model: type[Model], data: TrainData, scorer: Scorer) -> None:
        given = data.histories
        arrays = (given.offsets_B1, given.items_E, given.ratings_E, given.timestamps_E)
        histories = Histories(*(frozen(array) for array in arrays))
        content = data.content and ItemContent(frozen(data.content.vectors_ID), frozen(data.content.present_I))
        again = small(model).fit_scorer(TrainData(histories, data.items, content), FitContext(seed=7))
        np.testing.assert_array_equal(scorer.score(requests_of(data)), again.score(requests_of(data)))

    def test_size_is_predicted_and_refused(self, model: type[Model], data: TrainData) -> None:
        counts = Counts(5_000_000, 500_000, 500_000_000, 10**12)
        config = model()
        needed = check_size(config, counts, 1 << 50).bytes
        assert needed >= 4 * counts.num_items
        assert check_size(config, counts, needed).bytes == needed
        with pytest.raises(SizeError, match=rf"^{model.key}: .*GiB.*limit of [0-9.]+ GiB; [^\n]+$"):
            check_size(config, counts, needed - 1)

    def test_every_setting_has_a_docstring(self, model: type[Model]) -> None:
        assert set(descriptions(model)) == set(model.model_fields)

    def test_infinite_ratings_do_not_pass(self, model: type[Model], data: TrainData) -> None:
        """A fit that reads ratings refuses in one line that names the model; the others are not disturbed."""
        config = small(model)
        if "weighting" in type(config).model_fields:
            config = config.model_copy(update={"weighting": "rating"})
        broken = data.histories.ratings_E.copy()
        broken[3] = np.inf
        histories = Histories(data.histories.offsets_B1, data.histories.items_E, broken, data.histories.timestamps_E)
        try:
            fitted = config.fit_scorer(TrainData(histories, data.items, data.content), FitContext())
        except ModelError as error:
            assert str(error).startswith(model.key) and "\n" not in str(error)
        else:
            assert np.isfinite(fitted.score(requests_of(data))).any()
            assert not model.predicts_ratings and "weighting" not in type(config).model_fields

    def test_similar_items_are_of_the_same_kind(self, model: type[Model], scorer: Scorer) -> None:
        """Even items are like even ones; nothing is like itself or like what nobody knows."""
        before = {key: array.copy() for key, array in scorer.state().arrays.items()}
        likeness = scorer.similar(np.array([4, 7, UNTRAINED], np.int32))
        assert likeness.shape == (3, SIZE + 1) and likeness.dtype == np.float32 and not np.isnan(likeness).any()
        assert np.isneginf(likeness[[0, 1], [4, 7]]).all()
        assert np.isneginf(likeness[2]).all() and np.isneginf(likeness[:, UNTRAINED]).all()
        for key, array in scorer.state().arrays.items():
            np.testing.assert_array_equal(before[key], array)
        if not model.personal:
            assert np.isneginf(likeness).all()
            return
        for row, item in ((0, 4), (1, 7)):
            like = [other for other in range(SIZE) if (other + item) % 2 == 0 and other != item]
            unlike = [other for other in range(SIZE) if (other + item) % 2 == 1]
            assert likeness[row, like].max() > likeness[row, unlike].max()
            assert np.maximum(likeness[row, like], 0).mean() > 2 * np.maximum(likeness[row, unlike], 0).mean()

    def test_similar_items_one_by_one_and_none(self, scorer: Scorer) -> None:
        whole = scorer.similar(np.arange(SIZE, dtype=np.int32))
        single = np.concatenate([scorer.similar(np.array([item], np.int32)) for item in range(SIZE)])
        np.testing.assert_allclose(whole, single, rtol=1e-5, atol=1e-6)
        assert scorer.similar(np.zeros(0, np.int32)).shape == (0, SIZE + 1)

    def test_the_model_names_its_kinds_of_scorer(self, model: type[Model], scorer: Scorer) -> None:
        assert isinstance(scorer, Scorer) and type(scorer) in model.scorers
        assert scorer.personal == model.personal
