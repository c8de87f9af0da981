"""Every model keeps the laws of ``recsys_ray.testing``; so does one of a new kind of scorer, defined right here."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from recsys_ray.base.errors import BundleError
from recsys_ray.base.types import FitContext, ScorerState, TrainData
from recsys_ray.models import MODELS, Model, load_scorer
from recsys_ray.models.ease import EASE
from recsys_ray.models.graph_filter import GraphFilter
from recsys_ray.models.scorers.linear import LinearScorer
from recsys_ray.models.sequence.sasrec import SASRec
from recsys_ray.testing import ModelConformance

SLOW = ("ncf", "sasrec", "bert4rec", "two_tower")
PARAMS = [pytest.param(model, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, model in MODELS.items()]


class Chebyshev(GraphFilter):
    filter: Literal["linear", "chebyshev", "ideal"] = "chebyshev"


class Truncated(Chebyshev):
    neighbors: int | None = 30


class Ideal(GraphFilter):
    filter: Literal["linear", "chebyshev", "ideal"] = "ideal"
    low_pass_dim: int = 4  # few enough to tell the two groups apart, whatever the rounding


class DropoutEASE(EASE):
    regularization_power: float = 0.5
    kept_share: float = 0.2

    def fit_scorer(self, data: TrainData, context: FitContext) -> LinearScorer:
        return super(DropoutEASE, self.model_copy(update={"dropout": 0.3})).fit_scorer(data, context)


class FeaturesEASE(EASE):
    features: Literal["none", "attributes", "content"] = "content"


class Pointwise(SASRec):
    attention: Literal["softmax", "pointwise"] = "pointwise"
    positions: Literal["absolute", "relative", "both"] = "both"
    relative_time: bool = True


VARIANTS = (Chebyshev, Truncated, Ideal, DropoutEASE, FeaturesEASE)
PARAMS += [pytest.param(model, id=model.__name__) for model in VARIANTS]
PARAMS += [pytest.param(Pointwise, id="Pointwise", marks=pytest.mark.slow)]


class TestModels(ModelConformance):
    @pytest.fixture(scope="class", params=PARAMS)
    @classmethod
    def model(cls, request: pytest.FixtureRequest) -> type[Model]:
        return request.param


def test_broken_state_is_a_bundle_error() -> None:
    with pytest.raises(BundleError, match="unknown scorer kind 'nonsense'"):
        load_scorer("nonsense", ScorerState({}))
    with pytest.raises(BundleError, match="incomplete"):
        load_scorer("linear", ScorerState({"trained": np.ones(3, np.bool_)}))
