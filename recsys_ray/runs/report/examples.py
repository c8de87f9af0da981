"""Users with what they had beside what they get, their posters drawn small into the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from recsys_ray.base.storage import Location
from recsys_ray.content.config import ImageSettings
from recsys_ray.content.posters.reader import read_posters
from recsys_ray.data.prepare.shard import part_file
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.runs.gate_part import flat

WEB = ("http://", "https://", "ftp://")
USERS, HAD, GETS = 3, 6, 8
WIDTH, HEIGHT = 96, 144


@dataclass(frozen=True, slots=True)
class Tile:
    """An item as the page shows it."""

    title: str
    note: str
    poster: str | None
    """A data URI."""


@dataclass(frozen=True, slots=True)
class Example:
    """One user."""

    user_id: Any
    history: int
    had: list[Tile]
    """The newest first."""
    gets: list[Tile]


def examples(place: Location, bundle: Bundle, settings: ImageSettings) -> list[Example]:
    """Users of the first shard: with the shortest history, a middling and the longest one."""
    shard = next((shard for shard, count in enumerate(bundle.users_per_shard) if count), None)
    if shard is None:
        return []
    requests = bundle.requests(shard)
    order = np.argsort(requests.histories.lengths_B, kind="stable")
    chosen = dict.fromkeys(int(order[round(share * (len(order) - 1))]) for share in np.linspace(0, 1, USERS))
    lists = flat((place / part_file(shard)).read_parquet())
    rows = {str(item): row for row, item in enumerate(bundle.item_ids.to_pylist())}
    drawn = _Posters(bundle.items, settings)
    found = []
    for row in chosen:
        user, span = requests.user_ids[row], requests.histories.span(row)
        columns = (requests.histories.items_E[span], requests.histories.ratings_E[span])
        had = list(zip(*(column[::-1][:HAD].tolist() for column in columns), strict=True))
        gets = lists.filter(pa.compute.equal(lists.column("user_id"), user)).slice(0, GETS).to_pylist()
        found.append(
            Example(
                user.as_py(),
                int(requests.histories.lengths_B[row]),
                [drawn.tile(item, f"rated {rating:g}") for item, rating in had],
                [drawn.tile(rows[str(one["item_id"])], f"{one['rank']}. {one['source']}") for one in gets],
            )
        )
    return found


class _Posters:
    def __init__(self, items: pa.Table, settings: ImageSettings) -> None:
        self._items, self._settings = items, settings
        self._drawn: dict[int, str | None] = {}

    def tile(self, row: int, note: str) -> Tile:
        one = self._items.slice(row, 1).to_pylist()[0]
        if row not in self._drawn:
            self._drawn[row] = self._draw(one.get("poster"), str(one["item_id"]))
        return Tile(one["title"] or str(one["item_id"]), note, self._drawn[row])

    def _draw(self, reference: str | None, item_id: str) -> str | None:
        """Small, as a data URI; None where there is none, it can't be read, or it lies on the web."""
        if reference is not None and reference.startswith(WEB):
            return None
        [poster] = read_posters([reference], [item_id], self._settings)
        if poster.data is None:
            return None
        try:
            with Image.open(io.BytesIO(poster.data)) as image:
                small = image.convert("RGB")
                small.thumbnail((WIDTH, HEIGHT))
        except (OSError, ValueError, Image.DecompressionBombError):
            return None
        file = io.BytesIO()
        small.save(file, "JPEG", quality=75)
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
