"""What stays of published runs: their order, which of them are used, and which are deleted.

The order is the chain: each record names the run that was published before it. Clocks go wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from recsys_ray.base.errors import PublishError, StorageError
from recsys_ray.base.manifest import is_inside
from recsys_ray.base.storage import Location
from recsys_ray.runs.publish import FOLDER, LATEST, POINTER, is_withdrawn, latest, latest_run
from recsys_ray.runs.published import PublishedRun, is_published, read_run

KEPT_AT_LEAST = 2
"""LATEST and the run before it, to which a rollback goes."""
YOUNG_SECONDS = 3600
"""A run that was published within this time is not deleted, a replica may be about to open it; nor one that a replica
named within it."""
SERVES = "SERVES-"
"""Files beside the administrators' choices, one of each replica: the runs that it answers with."""


def mend_latest(root: Location, progress: Callable[[str], None]) -> None:
    """A pointer that is damaged or leads nowhere goes to the run that stood last in the chain, or away."""
    try:
        latest_run(root)
    except PublishError as error:
        chain = [name for name in newest_first(root) if not is_withdrawn(root / name)]
        if chain:
            (root / LATEST).write_bytes(f"{chain[0]}\n".encode())
        else:
            root.remove([LATEST])
        progress(f"publish: {error}; LATEST is set to {chain[0] if chain else 'nothing'}")


def newest_first(root: Location) -> list[str]:
    """The published runs whose records can be read: that of LATEST, those before it by their chain, then all others,
    of these a run before the one that it names as its previous, and else by the time that their records say."""
    records = _readable(root)
    by_time = sorted(records, key=lambda name: (records[name].published_at, name), reverse=True)
    named = {record.previous for record in records.values()}
    # A run that no other names as its previous is the newest of a chain; that of LATEST is followed first.
    heads = sorted((name for name in by_time if name not in named), key=lambda name: name != _pointer(root))
    order: dict[str, None] = {}
    for start in [_pointer(root), *heads, *by_time]:
        name = start
        while name is not None and name in records and name not in order:
            order[name] = None
            name = records[name].previous
    return list(order)


def prune(
    root: Location,
    keep: int,
    used: Collection[str] = (),
    in_use: Collection[str] = (),
    progress: Callable[[str], None] = lambda message: None,
) -> list[str]:
    """Delete all but the ``keep`` runs published last; returns the deleted ids.

    LATEST, the run before it, the ``used``, runs younger than an hour, unfinished runs, and runs whose record can't be
    read stay. With a run goes what it was made with (``made_with`` of its record: prepared data, models, evaluations,
    as names beside ``root``), as far as no run that stays was made with it too, and no command stands on it now
    (``in_use``, whole places). Nothing else is ever deleted.
    """
    records, order = _readable(root, progress), newest_first(root)
    young = {name for name in order if _is_recent(records[name].published_at)}
    protected = {*order[: max(keep, KEPT_AT_LEAST)], *used, *young}
    old = [name for name in reversed(order) if name not in protected]
    needed = set[str]().union(*(records[name].made_with for name in order if name not in old))
    for name in old:
        made_with = [made for made in records[name].made_with if is_inside(made) and made.count("/") >= 1]
        root.parent.remove({made for made in made_with if str(root.parent / made) not in in_use} - needed)
        (root / name).remove()
    return old


def _readable(root: Location, progress: Callable[[str], None] = lambda message: None) -> dict[str, PublishedRun]:
    """The records of published runs by the names of their directories."""
    found = {}
    for name in root.names():
        if is_published(root / name):
            try:
                found[name] = read_run(root / name)
            except PublishError as error:
                progress(f"publish: the old run {name} is left alone: {error}")
    return found


def _is_recent(moment: str) -> bool:
    try:
        age = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    except (ValueError, TypeError):  # not a time, or one without a zone
        return False
    return 0 <= age < YOUNG_SECONDS


def _pointer(root: Location) -> str | None:
    try:
        return latest(root)
    except PublishError:
        return None


def activated(output: Location) -> set[str]:
    """The runs under ``output`` that an administrator chose, and those to roll back to from there; what replicas say
    that they answer with.

    Raises:
        StorageError: a choice can't be read, so that nothing is known to be unused.
    """
    found: set[Any] = set()
    folder = output / FOLDER
    for name in folder.names():
        if name.startswith(POINTER):
            pinned = (folder / name).read_json()
            found |= {pinned.get("run_id"), pinned.get("previous")} if pinned.get("run_id") else set()
        if name.startswith(SERVES):
            with suppress(StorageError):  # written again at the replica's next look
                noted = (folder / name).read_json()
                found |= set(noted.get("runs", ())) if _is_recent(str(noted.get("at"))) else set()
    return {name for name in found if isinstance(name, str)}
