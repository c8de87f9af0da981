"""A small shop with everything that rules speak of, and the law that a batch job and the service obey them alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from recsys_ray.base.storage import Location
from recsys_ray.data.prepared import Prepared
from tests.data_worlds import prepare_events, write_csv
from tests.serving_worlds import client, publish_run, published_rows

GENRES = ("Action", "Comedy", "Drama", "Horror", "Sci-Fi")
BRANDS = ("acme", "bolt", "core", "")
HEADER = "item_id,title,genres,year,price,brand,sold_from,sold_until"
COLUMNS = {
    "title": "title",
    "genres": "genres",
    "year": "year",
    "keep": ["brand"],
    "available_from": "sold_from",
    "available_until": "sold_until",
}
HOUR = 3_600_000
START = 1_704_067_200_000  # Monday 2024-01-01 00:00 UTC
USERS, ITEMS = 40, 36
AT = "2026-02-01"
"""The day that lists are for, unless a test says another."""


def catalogue() -> list[dict[str, Any]]:
    """Items 1 to 36; some without brand, year or price, every third one sold for a while only."""
    rng = np.random.default_rng(5)
    rows = []
    for item in range(1, ITEMS + 1):
        genres = sorted(rng.choice(GENRES, size=rng.integers(1, 4), replace=False).tolist())
        rows.append(
            {
                "item_id": item,
                "title": f"Item {item}",
                "genres": genres,
                "year": None if item % 9 == 0 else int(1980 + rng.integers(0, 40)),
                "price": None if item % 7 == 0 else float(rng.integers(1, 60)),
                "brand": BRANDS[int(rng.integers(0, 4))] or None,
                "sold_from": "2026-03-01" if item % 3 == 0 else None,
                "sold_until": "2026-06-30" if item % 3 == 1 else None,
            }
        )
    return rows


def sold(row: dict[str, Any], day: str = AT) -> bool:
    """Whether an item is available on a day, in plain words."""
    return (row["sold_from"] is None or row["sold_from"] <= day) and (row["sold_until"] or "9999") >= day


def text_rows(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """As a CSV file has them."""
    return [
        tuple("|".join(cell) if isinstance(cell, list) else "" if cell is None else cell for cell in row.values())
        for row in rows
    ]


def shop(folder: Path, name: str = "shop") -> Prepared:
    """40 users of 0 to 13 items each; user 100 has none. Horror is watched at night, Comedy in the afternoon."""
    rng = np.random.default_rng(3)
    rows = catalogue()
    items = write_csv(folder / "items.csv", text_rows(rows), HEADER)
    events = []
    for user in range(1, USERS + 1):
        for item in rng.choice(ITEMS, size=1 + user % 13, replace=False):
            genres = rows[item]["genres"]
            hour = 2 if "Horror" in genres else 15 if "Comedy" in genres else 9
            day = int(rng.integers(0, 60))
            events.append((user, int(item) + 1, float(rng.integers(1, 6)), START + (24 * day + hour) * HOUR + user))
    found = prepare_events(folder / "prepared" / name, events, items=str(items), item_columns=COLUMNS, shards=2)
    made = folder / "prepared" / name / "out"
    assert found.location == Location.of(made)
    return Prepared.open(Location.of(made.rename(folder / "prepared" / f"{name}-made")))


class Rules:
    """Two runs of one model: the plain one, and one whose batch job obeyed rules."""

    def __init__(self, folder: Path, prepared: Prepared, model: str = "item_cf") -> None:
        self.folder, self.prepared, self.model = folder, prepared, model
        self.plain = publish_run(folder, prepared, model, tag="plain", n=8, at=AT)

    def batch(self, tag: str, **recommend: Any) -> tuple[Location, dict[int, list[int]]]:
        """The run of a batch job with these settings, and its lists."""
        run = publish_run(self.folder, self.prepared, self.model, tag=tag, **{"n": 8, "at": AT} | recommend)
        return run, {user: [row["item_id"] for row in rows] for user, rows in published_rows(run).items()}

    @contextmanager
    def service(self, run: Location, **settings: Any) -> Iterator[TestClient]:
        """The service over one of the runs."""
        variant = [{"name": "a", "run": run.name}]
        with client(self.folder, variants=variant, state=str(self.folder / "state"), **settings) as opened:
            yield opened


def answers(service: TestClient, users: list[Any], **params: Any) -> dict[Any, list[int]]:
    """The lists of these users, as the service answers."""
    found = {}
    for user in users:
        answer = service.get(f"/v1/recommendations/{user}", params={"n": 8, "at": AT} | params)
        assert answer.status_code == 200, answer.text
        found[user] = [item["item_id"] for item in answer.json()["items"]]
    return found
