"""What counts in a history, checked against sums written out; and that every scorer with ``Recent`` uses it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base.types import FitContext, Histories, ItemLists, Requests, TrainData
from recsys_ray.models import MODELS
from recsys_ray.models.holdout import lists_quality
from recsys_ray.models.lightgcn import fit as lightgcn
from recsys_ray.models.linalg.pooling import Recent, place_weights, weighted_sums
from recsys_ray.models.ncf import fit as ncf
from recsys_ray.retrieval import top_k_scores
from recsys_ray.training import LocalWorker

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


def config_of(model: str, **settings: Any) -> Any:
    own: dict[str, Any] = {
        "lightgcn": {"layers": 2},
        "ncf": {"similarity": "cosine", "mlp_dim": 2, "hidden_layers": [2]},
        "two_tower": {
            "layers": [], "fusion": "weighted", "use_features": False, "user_id": True,
            "initialization": "spectral", "negative_strategy": "uniform",
        },
    }[model]  # fmt: skip
    common = {"embedding_dim": 8, "batch_size": 16, "negatives": 12, "learning_rate": 0.05}
    return MODELS[model](**common | own | settings)


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("model", ["lightgcn", "two_tower", "ncf"])
def test_who_ended_with_an_item_gets_what_goes_with_it(model: str, known: bool) -> None:
    scorer = config_of(model, epochs=20, recent_weight=20.0).fit_scorer(in_pairs(), FitContext())
    scorer = type(scorer).from_state(scorer.state())
    users = np.zeros(2, np.int32) if known else np.full(2, -1, np.int32)
    for first, last in ((0, 6), (6, 0), (10, 2)):
        histories = Histories.from_lists([[first, last], [last, first]])
        scores = scorer.score(Requests(pa.array([0, 1]), users, histories, ItemLists.empty(2)))
        scores[:, [first, last]] = -np.inf
        assert scores.argmax(axis=1).tolist() == [last + 1, first + 1]


@pytest.mark.slow
@pytest.mark.parametrize("recent_weight", [0.0, 0.7])
@pytest.mark.parametrize("model", ["lightgcn", "two_tower", "ncf"])
def test_early_stopping_measures_what_the_finished_model_answers(model: str, recent_weight: float) -> None:
    kept: list[Any] = []

    def keep(fn: Any, job: Any, key: str) -> Any:
        kept.extend((job, *fn(job, LocalWorker())))
        return kept[1:]

    config = config_of(model, epochs=1, recent_weight=recent_weight, recent_power=0.5, validation_share=0.8)
    data = in_pairs()
    config.fit_scorer(data, FitContext(run_workers=keep))
    job, trained, progress = kept
    requests = getattr(job, "watched", None) or Requests(
        pa.array(range(80)), np.arange(80, dtype=np.int32), job.histories, ItemLists.empty(80)
    )
    rest = TrainData(requests.histories, data.items)
    if model == "lightgcn":
        trained = lightgcn.scorer_from(trained, rest, config)
    if model == "ncf":
        trained = ncf.scorer_from(trained, config.recent, rest)
    scores = trained.score(requests)
    found = lists_quality(
        lambda users, k, exclude: top_k_scores(scores[users], k, exclude).rows_BK, requests.histories, job.held_out
    )
    assert progress.history[-1]["valid"] == pytest.approx(found, abs=1e-6)
