"""The difference between two variants, with an interval that holds however often it is looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from recsys_ray.base.types import DoubleArray


@dataclass(frozen=True, slots=True)
class Effect:
    """Outcomes a user of one variant has more than one of the control."""

    difference: float
    low: float
    high: float

    @property
    def direction(self) -> int:
        """1 where the whole interval is above 0, -1 where it is below, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def effect(mine_U: DoubleArray, control_U: DoubleArray, alpha: float, tightest_users: int) -> Effect:
    """The difference of the means of two groups of users, with its confidence sequence.

    A user is one observation, complete when it enters, and variants are drawn independently of everything else. Then
    the difference of means is an average over both groups together, whose variance for one user is ``N * se^2``: N
    users in all, se the usual standard error of the difference. The interval is the asymptotic confidence sequence of
    Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence
    sequences" (2021), section 2, for that average. It is asymptotic: the chance that one of all looks misses the truth
    is alpha once the first look has users enough. We take the means of the groups, where they weight by the known
    shares; both have the same limit.

    Args:
        mine_U: outcomes of each user of the variant. control_U: the same of the control; at least two users each.
        alpha: chance to miss the truth at any look. tightest_users: both groups together, see ``ExperimentSettings``.
    """
    users = len(mine_U) + len(control_U)
    error = math.sqrt(float(np.var(mine_U, ddof=1)) / len(mine_U) + float(np.var(control_U, ddof=1)) / len(control_U))
    difference = float(np.mean(mine_U) - np.mean(control_U))
    half = error * factor(users, alpha, tightest_users)
    return Effect(difference, difference - half, difference + half)


def factor(users: int, alpha: float, tightest_users: int) -> float:
    """Half the width of the interval in standard errors; what 1.96 is to a single look at 95 %."""
    logarithm = -2.0 * math.log(alpha)
    scaled = users * (logarithm + math.log(logarithm + 1.0)) / tightest_users  # t rho^2 in the paper
    return math.sqrt(2.0 * (scaled + 1.0) / scaled * math.log(math.sqrt(scaled + 1.0) / alpha))
