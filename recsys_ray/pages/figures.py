"""Pictures as inline SVG: transparent, with text and axes in the colour of the page's text.

Only fixed words are written into them; names from the data stand in the page, which escapes them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_ray.base.types import DoubleArray

FOREGROUND = "#0a0b0c"
"""Stands for the colour of the page's text, and is replaced by it."""
LINE_WIDTH = 2
ACCENT, SECOND, SOFT = "#1f77d0", "#e8710a", "#8a8f98"
"""Colours that keep apart on a white and on a black page, also for most colour-blind eyes."""
SIZE = (7.2, 3.0)
LETTERS = 60
"""Letters of labels that find room under a picture."""


def draw_bars(name: str, labels: Sequence[str], heights: npt.ArrayLike, x: str, y: str, label: str) -> str:
    """A bar for every label; with many, only some of the labels are written."""

    def paint(axes: Any) -> None:
        axes.bar(range(len(labels)), np.asarray(heights), width=0.85, color=ACCENT)
        step = -(-len(labels) * max(map(len, labels), default=0) // LETTERS) or 1
        axes.set_xticks(range(0, len(labels), step), [labels[place] for place in range(0, len(labels), step)])
        _named(axes, x, y)

    return draw(name, SIZE, paint, label)


def draw_lines(
    name: str, points: DoubleArray, lines: Sequence[npt.ArrayLike], x: str, y: str, label: str, *, logarithmic: bool
) -> str:
    """One or two lines over the same points; both axes logarithmic, or none."""

    def paint(axes: Any) -> None:
        for values, colour in zip(lines, (ACCENT, SECOND), strict=False):
            axes.plot(points, np.asarray(values), color=colour, linewidth=LINE_WIDTH)
        if logarithmic:
            axes.set_xscale("log")
            axes.set_yscale("log")
            _logarithmic(axes.xaxis)
            _logarithmic(axes.yaxis)
        else:
            axes.set_ylim(bottom=0)
        _named(axes, x, y)

    return draw(name, SIZE, paint, label)


def draw_points(
    name: str, points: npt.ArrayLike, values: npt.ArrayLike, best: npt.ArrayLike | None, x: str, y: str, label: str,
    *, logarithmic: bool = False,
) -> str:  # fmt: skip
    """A dot for every value, and a line through the best so far where that is given; ``logarithmic`` is the x axis."""

    def paint(axes: Any) -> None:
        axes.scatter(np.asarray(points), np.asarray(values), s=26, color=ACCENT)
        if best is not None:
            axes.step(np.asarray(points), np.asarray(best), where="post", color=SECOND, linewidth=LINE_WIDTH)
        if logarithmic:
            axes.set_xscale("log")
            _logarithmic(axes.xaxis)
        _named(axes, x, y)

    return draw(name, SIZE, paint, label)


def draw_intervals(
    name: str, values: Sequence[float], intervals: Sequence[Sequence[float]], x: str, y: str, label: str
) -> str:
    """A dot for every value, in order, and its interval (low, high) as a line through it."""

    def paint(axes: Any) -> None:
        places = np.arange(1, len(values) + 1)
        lows, highs = np.asarray(intervals, np.float64).T
        axes.vlines(places, lows, highs, color=SOFT, linewidth=LINE_WIDTH)
        axes.plot(places, values, color=ACCENT, linewidth=LINE_WIDTH, marker="o")
        axes.set_xticks(places)
        axes.margins(x=0.1)
        _named(axes, x, y)

    return draw(name, SIZE, paint, label)


def draw_shades(name: str, shares: DoubleArray, x: str, y: str, label: str) -> str:
    """A rectangle of cells, the darker the larger their logarithm; cells of 0 stay empty. Row 0 is at the bottom."""

    def paint(axes: Any) -> None:
        with np.errstate(divide="ignore"):
            shades = np.where(shares > 0, np.log10(shares), np.nan)
        axes.imshow(shades, origin="lower", aspect="auto", cmap="Blues", interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    return draw(name, (7.2, 4.0), paint, label)


def _logarithmic(axis: Any) -> None:
    """1, 2 and 5 of every power of ten, or the powers alone where these are many: labels that don't overlap."""
    from matplotlib import ticker

    low, high = axis.get_view_interval()
    short = high <= 1000 * low
    axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0) if short else (1.0,)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def _named(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw(name: str, size: tuple[float, float], paint: Callable[[Any], None], label: str) -> str:
    """The picture without file header, size and the ids that only an editor needs."""
    # matplotlib takes a second to import, and only a report needs it.
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif", "font.size": 13}
    colours = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
    with matplotlib.rc_context(settings | dict.fromkeys(colours, FOREGROUND)):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        paint(axes)
        file = io.StringIO()
        no_facts = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=no_facts)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'<g id="[^"]*"', "<g", text).replace(FOREGROUND, "currentColor")
    head = rf'<svg role="img" aria-label="{label}" viewBox="\1">'
    return re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', head, text, count=1)
