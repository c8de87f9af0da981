"""What a table of vectors lacks, said in proportion: texts that are empty, posters that can't be read."""

from __future__ import annotations

from typing import Any

from recsys_ray.base.proportion import in_proportion
from recsys_ray.content.config import ContentSettings

NO_TEXT = "name columns of the catalogue in data.item_columns.text, or set content.text=null"
NO_POSTER = (
    "relative paths start at the catalogue, or at content.image.root; content.image.directory finds posters by item"
)


def gaps(totals: dict[str, Any], settings: ContentSettings) -> list[str]:
    """A line for each kind of gap, from the counts of a whole table.

    Raises:
        DataError: a share above ``content.missing_at_most`` is missing.
    """
    bounds = (settings.missing_at_most, "content.missing_at_most")
    items, lines = totals["items"], []
    if without := totals.get("without_text", 0):
        lines.append(in_proportion(without, items, "items have no text", NO_TEXT, *bounds))
    problems = totals.get("poster_problems", {})
    without, unread = totals.get("without_image", 0), sum(problems.values())
    if unread:
        item, problem = totals["poster_problem_items"][0]
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in problems.items())
        what = f"posters can't be read ({kinds}; item {item}: {problem})"
        lines.append(in_proportion(unread, items - without + unread, what, NO_POSTER, *bounds))
    elif without and without == items:
        cure = f"name their column in data.item_columns.poster, or set content.image=null; {NO_POSTER}"
        lines.append(in_proportion(without, items, "items have no poster", cure, *bounds))
    return lines
