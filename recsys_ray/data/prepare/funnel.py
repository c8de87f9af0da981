"""Where every row went that was read: each is counted once, so that the counts add up to what was read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from recsys_ray.base import schema
from recsys_ray.data.prepare.finish import SEEN_FOR, Totals
from recsys_ray.data.prepare.staging import StageTotal

WORDS = {
    "bad_rows": "can't be read",
    "feedback_files_refused": "files of feedback that can't be used, each counted as one",
    "events_without_weight": "of a kind without a weight",
    "forgotten_users": "of forgotten users",
    "outside_time_window": "outside filters.start and end",
    "unknown_items": "of items outside the catalogue",
    "repeated": "repeat a pair (filters.duplicates)",
    "k_core": "of users or items with too few (k-core)",
    "below_min_rating": "below filters.min_rating",
    "in_future": "more than a day ahead of the clock (filters.future)",
    "beyond_newest_per_user": "beyond filters.newest_per_user",
    "unrated": "without a rating or a positive weight",
}


@dataclass(frozen=True, slots=True)
class Funnel:
    """The rows of all inputs by what became of them: ``read`` is the sum of all other numbers."""

    read: int
    left_out: dict[str, int]
    """By reason."""
    used: dict[str, int]
    """By part of the split: what teaches, is a target, or is shown."""
    seen_only: dict[str, int]
    """By reason: never learned from, never a target, never recommended."""

    @classmethod
    def of(cls, staged: StageTotal, totals: Totals, gone: int, unknown: int, dropped: int, kept: int) -> Funnel:
        """Of the three passes: what was read, what was finished, and of the second the rows of items that are nowhere
        else (``gone``: outside the time window) or unknown, of repeated pairs, and those that were kept."""
        used = {name: int(totals.positives_S[code]) for name, code in schema.PARTS.items()}
        seen_only = dict(zip(SEEN_FOR, totals.seen_for.tolist(), strict=True))
        left_out = dict(sorted(staged.left_out.items()))
        left_out |= {"outside_time_window": gone, "unknown_items": unknown, "repeated": dropped}
        left_out["k_core"] = kept - sum(used.values()) - sum(seen_only.values())
        return cls(staged.read + staged.left_out.total(), left_out, used, seen_only)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def rows(self) -> list[tuple[str, int]]:
        """What became of the rows and how many, first what was read; what is 0 is left out."""
        found = [(f"left out: {WORDS.get(name, name)}", count) for name, count in self.left_out.items()]
        found += [(name, self.used.get(name, 0)) for name in schema.PARTS]
        found += [(f"only seen: {WORDS.get(name, name)}", count) for name, count in self.seen_only.items()]
        return [("read", self.read), *((what, count) for what, count in found if count)]

    def lines(self) -> list[str]:
        """The rows as text, aligned."""
        width = len(f"{self.read:,}")
        return [f"{count:>{width},}  {what}" for what, count in self.rows()]
