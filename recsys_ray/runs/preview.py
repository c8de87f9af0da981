"""What a run found, as text for a person to look at."""

from __future__ import annotations

import numpy as np

from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.shard import part_file
from recsys_ray.recommend.bundle import Bundle, open_bundle
from recsys_ray.recommend.similar import similar_items
from recsys_ray.runs.gate_part import flat


def users_sample(run: Location, bundle: Bundle, users: int = 2) -> str:
    """The rows of the first users, with titles."""
    titles = _titles(bundle)
    rows = flat((run / part_file(0)).read_parquet()).slice(0, users * 100).to_pylist()
    wanted = list(dict.fromkeys(row["user_id"] for row in rows))[:users]
    lines = [f"{'user_id':>12} {'rank':>4} {'score':>10}  {'source':<12} {'item_id':<10} title"]
    for row in rows:
        if row["user_id"] in wanted:
            lines.append(
                f"{row['user_id']!s:>12} {row['rank']:>4} {row['score']:>10.4f}  {row['source']:<12} "
                f"{row['item_id']!s:<10} {titles[row['item_id']] or ''}"
            )
    return "\n".join(lines)


def similar_sample(bundle: Bundle, items: int = 5, n: int = 5) -> str:
    """What the model finds most alike to the best known items, a line each; empty when it compares no items."""
    titles = _titles(bundle)
    known = np.argsort(-bundle.item_counts(), kind="stable")[:items].astype(np.int32)
    rows = similar_items(bundle, known, min(n, bundle.num_items)).to_pylist()
    lines = []
    for item in bundle.item_ids.take(known).to_pylist():
        like = [row for row in rows if row["item_id"] == item]
        if like:
            names = "; ".join(f"{_name(titles, row['similar_item_id'])} {row['score']:.2f}" for row in like)
            lines.append(f"  like {_name(titles, item)}: {names}")
    return "\n".join(lines)


def preview(run: Location, bundle_at: Location) -> str:
    """Both samples of a finished run."""
    bundle = open_bundle(bundle_at)
    return "\n\n".join(text for text in (users_sample(run, bundle), similar_sample(bundle)) if text)


def _titles(bundle: Bundle) -> dict[object, str | None]:
    return dict(zip(bundle.item_ids.to_pylist(), bundle.items.column("title").to_pylist(), strict=True))


def _name(titles: dict[object, str | None], item: object) -> str:
    return titles[item] or str(item)
