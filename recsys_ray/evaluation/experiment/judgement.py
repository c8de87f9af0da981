"""What an experiment says: a row for each variant, its effect against the control, and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import chisquare

from recsys_ray.base.errors import DataError
from recsys_ray.evaluation.experiment.attribution import Arm, Attributed
from recsys_ray.evaluation.experiment.config import ExperimentSettings
from recsys_ray.evaluation.experiment.effect import Effect, effect

SUSPICIOUS = 0.001
"""Shares of the users that chance brings less often than this are a fault. So low because it is looked at often."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One variant: its users, and its effect against the control where both have users enough."""

    arm: Arm
    shown: Effect | None
    """On outcomes with shown items; the verdict is about this one."""
    any: Effect | None
    """On outcomes with any item."""
    verdict: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """All variants, the control first."""

    variants: tuple[Judged, ...]
    in_two: int
    chosen: int
    share_p: float
    """Chance of shares of the users so far from the weights, by the chi-square test."""
    confidence: float

    @property
    def warning(self) -> str | None:
        """The line that says not to trust any of it; None where nothing is wrong."""
        if self.share_p >= SUSPICIOUS:
            return None
        users = ", ".join(f"{one.arm.variant} {one.arm.users}" for one in self.variants)
        return (
            f"the shares of the users ({users}) don't fit the weights (chi-square p = {self.share_p:.1g}): exposures "
            "are lost, or weights were changed on the way; find out why before you believe an effect"
        )

    def table(self) -> str:
        """For a terminal."""
        head = f"{'variant':<20}{'users':>9}{'judged':>9}{'exposures':>11}"
        title = f"effect, {self.confidence:.0%} sure"
        lines = [f"{head}{'shown':>9}{'a user':>9}  {title:<28}{'any':>9}{'a user':>9}  effect"]
        for one in self.variants:
            arm = one.arm
            row = f"{arm.variant:<20}{arm.users:>9}{arm.judged:>9}{arm.exposures:>11}"
            shown = f"{arm.shown_U.sum():>9.0f}{_mean(arm.shown_U):>9.4f}  {_interval(one.shown):<28}"
            lines.append(f"{row}{shown}{arm.any_U.sum():>9.0f}{_mean(arm.any_U):>9.4f}  {_interval(one.any)}".rstrip())
        lines += [f"left out: {self.in_two} users in two variants, {self.chosen} whose variant the caller chose"]
        lines += [one.verdict for one in self.variants if one.verdict]
        return "\n".join(lines if self.warning is None else [*lines, f"warning: {self.warning}"])

    def json(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        rows = []
        for one in self.variants:
            arm = one.arm
            facts: dict[str, Any] = {"variant": arm.variant, "users": arm.users, "judged": arm.judged}
            facts |= {"exposures": arm.exposures, "verdict": one.verdict}
            for name, counts_U, found in (("shown", arm.shown_U, one.shown), ("any", arm.any_U, one.any)):
                facts[name] = {"outcomes": int(counts_U.sum()), "per_user": _mean(counts_U), "effect": _facts(found)}
            rows.append(facts)
        left_out = {"in_two_variants": self.in_two, "chosen_by_the_caller": self.chosen}
        shares = {"share_p": self.share_p, "warning": self.warning}
        return {"variants": rows, "left_out": left_out, "confidence": self.confidence, **shares}


def judge(found: Attributed, weights: Mapping[str, float], settings: ExperimentSettings) -> Judgement:
    """The variants side by side. With several the chance to miss is shared by all effects against the control.

    Args:
        found: outcomes by variant. weights: the share that every variant should have, in their order.

    Raises:
        DataError: fewer than two variants have users, or the control has none.
    """
    control = settings.control or next(iter(weights))
    arms = {arm.variant: arm for arm in found.arms}
    if len(arms) < 2 or control not in arms:
        seen = ", ".join(arms) or "none"
        left_out = f"left out: {found.in_two} users in two variants, {found.chosen} whose variant the caller chose"
        raise DataError(f"nothing to compare: variants with users are {seen}, the control is {control}; {left_out}")
    alpha = (1.0 - settings.confidence) / (len(arms) - 1)
    base = arms.pop(control)
    others = [_judged(arms[name], base, alpha, settings) for name in weights if name in arms]
    share_p = _share_p({arm.variant: arm.users for arm in found.arms}, weights)
    rows = (Judged(base, None, None, ""), *others)
    return Judgement(rows, found.in_two, found.chosen, share_p, settings.confidence)


def _judged(mine: Arm, base: Arm, alpha: float, settings: ExperimentSettings) -> Judged:
    fewest = min(mine.judged, base.judged)
    if fewest < settings.least_users:
        verdict = (
            f"{mine.variant}: too early; {fewest} of at least {settings.least_users} users of each variant have been "
            f"watched for {settings.window_hours:g} hours"
        )
        return Judged(mine, None, None, verdict)
    shown, other = (
        effect(mine_U, base_U, alpha, settings.tightest_users)
        for mine_U, base_U in ((mine.shown_U, base.shown_U), (mine.any_U, base.any_U))
    )
    return Judged(mine, shown, other, _verdict(mine.variant, base.variant, shown))


def _verdict(mine: str, control: str, found: Effect) -> str:
    if not found.low < found.high:
        return f"{mine}: nothing to judge; neither among the users of {mine} nor of {control} do outcomes differ"
    if not found.direction:
        return (
            f"{mine}: no difference from {control} is proven; a user of {mine} may have {-found.low:.4f} outcomes less "
            f"or {found.high:.4f} more. It may be looked at again"
        )
    word, least, most = ("better", found.low, found.high) if found.direction > 0 else ("worse", -found.high, -found.low)
    more = "more" if found.direction > 0 else "less"
    return f"{mine}: {word} than {control}; a user of {mine} has {least:.4f} to {most:.4f} outcomes {more}"


def _share_p(users: Mapping[str, int], weights: Mapping[str, float]) -> float:
    """p-value of the users of every variant against the weights. Users of a variant without weight can't be chance."""
    if any(count and not weights[name] for name, count in users.items()):
        return 0.0
    drawn = {name: weight for name, weight in weights.items() if weight}
    observed = np.array([users.get(name, 0) for name in drawn], np.float64)
    shares = np.array(list(drawn.values())) / sum(drawn.values())
    return float(chisquare(observed, observed.sum() * shares).pvalue)


def _mean(counts_U: Any) -> float:
    return float(counts_U.mean()) if len(counts_U) else 0.0


def _interval(found: Effect | None) -> str:
    return "" if found is None else f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _facts(found: Effect | None) -> dict[str, float] | None:
    return None if found is None else {"difference": found.difference, "low": found.low, "high": found.high}
