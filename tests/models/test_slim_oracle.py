"""SLIM against scikit-learn's elastic net, a column at a time."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import ElasticNet

from recsys_ray.base.types import FitContext
from recsys_ray.models.slim import SLIM
from tests.dense import ITEMS, USERS, ask, dense, in_pieces, random_data, weights_of

EXACT = {"tolerance": 1e-7, "max_epochs": 500}


@pytest.mark.parametrize("non_negative", [True, False])
@pytest.mark.parametrize(("l1", "l2"), [(0.5, 3.0), (2.0, 10.0), (0.05, 5.0)])
@pytest.mark.parametrize("weighting", ["binary", "rating"])
def test_every_column_is_an_elastic_net(non_negative: bool, l1: float, l2: float, weighting: str) -> None:
    data = random_data(density=0.4)
    model = SLIM(l1=l1, l2=l2, non_negative=non_negative, weighting=weighting, **EXACT)
    scorer = model.fit_scorer(data, FitContext())
    weights, matrix = weights_of(scorer), dense(data, ratings=weighting == "rating")
    for item in range(ITEMS - 1):
        others = matrix.copy()
        others[:, item] = 0  # an item without users has no weight
        alpha, share = (l1 + l2) / USERS, l1 / (l1 + l2)
        net = ElasticNet(
            alpha=alpha, l1_ratio=share, fit_intercept=False, positive=non_negative, tol=1e-12, max_iter=100_000
        )
        np.testing.assert_allclose(weights[:, item], net.fit(others, matrix[:, item]).coef_, atol=1e-5)
    assert (weights >= 0).all() == non_negative
    np.testing.assert_allclose(np.maximum(scorer.score(ask(data)), -1e9).max(), (matrix @ weights).max(), rtol=1e-4)


def test_a_larger_l1_leaves_fewer_weights_and_a_bound_keeps_the_largest() -> None:
    data = random_data(density=0.4)
    counts = [
        np.count_nonzero(weights_of(SLIM(l1=l1, l2=5.0).fit_scorer(data, FitContext()))) for l1 in (0.1, 1.0, 4.0)
    ]
    assert counts[0] > counts[1] > counts[2] > 0
    whole = weights_of(SLIM(l1=0.1, l2=5.0).fit_scorer(data, FitContext()))
    bound = weights_of(SLIM(l1=0.1, l2=5.0, neighbors=3).fit_scorer(data, FitContext()))
    for item in range(ITEMS - 1):
        kept = np.flatnonzero(bound[:, item])
        assert len(kept) <= 3 and np.array_equal(bound[kept, item], whole[kept, item])
        assert not len(kept) or whole[kept, item].min() >= np.delete(whole[:, item], kept).max()


def test_blocks_on_other_machines_change_nothing() -> None:
    data = random_data(density=0.4)
    here, there = (SLIM().fit_scorer(data, context).state().arrays for context in (FitContext(), in_pieces(3)))
    assert all(np.array_equal(here[name], there[name]) for name in here)
