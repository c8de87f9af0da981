"""Texts and posters in the vectors of sequence models: what they add, and items that nobody has touched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import FitContext, Histories, ItemContent, Scorer, TrainData
from recsys_ray.models import MODELS, load_scorer, save_scorer
from recsys_ray.models.base import strangers

ITEMS, NEW = 24, 20
"""Items 20 to 23 are in no history; those of an odd number are of the kind of the others of an odd number."""
SMALL: dict[str, dict[str, Any]] = {
    "sasrec": {"epochs": 40},
    "bert4rec": {"epochs": 120},
}


def world() -> TrainData:
    rng = np.random.default_rng(5)
    rows = [(rng.permutation(10)[:6] * 2 + user % 2).tolist() for user in range(80)]
    parity_I = np.arange(ITEMS) % 2
    noise_ID = rng.normal(0, 0.2, (ITEMS, 6))
    vectors_ID = np.concatenate([np.eye(2)[parity_I], noise_ID], axis=1).astype(np.float32)
    vectors_ID /= np.linalg.norm(vectors_ID, axis=1, keepdims=True)
    items = pa.table({"item_id": pa.array(range(ITEMS))})
    return TrainData(Histories.from_lists(rows), items, ItemContent(vectors_ID, np.ones(ITEMS, np.bool_)))


def fitted(name: str, **settings: Any) -> Scorer:
    given = {"embedding_dim": 16, "batch_size": 16, "dropout": 0.0, "learning_rate": 0.01} | SMALL[name] | settings
    return MODELS[name](**given).fit_scorer(world(), FitContext(seed=3))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_new_items_are_ranked_by_what_is_said_of_them(name: str) -> None:
    scorer = fitted(name, use_content=True)
    assert scorer.scorable_I.all()
    scores = scorer.score(strangers(Histories.from_lists([[0, 4, 2], [1, 7, 3]])))
    assert scores[0, [20, 22]].min() > scores[0, [21, 23]].max()
    assert scores[1, [21, 23]].min() > scores[1, [20, 22]].max()
    kind, state = save_scorer(scorer)
    np.testing.assert_array_equal(load_scorer(kind, state).score(strangers(Histories.from_lists([[0, 4]]))),
                                  scorer.score(strangers(Histories.from_lists([[0, 4]]))))  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_without_content_new_items_are_not_scored(name: str) -> None:
    scorer = fitted(name, epochs=1)
    assert not scorer.scorable_I[NEW:].any() and scorer.scorable_I[:NEW].all()


@pytest.mark.parametrize("name", SMALL)
def test_content_that_is_not_there_is_one_line(name: str) -> None:
    model = MODELS[name](use_content=True)
    assert model.needs_content
    with pytest.raises(ModelError, match=f"{name}: use_content needs item vectors"):
        model.fit_scorer(replace(world(), content=None), FitContext())
