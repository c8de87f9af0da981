"""What is wrong, or may be, with prepared data: each symptom with what was found and what to do about it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.proportion import MANY
from recsys_ray.data.config import DataSettings
from recsys_ray.data.prepare.times import FIRST_TIME
from recsys_ray.data.prepared import Prepared
from recsys_ray.data.rating_scale import rating_middle, share_below
from recsys_ray.data.report.exploration import DAY, Explored, plain_names

Severity = Literal["note", "warning", "error"]
FEW = 0.01
"""Share from which something is worth a note."""
SHIFT, DRIFT = 0.1, 0.25
"""Population stability index from which a distribution is said to have shifted, and to have drifted."""
BURST = 50
"""A user with so many times the interactions of the 99th percentile is no person."""


@dataclass(frozen=True, slots=True)
class Symptom:
    """One line of a doctor."""

    severity: Severity
    check: str
    found: str
    cure: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.check}: {self.found}; {self.cure}"


def examine(prepared: Prepared, explored: Explored, settings: DataSettings, facts: dict[str, Any]) -> list[Symptom]:
    """The symptoms of one prepared data set, the worst first; ``facts`` are those of ``statistics``."""
    found = chain(
        _leaks(explored, settings),
        _ties(explored, settings),
        _doubles(prepared, settings),
        _orphans(prepared, facts),
        _collisions(prepared, explored),
        _ratings(explored, settings),
        _times(explored, facts),
        _crowds(facts),
    )
    return worst_first(list(found))


def worst_first(symptoms: list[Symptom]) -> list[Symptom]:
    """Errors, then warnings, then notes; each in the order they were found."""
    order: list[Severity] = ["error", "warning", "note"]
    return sorted(symptoms, key=lambda symptom: order.index(symptom.severity))


def drift(before: dict[str, Any], after: dict[str, Any]) -> list[Symptom]:
    """What changed between the statistics of two data sets: sizes, and distributions by their stability index."""
    found: list[Symptom] = []
    for what in ("users", "items", "interactions"):
        old, new = before[what], after[what]
        if abs(new - old) > 0.3 * old:
            words = f"{old:,} {what} became {new:,} ({(new - old) / old:+.0%})"
            found.append(Symptom("warning", "drift", words, "look whether a part of the input is missing or doubled"))
    for name, old, new in _distributions(before, after):
        index = stability(old, new)
        if index >= SHIFT:
            severity: Severity = "warning" if index >= DRIFT else "note"
            words = f"{name} changed since the published run, stability index {index:.2f}"
            found.append(Symptom(severity, "drift", words, f"look at what is new in it (stable is below {SHIFT})"))
    return found


def stability(before: Counter[Any], after: Counter[Any]) -> float:
    """Population stability index: sum of (new - old) ln(new / old) over the shares of all values; empty ones count as
    half an entry."""
    names = list({**before, **after})
    old, new = (np.array([max(counts[name], 0.5) for name in names], np.float64) for counts in (before, after))
    old, new = old / old.sum(), new / new.sum()
    return float(((new - old) * np.log(new / old)).sum())


def _distributions(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, Counter[Any], Counter[Any]]]:
    """What is compared, and its counts by value in both."""
    for name, key in (("the number of interactions of users", "per_user"), ("that of items", "per_item")):
        yield name, _counted(before[key]["doubling"]), _counted(after[key]["doubling"])
    values = [Counter({entry["value"]: entry["count"] for entry in facts["ratings"]}) for facts in (before, after)]
    yield "the distribution of ratings", values[0], values[1]
    if before["genres"] and after["genres"]:
        listed = [facts["genres"]["listed"] for facts in (before, after)]
        uses = [Counter({entry["name"]: entry["interactions"] for entry in genres}) for genres in listed]
        yield "what genres are used", uses[0], uses[1]


def _counted(bins: list[int]) -> Counter[Any]:
    return Counter(dict(enumerate(bins)))


def _leaks(explored: Explored, settings: DataSettings) -> Iterator[Symptom]:
    leaked, held_out = int(explored.sums["leaked"]), int(explored.sums["held_out"])
    if leaked:
        found = f"{leaked:,} of {held_out:,} held-out interactions are of a user and an item that training has, too"
        cure = "set data.filters.duplicates=last, or remove them from one of the given files"
        yield Symptom("error", "leak", found, cure)
    earlier, tested = int(explored.sums["tested_earlier"]), int(explored.sums["tested"])
    if tested and earlier > FEW * tested and settings.split.kind == "random":
        found = f"{earlier / tested:.0%} of the test interactions are older than what training knows of the same user"
        yield Symptom("note", "look ahead", found, "set data.split.kind=temporal for numbers as tomorrow will be")


def _ties(explored: Explored, settings: DataSettings) -> Iterator[Symptom]:
    tied, tested = int(explored.sums["tied_users"]), int(explored.sums["tested_users"])
    if tested and tied > FEW * tested and settings.split.kind in ("leave_last_out", "last_share", "temporal"):
        severity: Severity = "warning" if tied > MANY * tested else "note"
        found = f"{tied / tested:.0%} of the users have equal times on both sides of the cut, so what is last is chance"
        yield Symptom(severity, "ties at the cut", found, "give finer times, or set data.split.kind=random")


def _doubles(prepared: Prepared, settings: DataSettings) -> Iterator[Symptom]:
    read, repeated = int(prepared.manifest["interactions_read"]), int(prepared.manifest["dropped"]["repeated"])
    if repeated > FEW * read:
        found = f"{repeated / read:.0%} of the interactions repeated a pair, and one of each was kept"
        yield Symptom("note", "duplicates", found, f"right with data.filters.duplicates={settings.filters.duplicates}")
    items = prepared.items
    names = ["title", *(["year"] if "year" in items.schema.names else [])]
    titled = items.filter(pc.is_valid(items.column("title"))).select([*names, "item_id"])
    groups = titled.group_by(names).aggregate([("item_id", "count"), ("item_id", "min"), ("item_id", "max")])
    twice = groups.filter(pc.greater(groups.column("item_id_count"), 1))
    if twice.num_rows:
        one = twice.slice(0, 1).to_pylist()[0]
        found = f"{twice.num_rows:,} titles belong to several items, for example {one['title']!r} to "
        found += f"{one['item_id_min']} and {one['item_id_max']}"
        yield Symptom("note", "duplicates", found, "merge them in the catalogue if they are the same thing")


def _orphans(prepared: Prepared, facts: dict[str, Any]) -> Iterator[Symptom]:
    read, unknown = int(prepared.manifest["interactions_read"]), int(prepared.manifest["dropped"]["unknown_items"])
    if unknown:
        severity: Severity = "warning" if unknown > MANY * read else "note"
        found = f"{unknown:,} of {read:,} interactions were of items that the catalogue does not have, and dropped"
        yield Symptom(severity, "orphans", found, "complete the catalogue, or set data.unknown_items=add")
    untitled, items = facts["catalogue"].get("without_title", 0), facts["items"]
    if 0 < untitled < items:
        found = f"{untitled:,} of {items:,} items have no title"
        yield Symptom("warning" if untitled > MANY * items else "note", "orphans", found, "complete the catalogue")
    cold = facts["cold"]["items_without_interactions"]
    if cold > MANY * items:
        found = f"{cold / items:.0%} of the items have no interaction, so most models never list them"
        yield Symptom("note", "cold items", found, "set training.cold_items={} to score them by content")


def _collisions(prepared: Prepared, explored: Explored) -> Iterator[Symptom]:
    names = {"user": explored.counts["names"]}
    ids = prepared.items.column("item_id")
    if pa.types.is_string(ids.type):
        names["item"] = Counter(plain_names(ids).to_pylist())
    for what, counts in names.items():
        alike = [name for name, count in counts.items() if count > 1]
        if alike:
            found = f"{len(alike):,} {what} ids differ only in case, space or leading zeros, for example {alike[0]!r}"
            yield Symptom("warning", "id collisions", found, "write ids in one way before they come here")


def _ratings(explored: Explored, settings: DataSettings) -> Iterator[Symptom]:
    counted = [[value, count] for value, count in sorted(explored.counts["ratings"].items())]
    if (middle := rating_middle(settings, counted)) is None:
        return
    below = share_below(middle, counted)
    if below > FEW:
        found = f"{below:.0%} of the ratings lie below {middle:g}, the middle of their scale, and count as liked"
        cure = f"set data.filters.min_rating={middle:g} or higher, if lists are for what people like"
        yield Symptom("warning" if below > MANY else "note", "ratings", found, cure)


def _times(explored: Explored, facts: dict[str, Any]) -> Iterator[Symptom]:
    if explored.times is None or not facts["time"]:
        yield Symptom("note", "times", "no interaction has a time", "give one, or use a split without order")
        return
    untimed = int(explored.sums["untimed"])
    if untimed:
        found = f"{untimed:,} interactions have no time and count as the oldest"
        yield Symptom("warning", "times", found, "give all a time, or none")
    first, last = explored.times
    if first < FIRST_TIME:
        found = f"the first interaction is of {facts['time']['first']}"
        yield Symptom("warning", "times", found, "look at the unit of the time column, or set data.filters.start")
    if last > time.time() * 1000 + DAY:
        found = f"the last interaction is of {facts['time']['last']}, in the future"
        yield Symptom("error", "times", found, "look at the unit of the time column, or set data.filters.end")


def _crowds(facts: dict[str, Any]) -> Iterator[Symptom]:
    most, usual = facts["per_user"]["quantiles"]["1.0"], facts["per_user"]["quantiles"]["0.99"]
    if most > BURST * max(1, usual):
        found = f"one user has {most:,} interactions, 99 of 100 have at most {usual:,}"
        yield Symptom("warning", "crowds", found, "look whether it is a person")
