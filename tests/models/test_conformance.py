"""Every model keeps the laws of ``recsys_ray.testing``; so does one of a new kind of scorer, defined right here."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_ray.base.errors import BundleError
from recsys_ray.base.types import ScorerState
from recsys_ray.models import MODELS, Model, load_scorer
from recsys_ray.testing import ModelConformance

SLOW = ("ncf", "sasrec", "bert4rec", "two_tower")
PARAMS = [pytest.param(model, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, model in MODELS.items()]


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
