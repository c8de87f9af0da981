"""Folds: disjoint parts that are everything, their means, and the paired test against scipy's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from recsys_ray.base.errors import ConfigError, DataError
from recsys_ray.evaluation import CrossValidation, EvaluationSettings
from recsys_ray.evaluation.cross_validation import Spread
from tests.data_worlds import histories, prepare_events

EVENTS = [(user, item, 1.0 + (user * item) % 5, user + item) for user in range(30) for item in range(user % 7, 20)]


def held_out(folder: Path, fold: int, seed: int = 0) -> set[tuple[int, int]]:
    split = {"kind": "k_fold", "folds": 4, "fold": fold}
    prepared = prepare_events(folder / f"{seed}-{fold}", EVENTS, seed, split=split)
    parts = histories(prepared)
    return {(user, item) for user, events in parts.items() for item, part in events if part == "test"}


def test_folds_are_disjoint_together_everything_and_of_about_one_size(tmp_path: Path) -> None:
    folds = [held_out(tmp_path, fold) for fold in range(4)]
    everything = {(user, item) for user, item, _, _ in EVENTS}
    assert sum(map(len, folds)) == len(everything) and set().union(*folds) == everything
    assert all(0.7 < 4 * len(fold) / len(everything) < 1.3 for fold in folds)
    assert held_out(tmp_path, 0, seed=1) != folds[0]


def test_a_fold_that_is_none_or_empty_is_one_line(tmp_path: Path) -> None:
    with pytest.raises((ConfigError, ValueError), match="fold=4 is none of folds=4"):
        prepare_events(tmp_path, EVENTS, split={"kind": "k_fold", "folds": 4, "fold": 4})
    with pytest.raises(DataError, match=r"leaves no test interactions .*split\.folds"):
        for fold in range(90):
            prepare_events(tmp_path / str(fold), EVENTS[:20], split={"kind": "k_fold", "folds": 90, "fold": fold})


def test_mean_spread_and_paired_test() -> None:
    rng = np.random.default_rng(0)
    mine, theirs = rng.normal(0.5, 0.1, 5), rng.normal(0.4, 0.1, 5)
    report = CrossValidation(
        [{"rmse": value, "ndcg@10": value} for value in mine], {"other": [{"rmse": value} for value in theirs]}
    )
    assert report.values["rmse"].mean == pytest.approx(mine.mean())
    assert report.values["rmse"].deviation == pytest.approx(mine.std(ddof=1))
    difference = report.against("other")["rmse"]
    assert difference.p_value == pytest.approx(ttest_rel(mine, theirs).pvalue)
    assert "ndcg@10" not in report.against("other")
    table = report.table(EvaluationSettings(k=[10]))
    assert "5 folds" in table and "difference to other" in table and f"{mine.mean():.4f}" in table


def test_equal_folds_and_too_few() -> None:
    assert Spread.of([0.0, 0.0], paired=True).p_value == 1.0
    assert Spread.of([0.1, 0.1], paired=True).p_value == 0.0
    with pytest.raises(DataError, match="needs two folds, found 1"):
        CrossValidation([{"rmse": 1.0}], {})
    with pytest.raises(DataError, match="no metric in common"):
        CrossValidation([{"rmse": 1.0}, {"mae": 1.0}], {})
