"""A finished list as it is kept and sent: what it is made of, what it shows, and its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json

FORMAT = 2
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
