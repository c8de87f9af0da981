"""What towers are made of: losses and fusions by their definitions, a row at a time; pairs of a history."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch

from recsys_ray.base.types import Histories
from recsys_ray.models.two_tower.fit import TwoTower
from recsys_ray.models.two_tower.inputs import TowerShape, pairs_of
from recsys_ray.models.two_tower.objective import Compared, objective
from recsys_ray.models.two_tower.towers import FUSIONS, Tower
from tests.training.test_losses import row_loss, whole_batch

LOSSES = get_args(TwoTower.model_fields["loss"].annotation)


def one_by_one(compared: Compared, config: TwoTower, counts: list[int], line: tuple[float, float]) -> float:
    """The loss from its definition, a query and a candidate at a time."""
    items, users, drawn = compared.items_P.tolist(), compared.users_P.tolist(), compared.items_M.tolist()
    parts = []
    for query, own in zip(compared.queries_RD.double(), compared.own_R.tolist(), strict=True):
        similarity = float(query @ compared.targets_PD[own].double())
        positive = similarity / config.temperature
        if config.loss == "info_nce":
            keys = [key for key in range(len(items)) if users[key] != users[own] and items[key] != items[own]]
            frequent = {key: np.log(counts[items[key]] / sum(counts) * len(items)) for key in [own, *keys]}
            scores = {key: float(query @ compared.targets_PD[key].double()) / config.temperature for key in frequent}
            weights = {key: np.exp(scores[key] - (frequent[key] if config.correct_popularity else 0)) for key in scores}
            parts.append(-np.log(weights[own] / sum(weights.values())))
            continue
        assert compared.expected_M is not None
        negatives = np.array([float(query @ vector.double()) for vector in compared.negatives_MD])
        negatives[np.array(drawn) == items[own]] = -np.inf  # adds nothing, and still counts in a mean
        if config.loss == "cosine_contrastive":
            above = np.maximum(negatives - config.margin, 0)
            parts.append(1 - similarity + config.negative_weight * above.mean())
            continue
        share = {"mse": 1.0, "mse_bpr": config.mse_share}.get(config.loss, 0.0)
        error = (line[0] * positive + line[1] - float(compared.ratings_P[own])) ** 2
        name = "bpr" if "mse" in config.loss else config.loss
        mates = [key for key in compared.own_R.tolist() if users[key] == users[own]]
        rows = [compared.own_R.tolist().index(key) for key in mates]
        mates = [
            float(compared.queries_RD[row].double() @ compared.targets_PD[key].double()) / config.temperature
            for row, key in zip(rows, mates, strict=True)
        ]
        if config.loss == "direct_au":
            return whole_batch(compared.queries_RD, compared.targets_PD[compared.own_R], config.uniformity_weight)
        logs = compared.expected_M.numpy()
        ranking = row_loss(name, positive, negatives / config.temperature, logs, config, mates, len(counts))
        parts.append(share * error + (1 - share) * ranking)
    return float(np.mean(parts))


@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_its_definition(loss: Any, correct: bool) -> None:
    """Three queries of this worker among four targets: two of one user, two on one item, a negative that is one."""
    rng = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn((10, 3), generator=rng), dim=1)
    compared = Compared(
        queries_RD=vectors[:3],
        own_R=torch.tensor([0, 1, 3]),
        targets_PD=vectors[3:7],
        items_P=torch.tensor([1, 2, 1, 3]),
        users_P=torch.tensor([4, 4, 1, 2]),
        ratings_P=torch.tensor([0.5, -1.0, 2.0, 0.1]),
        negatives_MD=vectors[7:],
        items_M=torch.tensor([1, 0, 3]),
        mine_RM=None,
        expected_M=torch.tensor([0.3, -0.5, 0.9]),
    )
    config = TwoTower(
        loss=loss,
        correct_popularity=correct,
        temperature=0.5,
        margin=-0.2,
        mse_share=0.6,
        bilateral_ratio=0.7,
        top_k=2,
        top_k_temperature=0.4,
        uniformity_weight=0.3,
    )
    counts, line = [5, 4, 2, 1], (0.7, 0.2)
    found = objective(compared, config, torch.tensor(counts), torch.tensor(line), lambda rows: rows)
    assert float(found) == pytest.approx(one_by_one(compared, config, counts, line), rel=1e-5)


def test_fusions_are_their_definitions() -> None:
    """Row by row, from the parameters of each."""
    torch.manual_seed(0)
    parts = torch.randn(5, 3, 4)
    weighted, gated, attention, bilinear = (
        FUSIONS[name](3, 4) for name in ("weighted", "gated", "attention", "bilinear")
    )
    torch.nn.init.normal_(weighted.get_parameter("logits_K"))
    all_there = torch.ones(5, 3, dtype=torch.bool)
    shares = weighted.get_parameter("logits_K").exp() / weighted.get_parameter("logits_K").exp().sum()
    for row, (first, second, third) in enumerate(parts):
        expected = shares[0] * first + shares[1] * second + shares[2] * third
        torch.testing.assert_close(weighted(parts, all_there)[row], expected)
        gates = 1 / (1 + (-gated.get_submodule("gates")(torch.cat([first, second, third]))).exp())
        torch.testing.assert_close(
            gated(parts, all_there)[row], gates[:4] * first + gates[4:8] * second + gates[8:] * third
        )
        hidden, score = attention.get_submodule("hidden"), attention.get_submodule("score")
        weights = torch.cat([score(torch.tanh(hidden(part))).exp() for part in (first, second, third)])
        torch.testing.assert_close(attention(parts, all_there)[row], weights @ parts[row] / weights.sum())
        maps = [bilinear.get_submodule(f"maps.{number}") for number in range(3)]
        products = maps[0](first) * second + maps[1](first) * third + maps[2](second) * third
        torch.testing.assert_close(bilinear(parts, all_there)[row], first + second + third + products)


@pytest.mark.parametrize("fusion", ["weighted", "gated", "attention", "bilinear"])
def test_what_a_row_lacks_counts_for_nothing(fusion: str) -> None:
    """Whatever stands in the place of a missing input; and with two of three, a mean is one of these two alone."""
    torch.manual_seed(0)
    module, parts = FUSIONS[fusion](3, 4), torch.randn(6, 3, 4)
    there = torch.tensor([[True, False, True]] * 6)
    other = parts.clone()
    other[:, 1] = 0.0 if fusion == "gated" else torch.randn(6, 4)  # the gates read all inputs, zeros where one lacks
    parts[:, 1] = 0.0
    torch.testing.assert_close(module(parts, there), module(other, there))
    if fusion in ("weighted", "attention"):
        same = torch.ones(6, 3, 4)
        torch.testing.assert_close(module(same, there), torch.ones(6, 4))


def test_a_tower_asks_each_row_what_it_has() -> None:
    """An item without a text has the vector of its poster alone, not of a mean with zeros."""
    torch.manual_seed(0)
    shape = TowerShape({"text": 4, "image": 4}, {}, 4, "weighted", [], 0.0, False)
    tower = Tower(shape)
    image = torch.randn(3, 4)
    torch.testing.assert_close(tower({"text": torch.zeros(3, 4), "image": image}), image)
    torch.testing.assert_close(tower({"text": image, "image": image}), image)


def test_a_pair_met_twice_is_one_pair_with_the_mean_rating() -> None:
    histories = Histories.from_lists([[0, 1, 0], [1]], [[1.0, 4.0, 3.0], [3.0]])
    pairs = pairs_of(histories, np.array([1, 2, 3, 4], np.float32), 2)
    assert (pairs.offsets_B1.tolist(), pairs.items_E.tolist()) == ([0, 2, 3], [0, 1, 1])
    assert (pairs.weights_E.tolist(), pairs.counts_E.tolist(), pairs.sums_E.tolist()) == (
        [4, 2, 4],
        [2, 1, 1],
        [4, 4, 3],
    )
    assert pairs.squares_E.tolist() == [10, 16, 9]
    np.testing.assert_allclose(pairs.ratings_E, np.array([-1, 1, 0]) * 1.5**0.5, atol=1e-6)
