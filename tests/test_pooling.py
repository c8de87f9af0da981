"""What counts in a history, checked against sums written out; and that every scorer with ``Recent`` uses it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.contracts import FitContext, Histories, ItemLists, Requests, TrainData
from recsys_ray.models.lightgcn import LightGCNConfig, fit_lightgcn
from recsys_ray.models.ncf import NCFConfig, fit_ncf
from recsys_ray.models.pooling import Recent, place_weights, weighted_sums
from recsys_ray.models.two_tower import TwoTowerConfig, fit_two_tower

HISTORIES = Histories.from_lists([[0, 1, 2, 3], [], [2, 0, 2], [3]])
KNOWN = np.array([True, True, True, False])


def unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))


def test_place_weights_count_later_events_on_known_items() -> None:
    weights = place_weights(HISTORIES, KNOWN, 2.0)
    np.testing.assert_allclose(weights, [1 / 9, 1 / 4, 1, 0, 1 / 9, 1 / 4, 1, 0])
    np.testing.assert_array_equal(place_weights(HISTORIES, KNOWN, 0.0), [1, 1, 1, 0, 1, 1, 1, 0])


def test_weighted_sums_are_written_out() -> None:
    vectors = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    weights = np.arange(8.0)
    expected = [vectors[[0, 1, 2, 3]].T @ weights[:4], np.zeros(5), vectors[[2, 0, 2]].T @ weights[4:7], vectors[3] * 7]
    np.testing.assert_allclose(weighted_sums(HISTORIES, weights, vectors), expected, rtol=1e-5)


def test_recent_is_added_at_the_length_of_the_query() -> None:
    rng = np.random.default_rng(1)
    queries, items = (rng.standard_normal((4, 3)).astype(np.float32) for _ in range(2))
    added = Recent(weight=0.5, power=1.0).added(queries, HISTORIES, items, KNOWN)
    first = unit(items[0]) / 3 + unit(items[1]) / 2 + unit(items[2])
    third = unit(items[2]) / 3 + unit(items[0]) / 2 + unit(items[2])
    nothing = np.zeros(3)
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    expected = queries + 0.5 * lengths * unit(np.stack([first, nothing, third, nothing]))
    np.testing.assert_allclose(added, expected, rtol=1e-5, atol=1e-6)


def test_without_weight_the_queries_stay() -> None:
    queries = np.ones((4, 3), np.float32)
    assert Recent(weight=0.0).added(queries, HISTORIES, queries, KNOWN) is queries


def in_pairs() -> TrainData:
    """Items 2k and 2k + 1 go together: every user has five of the eight pairs."""
    rng = np.random.default_rng(2)
    rows = [[item for pair in rng.permutation(8)[:5] for item in (2 * pair, 2 * pair + 1)] for _ in range(80)]
    return TrainData(Histories.from_lists(rows), pa.table({"item_id": pa.array(range(16))}))


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("model", ["lightgcn", "two_tower", "ncf"])
def test_who_ended_with_an_item_gets_what_goes_with_it(model: str, known: bool) -> None:
    data = in_pairs()
    common = {"epochs": 20, "batch_size": 16, "negatives": 12, "learning_rate": 0.05, "recent_weight": 20.0}
    if model == "lightgcn":
        scorer = fit_lightgcn(data, LightGCNConfig(embedding_dim=8, layers=2, **common), FitContext())  # type: ignore[arg-type]
    elif model == "ncf":
        narrow = NCFConfig(embedding_dim=8, similarity="cosine", mlp_dim=2, hidden_layers=[2], **common)  # type: ignore[arg-type]
        scorer = fit_ncf(data, narrow, FitContext())  # type: ignore[assignment]
    else:
        settings = TwoTowerConfig(
            embedding_dim=8, layers=[], fusion="weighted", use_features=False, user_id=True,
            initialization="spectral", negative_strategy="uniform", **common,  # type: ignore[arg-type]
        )  # fmt: skip
        scorer = fit_two_tower(data, settings, FitContext())  # type: ignore[assignment]
    scorer = type(scorer).from_state(scorer.state())
    users = np.zeros(2, np.int32) if known else np.full(2, -1, np.int32)
    for first, last in ((0, 6), (6, 0), (10, 2)):
        histories = Histories.from_lists([[first, last], [last, first]])
        scores = scorer.score(Requests(pa.array([0, 1]), users, histories, ItemLists.empty(2)))
        scores[:, [first, last]] = -np.inf
        assert scores.argmax(axis=1).tolist() == [last + 1, first + 1]
