"""A user's rows taken out of what the service has kept, and a look at where there are others still."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.storage import Location
from recsys_ray.data.forgotten import add_forgotten, without
from recsys_ray.runs.publish import RECOMMENDATIONS, is_part
from recsys_ray.runs.published import is_published

KEPT = ("feedback", "hidden", "clicks", "exposures")
"""Directories of Parquet files with a column user_id, which the service writes."""


def forget(output: Location, users: list[str]) -> dict[str, Any]:
    """Put users on the list of ``data.forgotten`` and take their rows out of the files that the service has written.

    Returns ``new``, how many were not on the list before; ``rows`` taken out by directory; and ``runs``, published runs
    that hold lists of them still: the next run is made without them, and pruning takes the others (``runs.keep``).
    """
    new = add_forgotten(output, users)
    gone = take_out(output, frozenset(users))
    root = output / RECOMMENDATIONS
    wanted = pa.array(users, pa.string())
    holding = [name for name in root.names() if is_published(root / name) and _holds(root / name, wanted)]
    return {"new": len(new), "rows": gone, "runs": holding}


def take_out(output: Location, users: frozenset[str]) -> dict[str, int]:
    """How many rows of these users there were in each of KEPT; they are gone."""
    return {name: _take_out(output / name, users) if users else 0 for name in KEPT}


def _take_out(directory: Location, users: frozenset[str]) -> int:
    """Every file that holds rows of these users is written again without them; how many rows that were."""
    gone = 0
    for name in directory.names():
        if not name.endswith(".parquet") or name[0] in "._":
            continue
        table = (directory / name).read_parquet()
        left = without(table, users)
        if left.num_rows < table.num_rows:
            gone += table.num_rows - left.num_rows
            (directory / name).write_parquet(left)
    return gone


def _holds(run: Location, users: pa.Array) -> bool:
    for name in run.names():
        if is_part(name):
            ids = (run / name).read_parquet(["user_id"]).column("user_id").cast(pa.string())
            if pc.any(pc.is_in(ids, value_set=users)).as_py():
                return True
    return False
