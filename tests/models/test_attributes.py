"""What the table of users says reaches the models that can use it, for users of the fit and for strangers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base.types import FitContext, Histories, ItemLists, Requests, Scorer, TrainData
from recsys_ray.models import MODELS, load_scorer, save_scorer

USERS, ITEMS, COMMON = 120, 41, 40
MODELS_WITH: dict[str, dict[str, Any]] = {
    "two_tower": {"layers": [16], "embedding_dim": 16, "epochs": 12, "batch_size": 32, "dropout": 0.0, "negatives": 20},
    "ncf": {"use_features": True, "embedding_dim": 8, "epochs": 25, "batch_size": 128, "negatives": 20},
}


def world(told: bool = True) -> TrainData:
    """Two kinds of users, each with half of the items; all of them have item 40, which says nothing."""
    rng = np.random.default_rng(3)
    kinds = np.arange(USERS) % 2
    rows = [[COMMON, *(20 * kind + rng.choice(20, 6, replace=False)).tolist()] for kind in kinds]
    halves = [float(item // 20) for item in range(ITEMS)]
    items = pa.table({"item_id": pa.array(range(ITEMS)), "half": pa.array(halves, pa.float32())})
    table = pa.table({"kind": np.array(["a", "b"])[kinds]}) if told else None
    return TrainData(Histories.from_lists(rows), items, attributes=table)


def stranger(kind: str | None) -> Requests:
    table = pa.table({"kind": pa.array([kind], pa.string())})
    return Requests(pa.nulls(1), np.array([-1], np.int32), Histories.from_lists([[COMMON]]), ItemLists.empty(1), table)


@pytest.fixture(scope="module", params=MODELS_WITH)
def scorer(request: pytest.FixtureRequest) -> Scorer:
    return MODELS[request.param](**MODELS_WITH[request.param]).fit_scorer(world(), FitContext(seed=1))


def lean(scorer: Scorer, requests: Requests) -> float:
    """How much higher the items of the second kind score than those of the first, in spreads of all scores."""
    scores_I = scorer.score(requests)[0]
    return float((scores_I[20:40].mean() - scores_I[:20].mean()) / scores_I[:40].std())


def test_a_stranger_is_taken_for_what_the_table_says(scorer: Scorer) -> None:
    assert lean(scorer, stranger("b")) - lean(scorer, stranger("a")) > 0.4


def test_without_the_column_a_stranger_leans_to_nobody(scorer: Scorer) -> None:
    nothing = replace(stranger("a"), attributes=None)
    np.testing.assert_allclose(scorer.score(nothing), scorer.score(stranger("unheard of")), rtol=1e-5)


def test_attributes_are_saved_with_the_model(scorer: Scorer) -> None:
    kind, state = save_scorer(scorer)
    loaded = load_scorer(kind, state)
    for who in (stranger("a"), stranger("b"), stranger(None)):
        np.testing.assert_array_equal(loaded.score(who), scorer.score(who))


def test_together_is_one_by_one(scorer: Scorer) -> None:
    asked = [stranger("b"), stranger(None), replace(stranger("a"), attributes=None), stranger("a")]
    together = scorer.score(Requests.concatenate(asked))
    for row, request in enumerate(asked):
        np.testing.assert_allclose(together[row], scorer.score(request)[0], rtol=2e-5, atol=2e-5)


def test_trees_see_attributes() -> None:
    pytest.importorskip("lightgbm")
    data = world()
    model = MODELS["lambdamart"](
        members=[{"model": {"name": "popularity"}}], candidates=40, trees=60, least_in_leaf=20, held_out="random"
    )
    ranker = model.fit_scorer(data, FitContext(seed=1))
    assert lean(ranker, stranger("b")) - lean(ranker, stranger("a")) > 0.4
