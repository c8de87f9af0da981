"""The pictures of the report on item vectors, and the legends that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys_ray.base.types import DoubleArray, IntArray
from recsys_ray.pages.figures import LINE_WIDTH, draw

POINT_SIZE = 14


@dataclass(frozen=True, slots=True)
class Key:
    """How one group is drawn, and the sign that stands for it in the legend."""

    colour: str
    marker: str
    sign: str


@dataclass(frozen=True, slots=True)
class Line:
    colour: str
    pattern: tuple[int, ...]
    """Lengths of dashes and gaps in line widths; empty for an unbroken line."""

    @property
    def dashes(self) -> str:
        """The pattern as SVG writes it, for a line 2 wide."""
        return " ".join(str(LINE_WIDTH * length) for length in self.pattern)


# Colours that keep apart on a white and on a black page, also for most colour-blind eyes; the markers tell them too.
KEYS = (
    Key("#1f77d0", "o", "●"),
    Key("#e8710a", "^", "▲"),
    Key("#10a07a", "s", "■"),
    Key("#d43f5e", "D", "◆"),
    Key("#9b5de5", "v", "▼"),
    Key("#b8901a", "P", "✚"),
    Key("#2bb3d6", "*", "★"),
    Key("#c65bb0", "X", "✖"),
)
REST = Key("#8a8f98", ".", "•")
LINES = (Line("#8a8f98", (6, 3)), Line("#e8710a", (6, 2, 1, 2)), Line("#1f77d0", ()))


def draw_map(points_R2: DoubleArray, groups_R: IntArray) -> str:
    """Points by group: a number in KEYS, or -1 for the rest."""

    def paint(axes: Any) -> None:
        for number, key in [(-1, REST), *enumerate(KEYS)]:
            chosen = groups_R == number
            axes.scatter(*points_R2[chosen].T, s=POINT_SIZE, c=key.colour, marker=key.marker, linewidths=0, alpha=0.75)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_alpha(0.3)

    return draw("map", (7.2, 6.0), paint, "Map of items: near points have similar vectors, colour and shape by genre")


def draw_distributions(edges: Sequence[float], kinds: Sequence[Sequence[float]]) -> str:
    """Shares of pairs per bin as steps, one line a kind, in the order of LINES."""

    def paint(axes: Any) -> None:
        for shares, line in zip(kinds, LINES, strict=False):
            percent = 100 * np.asarray(shares)
            axes.stairs(percent, edges, color=line.colour, linestyle=(0, line.pattern or None), linewidth=LINE_WIDTH)
        axes.set_xlabel("cosine")
        axes.set_ylabel("% of pairs")
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.2)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)

    return draw("cosines", (7.2, 3.4), paint, "Distribution of cosines by kind of pair")
