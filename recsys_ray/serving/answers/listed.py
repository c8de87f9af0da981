"""A finished list as it is kept and sent: what it is made of, what it shows, and its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json

from recsys_ray.base.types import Requests
from recsys_ray.recommend.rank import Ranked
from recsys_ray.serving.answers.live_run import LiveRun

NOTHING = {
    True: "the filters leave no item of the catalogue; loosen one of them",
    False: "nothing is left to recommend: the user has or hides all that the filters leave",
}
"""Why a list is empty, by whether no item at all could be recommended."""
FORMAT = 3
"""Of ``packed``; part of the keys of caches that outlive a process."""


class Listed(NamedTuple):
    """The answer to one request for recommendations."""

    source: str
    """Of its rows: one for all of them, ``mixed``, or ``none``."""
    shown: bytes
    """JSON list of the ids of its leading items, as texts."""
    body: bytes
    """JSON of the response without the closing brace."""

    def packed(self) -> bytes:
        return b"\n".join((self.source.encode(), self.shown, self.body))

    @classmethod
    def unpacked(cls, packed: bytes) -> Listed:
        source, shown, body = packed.split(b"\n", 2)
        return cls(source.decode(), shown, body)


def listed(front: dict[str, Any], items: Sequence[dict[str, Any]], back: dict[str, Any], most_shown: int) -> Listed:
    """The list of these ``response_models.RecommendedItem``, and what stands in the response before and after it."""
    sources = {item["source"] for item in items}
    source = sources.pop() if len(sources) == 1 else "mixed" if sources else "none"
    shown = to_json([str(item["item_id"]) for item in items[:most_shown]])
    return Listed(source, shown, to_json(front | {"source": source, "items": items} | back)[:-1])


def kind_of_stranger(request: Requests) -> str:
    """What a response calls a user whom the run does not know."""
    return "new" if len(request.histories.items_E) else "unknown"


def list_items(run: LiveRun, page: Ranked, offset: int) -> list[dict[str, Any]]:
    """``response_models.RecommendedItem`` of the one list of ``page``, whose first rank is offset + 1."""
    columns = (page.rows_BK[0].tolist(), page.scores_BK[0].tolist(), page.sources_BK[0].tolist())
    return [
        run.catalogue.describe(row) | {"rank": rank, "score": score, "source": run.bundle.sources[source]}
        for rank, (row, score, source) in enumerate(zip(*columns, strict=True), start=offset + 1)
        if row >= 0
    ]
