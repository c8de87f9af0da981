"""Runs on disk: start or resume one, publish it, roll back.

<root>/LATEST                     the run id that readers follow, replaced atomically
<root>/<run_id>/_run.json         written first: what this run is, so that a rerun finds and resumes it
<root>/<run_id>/part-*.parquet    one per user shard; the name is the commit
<root>/<run_id>/manifest.json     written last, after the gate: what was published and how it was checked
<root>/<run_id>/WITHDRAWN         left by a rollback: this run is never published again
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from recsys_ray.base.errors import PublishError
from recsys_ray.base.storage import Location

LATEST, MANIFEST, START, WITHDRAWN = "LATEST", "manifest.json", "_run.json", "WITHDRAWN"
RECOMMENDATIONS = "recommendations"
FOLDER = "serving"
POINTER = "ACTIVE-"


def start_run(root: Location, fingerprint: str, facts: dict[str, Any]) -> Location:
    """The run of this fingerprint: the one already there, finished or not, or a new one.

    Run ids are ``<UTC start>-<fingerprint>``: they sort by time, and a rerun of a killed job finds its own run.
    """
    tag = fingerprint[:10]
    for name in reversed(root.names()):
        if name.endswith(f"-{tag}") and (root / name / START).exists():
            return root / name
    run = root / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{tag}"
    (run / START).write_json(facts | {"fingerprint": fingerprint, "started_at": _now()})
    return run


def finished_shards(run: Location) -> set[int]:
    """Numbers of the parts that are there."""
    return {int(name[len("part-") : -len(".parquet")]) for name in run.names() if is_part(name)}


def is_part(name: str) -> bool:
    return name.startswith("part-") and name.endswith(".parquet")


def latest(root: Location) -> str | None:
    """The published run id, None when nothing was published yet."""
    if not (root / LATEST).exists():
        return None
    return (root / LATEST).read_bytes().decode().strip()


def latest_run(root: Location) -> Location | None:
    """The published run; PublishError when the pointer leads nowhere."""
    run_id = latest(root)
    if run_id is None:
        return None
    if not (root / run_id / MANIFEST).exists():
        raise PublishError(
            f"{root / LATEST} names {run_id}, which has no {MANIFEST}; run rollback with publish.to=RUN_ID"
        )
    return root / run_id


def publish(root: Location, run: Location, facts: dict[str, Any]) -> dict[str, Any]:
    """Commit the run's manifest, then move LATEST to it. ``facts`` are the gate's and the caller's; ``made_with`` among
    them names the directories beside ``root`` that go when the run is pruned."""
    if (run / WITHDRAWN).exists():
        raise PublishError(
            f"{run.name} was withdrawn by a rollback; change the data or the configuration to make a new run"
        )
    before = latest(root)
    if before == run.name:  # published before: it keeps its place in the chain
        before = (run / MANIFEST).read_json().get("previous") if (run / MANIFEST).exists() else None
    parts = {name: (run / name).size() for name in run.names() if is_part(name)}
    manifest = facts | {
        "run_id": run.name,
        "previous": before,
        "published_at": _now(),
        "parts": parts,
    }
    (run / MANIFEST).write_json(manifest)
    (root / LATEST).write_bytes(f"{run.name}\n".encode())
    return manifest


def rollback(root: Location, to: str | None = None) -> tuple[str, str]:
    """Point LATEST back to the run before (or to ``to``) and mark the run left behind; (old, new) run ids."""
    current = latest(root)
    if current is None:
        raise PublishError(f"{root}: nothing is published, so there is nothing to roll back")
    target = to or _previous_of(root, current)
    if target is None:
        raise PublishError(f"{root}: no run was published before {current}; there is nothing to roll back to")
    if target == current or not (root / target / MANIFEST).exists():
        raise PublishError(f"{root}: can't roll back from {current} to {target!r}: it is not another published run")
    (root / target / WITHDRAWN).remove()
    (root / LATEST).write_bytes(f"{target}\n".encode())
    (root / current / WITHDRAWN).write_bytes(f"rolled back to {target} at {_now()}\n".encode())
    return current, target


def prune(root: Location, keep: int, used: Collection[str] = ()) -> list[str]:
    """Delete all but the ``keep`` runs published last; LATEST, the ``used`` and unfinished runs stay. Returns the
    deleted ids.

    With a run goes what it was made with (``made_with`` of its manifest: prepared data, models, evaluations, as names
    beside ``root``), as far as no run that stays was made with it too.
    """
    manifests = {
        name: (root / name / MANIFEST).read_json() for name in root.names() if (root / name / MANIFEST).exists()
    }
    by_time = sorted(manifests, key=lambda name: str(manifests[name]["published_at"]))
    made_with = {name: set(manifests[name].get("made_with", [])) for name in by_time}
    current = latest(root)
    old = [name for name in list(made_with)[:-keep] if name != current and name not in used]
    needed = set[str]().union(*(made for name, made in made_with.items() if name not in old))
    for name in old:
        root.parent.remove(made_with[name] - needed)
        (root / name).remove()
    return old


def _previous_of(root: Location, run_id: str) -> str | None:
    """The nearest run published before, still there and not withdrawn."""
    while (root / run_id / MANIFEST).exists():
        before = (root / run_id / MANIFEST).read_json().get("previous")
        if before is None:
            return None
        run_id = str(before)
        if (root / run_id / MANIFEST).exists() and not (root / run_id / WITHDRAWN).exists():
            return run_id
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def bundle_of(output: Location, written: Location) -> Location:
    """Where the run's model is: in this output directory, even if that was copied elsewhere, or where it was made."""
    here = output / "models" / written.name
    return here if (here / "manifest.json").exists() else written


def valid_run_id(run_id: str) -> bool:
    """Run ids are plain names: never a path out of the runs' directory."""
    return bool(run_id) and len(run_id) <= 128 and all(c.isalnum() or c in "-_" for c in run_id) and run_id.isascii()


def activated(output: Location) -> set[str]:
    """The runs under ``output`` that an administrator chose, and those to roll back to from there."""
    found: set[str] = set()
    folder = output / FOLDER
    for name in folder.names():
        if name.startswith(POINTER):
            pinned = (folder / name).read_json()
            found |= {pinned["run_id"], pinned["previous"]} if pinned["run_id"] else set()
    return found - {None}
