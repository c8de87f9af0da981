"""Some users of a run with what they had and what they get, for a person to judge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.shard import part_file
from recsys_ray.recommend.bundle import open_bundle
from recsys_ray.runs.gate_part import flat

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Example:
    """One user."""

    user: str
    had: list[str]
    """The last items of the history, newest last, by title where there is one."""
    gets: list[str]
    """The first items of the list."""


def examples(run: Location, bundle_at: Location, users: int = 3) -> list[Example]:
    """Users whose histories say something: those of about median length among the first with lists."""
    bundle = open_bundle(bundle_at)
    ids, titles = bundle.item_ids.to_pylist(), bundle.items.column("title").to_pylist()
    names = [str(title or item) for item, title in zip(ids, titles, strict=True)]
    by_id = dict(zip(ids, names, strict=True))
    requests = bundle.requests(0)
    lengths_B = requests.histories.lengths_B
    typical = np.median(lengths_B[lengths_B > 0]) if (lengths_B > 0).any() else 0
    rows = np.argsort(np.abs(lengths_B - max(typical, SHOWN)), kind="stable")[: 4 * users]
    part = flat((run / part_file(0)).read_parquet())
    lists: dict[object, list[str]] = {}
    for user, item in zip(part.column("user_id").to_pylist(), part.column("item_id").to_pylist(), strict=True):
        lists.setdefault(user, []).append(by_id[item])
    found = []
    for row, user in zip(rows.tolist(), requests.user_ids.take(rows).to_pylist(), strict=True):
        if user in lists:
            had = requests.histories.items_E[requests.histories.span(row)]
            found.append(Example(str(user), [names[item] for item in had[-SHOWN:]], lists[user][:SHOWN]))
    return found[:users]
