"""The accuracy gate: worse is refused and named, equal and better are not, chance is no reason."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError
from recsys_ray.base.types import ItemLists
from recsys_ray.evaluation import EvaluationSettings, ItemCounts, Report, evaluate_part
from recsys_ray.evaluation.comparison import Comparison, compare_reports, comparison_table, holm
from recsys_ray.runs.accuracy import judge
from recsys_ray.runs.config import AccuracySettings

USERS, ITEMS = 400, 50
SETTINGS = EvaluationSettings(k=[5], bootstrap=200)


def report(quality_B: np.ndarray, seed: int = 0, settings: EvaluationSettings = SETTINGS) -> Report:
    """Lists of five that hold the one target of a user with the given chance, at a random place."""
    rng = np.random.default_rng(seed)
    targets = ItemLists(np.arange(USERS + 1), np.random.default_rng(99).integers(0, ITEMS, USERS).astype(np.int32))
    found = []
    for user in range(USERS):
        target = int(targets.row(user)[0])
        others = [int(item) for item in rng.permutation(ITEMS) if item != target][:5]
        if rng.random() < quality_B[user]:
            others[rng.integers(5)] = target
        found += [(user, rank, item, -float(rank), "model") for rank, item in enumerate(others, 1)]
    kinds = schema.recommendations(pa.int64(), pa.int64())
    columns = [pa.array(column, field.type) for column, field in zip(zip(*found, strict=True), kinds, strict=True)]
    lists = pa.Table.from_arrays(columns, schema=kinds)
    counts = ItemCounts(pa.array(range(ITEMS), pa.int64()), np.ones(ITEMS, np.int64))
    histories_B = np.where(np.arange(USERS) % 2, 3, 30)
    part = evaluate_part(lists, pa.array(range(USERS), pa.int64()), targets, histories_B, counts, settings, 0)
    return part.finish(settings)


def level(value: float) -> np.ndarray:
    return np.full(USERS, value)


def test_worse_is_refused_and_named() -> None:
    verdict = judge(report(level(0.1)), {"popularity": report(level(0.5), 1)}, AccuracySettings())
    assert verdict.reason is not None and verdict.reason.startswith("worse than popularity in ndcg@5: 0.")
    assert "history 1-4" in verdict.reason and verdict.better == []


def test_better_is_not_refused() -> None:
    verdict = judge(report(level(0.5)), {"popularity": report(level(0.1), 1)}, AccuracySettings())
    assert verdict.reason is None and verdict.better == ["popularity"]


def test_equal_is_neither() -> None:
    verdict = judge(report(level(0.3)), {"popularity": report(level(0.3))}, AccuracySettings())
    assert verdict.reason is None and verdict.better == []


def test_worse_in_one_segment_is_refused() -> None:
    """Better for everyone, and a loss for those with short histories, is still named."""
    short_B = np.arange(USERS) % 2 == 1
    mine = report(np.where(short_B, 0.05, 0.95))
    verdict = judge(mine, {"popularity": report(np.where(short_B, 0.5, 0.2), 1)}, AccuracySettings())
    assert verdict.better == ["popularity"]
    assert verdict.reason is not None and "for users of history 1-4: 0." in verdict.reason


def test_tolerance_lets_a_small_loss_through() -> None:
    reports = report(level(0.1)), {"popularity": report(level(0.5), 1)}
    assert judge(*reports, AccuracySettings(tolerance=0.9)).reason is None


def test_chance_alone_seldom_refuses() -> None:
    """Of models of one quality, about one in forty: half of five in a hundred, two-sided, whatever is compared."""
    few = SETTINGS.model_copy(update={"bootstrap": 60})
    reports = [report(level(0.3), seed, few) for seed in range(40)]
    pairs = list(zip(reports[::2], reports[1::2], strict=True))
    refused = sum(judge(one, {"a": other, "b": one}, AccuracySettings()).reason is not None for one, other in pairs)
    assert refused <= 3  # of 20: by chance once in 600


def test_holm_by_hand() -> None:
    found = holm([Comparison("all", "m", 1, 0.0, 0.0, 0.0, 0.0, value) for value in (0.01, 0.04, 0.03, 0.005)])
    assert [one.p_value for one in found] == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_comparison_of_every_segment_is_the_difference_of_its_means() -> None:
    one, two = report(level(0.4)), report(level(0.2), 1)
    found = compare_reports(one, two)
    assert {place.segment for place in found} >= {"all", "history 1-4", "history 20+"}
    for place in found:
        values = [
            (whole.metrics if place.segment == "all" else whole.segments[place.segment].metrics)[place.metric]
            for whole in (one, two)
        ]
        assert place.difference == values[0] - values[1] and place.low <= place.difference <= place.high
    table = comparison_table(holm(found), "one", "two")
    assert "recall@5, history 1-4" in table and "better" in table and "worse" not in table


def test_other_users_are_not_compared() -> None:
    with pytest.raises(DataError, match="can't compare"):
        compare_reports(report(level(0.3)), report(level(0.3), settings=SETTINGS.model_copy(update={"seed": 1})))
