"""Negatives chosen by their scores: in every neural model, and never what the user has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys_ray.base.types import FitContext
from recsys_ray.models import MODELS
from recsys_ray.testing import requests_of, small
from recsys_ray.training.losses import hardest
from recsys_ray.training.negatives import is_member
from tests.models.test_attributes import ITEMS, USERS, world

HARD = {"negative_strategy": "hard", "negatives": 6, "hard_candidates": 12}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("two_tower", {"epochs": 20, "batch_size": 16}),
    ("ncf", {"epochs": 15, "batch_size": 64}),
    ("ncf", {"epochs": 20, "batch_size": 64, "loss": "bpr"}),
    ("lightgcn", {"epochs": 30, "batch_size": 64}),
    ("sasrec", {"epochs": 20, "batch_size": 16}),
    ("bert4rec", {"epochs": 60, "batch_size": 16, "loss": "sampled_softmax"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_a_model_learns_from_them(name: str, settings: dict[str, Any]) -> None:
    """Which half of the items a user likes: of an unseen pair of items, one of each, the right one scores higher."""
    model, data = MODELS[name], world(told=False)
    given = small(model).model_dump() | {"embedding_dim": 8} | HARD | settings
    scores = model.model_validate(given).fit_scorer(data, FitContext(seed=2)).score(requests_of(data))
    seen = data.histories.matrix(ITEMS).toarray() > 0
    won = []
    for user in range(USERS):
        halves = [np.flatnonzero(~seen[user, 20 * half : 20 * half + 20]) + 20 * half for half in (0, 1)]
        right, wrong = scores[user, halves[user % 2]], scores[user, halves[1 - user % 2]]
        won.append((right[:, None] > wrong[None, :]).mean())
    assert np.mean(won) > 0.8


@pytest.mark.parametrize("name", ["two_tower", "ncf", "lightgcn", "sasrec", "bert4rec"])
def test_there_must_be_enough_to_choose_from(name: str) -> None:
    loss = {"loss": "bce"} if name in ("sasrec", "bert4rec") else {}
    with pytest.raises(ValidationError, match="hard needs"):
        MODELS[name].model_validate(HARD | {"hard_candidates": 5} | loss)


@given(
    scores=st.lists(st.lists(st.integers(-5, 5), min_size=6, max_size=6), min_size=1, max_size=4),
    mine=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 5))),
    count=st.integers(1, 6),
)
def test_the_best_that_the_user_does_not_have(scores: list[list[int]], mine: set[tuple[int, int]], count: int) -> None:
    rows = len(scores)
    keys = torch.tensor(sorted(user * 6 + item for user, item in mine) or [10**6])
    mine_BM = is_member(torch.arange(rows), torch.arange(6)[None, :], keys, 6)
    found = hardest(torch.tensor(scores, dtype=torch.float32), count, mine_BM).tolist()
    for row in range(rows):
        allowed = sorted((float(scores[row][item]) for item in range(6) if (row, item) not in mine), reverse=True)
        assert found[row] == (allowed + [float("-inf")] * 6)[:count]
