"""The exploration of prepared data as one HTML file."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys_ray.base.types import LongArray
from recsys_ray.data.checks import Symptom
from recsys_ray.pages import render
from recsys_ray.pages.figures import draw_bars, draw_lines, draw_shades

TEMPLATE = "data.html.jinja"
WHAT = "recsys-ray report data"


def data_page(name: str, facts: dict[str, Any], counts_I: LongArray, cells: LongArray, symptoms: list[Symptom]) -> str:
    """The page; ``facts`` are those of ``statistics``, ``cells`` those of ``density``.

    Raises:
        ConfigError: a library of the extra ``report`` is missing.
    """
    return render(
        "recsys_ray.data.report", TEMPLATE, WHAT, name=name, facts=facts, pictures=_pictures(facts, counts_I, cells),
        symptoms=symptoms,
    )  # fmt: skip


def _pictures(facts: dict[str, Any], counts_I: LongArray, cells: LongArray) -> dict[str, str]:
    found = {"ratings": _values("ratings", facts["ratings"], "rating", "interactions")}
    found["user_means"] = _values("user-means", facts["user_means"], "mean rating of a user", "users")
    for kind, label in (("per_user", "users"), ("per_item", "items")):
        doubling = facts[kind]["doubling"]
        names = [_range(place) for place in range(len(doubling))]
        found[kind] = draw_bars(kind, names, doubling, "interactions", label, f"{label} by number of interactions")
    counts = np.sort(counts_I[counts_I > 0])[::-1]
    # On logarithmic axes a few hundred of the ranks show the whole curve.
    ranks = np.unique(np.geomspace(1, max(1, len(counts)), 400).astype(np.int64))
    found["tail"] = draw_lines(
        "tail", ranks.astype(np.float64), [counts[ranks - 1]], "rank of the item", "interactions",
        "Interactions by rank of the item, both logarithmic", logarithmic=True,
    )  # fmt: skip
    rows, columns = (int(np.flatnonzero(cells.any(axis=axis)).max(initial=0)) + 1 for axis in (1, 0))
    used = cells[:rows, :columns]
    found["density"] = draw_shades(
        "density", used / max(1, used.sum()), "items, few to many interactions", "users, few to many interactions",
        "Where the interactions are: users by activity, items by popularity",
    )  # fmt: skip
    return found | (_times(facts["time"]) if facts["time"] else {})


def _times(time: dict[str, Any]) -> dict[str, str]:
    months, news = time["months"], time["new_users"]
    lines = [list(months.values()), [news.get(month, 0) for month in months]]
    found = {
        "months": draw_bars("months", list(months), lines[0], "month", "interactions", "Interactions by month"),
        "new_users": draw_bars("new-users", list(months), lines[1], "month", "new users", "New users by month"),
    }
    hours = [f"{hour}" for hour in range(24)]
    found["hours"] = draw_bars("hours", hours, time["hours"], "hour of the day, UTC", "interactions", "By hour")
    days = time["weekdays"]
    found["weekdays"] = draw_bars("weekdays", list(days), list(days.values()), "", "interactions", "By day of the week")
    return found


def _values(name: str, bins: list[dict[str, float]], x: str, y: str) -> str:
    labels = [f"{entry['value']:.3g}" for entry in bins]
    return draw_bars(name, labels, [entry["count"] for entry in bins], x, y, f"{y} by {x}")


def _range(place: int) -> str:
    low, high = 2**place, 2 ** (place + 1) - 1
    return str(low) if low == high else f"{low}-{high}"
