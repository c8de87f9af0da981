"""Experiments: outcomes belong to the right users, effects are right by hand, intervals hold at every look."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base import schema
from recsys_ray.evaluation.experiment.attribution import Arm, Attributed, Tally
from recsys_ray.evaluation.experiment.config import ExperimentSettings
from recsys_ray.evaluation.experiment.effect import effect, factor
from recsys_ray.evaluation.experiment.judgement import judge

HOUR = 3_600_000
WINDOW = 10 * HOUR
Exposure = tuple[int, int, str, list[int]]
"""User, hour, variant, items."""
Event = tuple[int, int, int]
"""User, item, hour."""


def exposures_of(rows: list[Exposure], assigned: bool = True) -> pa.Table:
    values = [
        {"user_id": user, "timestamp": hour * HOUR, "variant": variant, "assigned": assigned, "items": items}
        for user, hour, variant, items in rows
    ]
    return pa.Table.from_pylist(values, schema.exposures(pa.int64(), pa.int64()))


def events_of(rows: list[Event]) -> pa.Table:
    values = [{"user_id": user, "item_id": item, "timestamp": hour * HOUR} for user, item, hour in rows]
    return pa.Table.from_pylist(values, schema.clicks(pa.int64(), pa.int64()))


def attributed(exposures: list[list[Exposure]], events: list[Event], now: int, since: int = 0) -> Attributed:
    tally = Tally(events_of(events), since * HOUR)
    for rows in exposures:
        tally.add(exposures_of(rows))
    return tally.attributed(["a", "b"], WINDOW, now * HOUR)


def counts(found: Attributed) -> dict[str, tuple[int, int, list[float], list[float]]]:
    """Variant -> users, exposures, outcomes with shown items of the judged ones, with any; sorted."""
    return {
        arm.variant: (arm.users, arm.exposures, sorted(arm.shown_U.tolist()), sorted(arm.any_U.tolist()))
        for arm in found.arms
    }


def test_outcomes_by_hand() -> None:
    exposures: list[list[Exposure]] = [
        [(1, 0, "a", [10, 11]), (2, 1, "b", [10]), (1, 5, "a", [12, 10])],
        [(3, 2, "a", [10]), (4, 3, "b", [11]), (5, 60, "b", [11]), (6, 2, "a", [10]), (6, 3, "b", [10])],
    ]
    events = [
        (1, 10, 1),  # shown before
        (1, 10, 6),  # the same item once more, shown twice: counts once
        (1, 12, 4),  # liked before it was shown
        (1, 11, 11),  # after the window
        (1, 99, 0),  # at the moment of the first exposure, never shown
        (2, 10, 0),  # before the exposure
        (2, 77, 11),  # the last moment of the window
        (4, 11, 3),
        (5, 11, 61),  # a user whose window is open
        (6, 10, 4),  # in two variants
        (7, 10, 4),  # answered by nobody
    ]
    found = attributed(exposures, events, now=65)
    assert counts(found) == {"a": (2, 3, [0.0, 1.0], [0.0, 3.0]), "b": (3, 3, [0.0, 1.0], [1.0, 1.0])}
    assert (found.in_two, found.chosen) == (1, 0)
    assert [arm.judged for arm in found.arms] == [2, 2]


def test_users_whose_variant_the_caller_chose_are_left_out() -> None:
    tally = Tally(events_of([(1, 10, 1)]))
    tally.add(exposures_of([(1, 0, "a", [10]), (2, 0, "b", [10])]))
    tally.add(exposures_of([(1, 1, "a", [10]), (3, 0, "a", [10])], assigned=False))
    found = tally.attributed(["a", "b"], WINDOW, 20 * HOUR)
    assert (found.in_two, found.chosen) == (0, 2) and counts(found) == {"b": (1, 1, [0.0], [0.0])}


def test_what_was_before_the_start_is_forgotten() -> None:
    rows: list[Exposure] = [(1, 0, "old", [10]), (1, 5, "a", [11]), (2, 6, "b", [10])]
    found = attributed([rows], [(1, 10, 6), (1, 11, 14)], now=30, since=5)
    assert counts(found) == {"a": (1, 1, [1.0], [2.0]), "b": (1, 1, [0.0], [0.0])} and found.in_two == 0


def slow_counts(exposures: list[Exposure], events: list[Event], now: int) -> dict[str, Any]:
    """The same as ``counts``, user by user and event by event."""
    found: dict[str, Any] = {}
    for user in sorted({row[0] for row in exposures}):
        own = [row for row in exposures if row[0] == user]
        if len({row[2] for row in own}) > 1:
            continue
        variant, first = own[0][2], min(row[1] for row in own)
        users, answers, shown, either = found.get(variant, (0, 0, [], []))
        if first + WINDOW // HOUR <= now:
            inside = [one for one in events if one[0] == user and 0 <= one[2] - first <= WINDOW // HOUR]
            seen = {item for _, item, hour in inside if any(item in row[3] and row[1] <= hour for row in own)}
            shown, either = [*shown, float(len(seen))], [*either, float(len({item for _, item, _ in inside}))]
        found[variant] = (users + 1, answers + len(own), shown, either)
    return {name: (users, answers, sorted(one), sorted(two)) for name, (users, answers, one, two) in found.items()}


@pytest.mark.parametrize("seed", range(8))
def test_files_of_any_size_give_what_a_slow_count_gives(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_ray.evaluation.experiment.attribution.PARTS_KEPT", 3)
    rng = np.random.default_rng(seed)
    exposures: list[Exposure] = []
    for _ in range(120):
        user = int(rng.integers(30))
        variant = "ab"[user % 2] if rng.random() < 0.98 else "b"
        exposures.append((user, int(rng.integers(40)), variant, rng.choice(12, 3, replace=False).tolist()))
    events = [(int(rng.integers(32)), int(rng.integers(12)), int(rng.integers(45))) for _ in range(150)]
    now = int(rng.integers(20, 50))
    files = [exposures[start : start + 9] for start in range(0, 120, 9)]
    assert counts(attributed(files, events, now)) == slow_counts(exposures, events, now)


def test_a_judged_user_never_changes() -> None:
    """Later looks add users; whoever was judged keeps the outcomes, whatever comes later."""
    rng = np.random.default_rng(3)
    exposures: list[Exposure] = [
        (user, hour, "a", [user % 5]) for hour, user in enumerate(rng.integers(40, size=300).tolist())
    ]
    events = [(int(rng.integers(40)), int(rng.integers(5)), hour) for hour in range(310)]
    before: Counter[float] = Counter()
    for day in range(24, 320, 24):
        so_far = [row for row in exposures if row[1] <= day], [row for row in events if row[2] <= day]
        found = Counter(counts(attributed([so_far[0]], so_far[1], day))["a"][2])
        assert found == Counter(counts(attributed([exposures], events, day))["a"][2])
        assert not before - found
        before = found
    assert before.total() == 40


def test_the_effect_by_hand() -> None:
    mine, control = np.array([0.0, 1.0, 2.0, 1.0]), np.array([0.0, 0.0, 1.0])
    error = math.sqrt((2 / 3) / 4 + (1 / 3) / 3)  # variances 2/3 and 1/3
    # The formula of the paper with t = 7, alpha = 0.1 and rho^2 for 7 users.
    rho = (2 * math.log(10) + math.log(2 * math.log(10) + 1)) / 7
    deviation = error * math.sqrt(7)  # of one user
    boundary = deviation * math.sqrt(2 * (7 * rho + 1) / (7**2 * rho) * math.log(math.sqrt(7 * rho + 1) / 0.1))
    found = effect(mine, control, 0.1, 7)
    assert found.difference == pytest.approx(1 - 1 / 3)
    assert (found.low, found.high) == pytest.approx((2 / 3 - boundary, 2 / 3 + boundary))


@pytest.mark.parametrize("users", [50, 1000, 40_000])
def test_an_interval_is_tightest_where_it_was_asked_to_be_and_wider_than_a_single_look(users: int) -> None:
    others = [factor(users, 0.05, int(users * times)) for times in (0.1, 0.5, 2, 10)]
    assert 1.96 < factor(users, 0.05, users) < min(others)


RATE, USERS, DAYS, RUNS = 0.3, 100, 30, 400  # new users of a variant a day


def looks(rng: np.random.Generator, lift: float) -> tuple[bool, bool]:
    """Whether the interval, and the one for a single look, excluded 0 on any day."""
    mine, control = (rng.poisson(rate, USERS * DAYS).astype(np.float64) for rate in (RATE + lift, RATE))
    ours = single = False
    for day in range(1, DAYS + 1):
        one, two = mine[: day * USERS], control[: day * USERS]
        found = effect(one, two, 0.05, 5000)
        ours |= found.direction != 0
        error = (found.high - found.difference) / factor(len(one) + len(two), 0.05, 5000)
        single |= abs(found.difference) > 1.96 * error
    return ours, single


def test_without_an_effect_looking_every_day_finds_none_and_a_single_looks_interval_does() -> None:
    rng = np.random.default_rng(11)
    ours, single = np.mean([looks(rng, 0.0) for _ in range(RUNS)], axis=0)
    noise = 3 * math.sqrt(0.05 * 0.95 / RUNS)
    assert ours <= 0.05 + noise
    assert single > 0.05 + noise  # this test can fail


def test_with_an_effect_looking_every_day_finds_it() -> None:
    rng = np.random.default_rng(12)
    assert np.mean([looks(rng, 0.12)[0] for _ in range(60)]) > 0.95


def arm(variant: str, outcomes: Any, users: int | None = None) -> Arm:
    outcomes_U = np.asarray(outcomes, np.float64)
    return Arm(variant, users or len(outcomes_U), 3 * len(outcomes_U), outcomes_U, outcomes_U + 1)


def words(mine: Any, control: Any, **settings: Any) -> str:
    found = Attributed((arm("a", control), arm("b", mine)), 0, 0)
    return judge(found, {"a": 1.0, "b": 1.0}, ExperimentSettings(**settings)).variants[1].verdict


def test_verdicts_in_plain_words() -> None:
    half = [0.0, 1.0] * 400
    assert words([1.0, 2.0] * 400, half).startswith("b: better than a; a user of b has ")
    worse = words(half, [1.0, 2.0] * 400)
    assert worse.startswith("b: worse than a") and worse.endswith("outcomes less")
    assert words(half, half).startswith("b: no difference from a is proven")
    assert words([0.0] * 800, [0.0] * 800).startswith("b: nothing to judge")
    assert words(half[:98], half).startswith("b: too early; 98 of at least 100 users")


def test_several_variants_share_the_chance_to_err_and_the_control_is_named() -> None:
    half = [0.0, 1.0] * 400
    weights = {"a": 1.0, "b": 1.0, "c": 1.0}
    found = Attributed(tuple(arm(name, half) for name in "abc"), 2, 1)
    three = judge(found, weights, ExperimentSettings(control="b"))
    assert [one.arm.variant for one in three.variants] == ["b", "a", "c"]
    shown = three.variants[1].shown
    assert shown is not None and shown == effect(np.array(half), np.array(half), (1 - 0.95) / 2, 5000)
    assert three.json()["left_out"] == {"in_two_variants": 2, "chosen_by_the_caller": 1}
    assert "left out: 2 users in two variants, 1 whose" in three.table()


@pytest.mark.parametrize(
    ("users", "weights", "warned"),
    [
        ({"a": 5000, "b": 5000}, {"a": 1.0, "b": 1.0}, False),
        ({"a": 5000, "b": 5150}, {"a": 1.0, "b": 1.0}, False),
        ({"a": 5000, "b": 5400}, {"a": 1.0, "b": 1.0}, True),
        ({"a": 9000, "b": 1000}, {"a": 9.0, "b": 1.0}, False),
        ({"a": 5000, "b": 5000}, {"a": 9.0, "b": 1.0}, True),
        ({"a": 5000, "b": 5}, {"a": 1.0, "b": 0.0}, True),
        ({"a": 5000, "b": 5000}, {"a": 1.0, "b": 1.0, "c": 1.0}, True),  # nobody was answered by c
    ],
)
def test_shares_that_can_not_be_chance_are_one_line_of_warning(
    users: dict[str, int], weights: dict[str, float], warned: bool
) -> None:
    found = Attributed(tuple(arm(name, [0.0, 1.0] * 100, count) for name, count in users.items()), 0, 0)
    warning = judge(found, weights, ExperimentSettings()).warning
    assert (warning is not None) == warned
    assert warning is None or ("chi-square" in warning and "\n" not in warning)
