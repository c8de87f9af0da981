"""The published run as a Delta table, in place: what reads Delta finds the rows of LATEST under one path.

    <root>/_delta_log/   the log of a table whose directory is that of the runs, ``<output>/recommendations``

The files of the table are the parts of the published run where they are; no row is copied. To move it is one commit, on
a disk as on an object store, so that a query reads one run or another, never some of both. The files of the run before
stay as long as the run does, and a query that has begun goes on. Table: Armbrust et al., Delta Lake, VLDB 2020.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow.parquet as pq

from recsys_ray.base.errors import PublishError, RecsysError
from recsys_ray.base.lock import alone
from recsys_ray.base.optional import require
from recsys_ray.base.secrets import mask
from recsys_ray.base.storage import Location
from recsys_ray.base.storage_errors import first_line
from recsys_ray.runs.publish import LATEST, latest_run
from recsys_ray.runs.published import read_run

LOG = "_delta_log"
CURE = f"run recommend with runs.delta=true, or delete {LOG}"
NEVER_VACUUMED = {"delta.deletedFileRetentionDuration": "interval 5200 weeks"}
"""A VACUUM takes what is in the directory and in no table for refuse: here that would be the other runs, and LATEST."""


def follow_latest(root: Location, wanted: bool, say: Callable[[str], None]) -> None:
    """Move the table to the run of LATEST; make it where there is none. What goes wrong is said, and nothing else: a
    run is published without its table, too.

    Args:
        wanted: ``runs.delta``. Without it a table that is there is named as one that stays behind.
    """
    try:
        if not wanted:
            if is_table(root):
                say(f"publish: {root / LOG} stays where it is (runs.delta=false); set it, or delete that directory")
            return
        with alone(root / LATEST, lambda line: say(f"publish: {line}")):
            run = latest_run(root)
            if run is not None and move_table(root, run):
                say(f"publish: the Delta table {root} holds {run.name}")
    except RecsysError as error:
        say(f"publish: the Delta table {root} could not be moved: {error}")
    except Exception as error:  # deltalake raises errors of its own, and those of each storage
        say(f"publish: the Delta table {root} could not be moved: {mask(first_line(error))}")


def move_table(root: Location, run: Location) -> bool:
    """One commit after which the table holds the parts of this run and nothing else; False where it does already.

    Raises:
        ConfigError: deltalake is not installed. PublishError: the run has no record. StorageError: a part can't be
            read. Others: what deltalake raises.
    """
    deltalake = require("deltalake", extra="lakes", what="runs.delta")
    actions = require("deltalake.transaction", extra="lakes", what="runs.delta")
    sizes, options = _wanted_files(run), storage_options(os.environ)
    if not is_table(root):
        schema = deltalake.Schema.from_arrow(_schema(root, sizes))
        added = _added(actions, sizes)
        actions.create_table_with_add_actions(
            root.url,
            schema,
            added,
            name="recommendations",
            description="Top-N of every user, of the published run",
            configuration=NEVER_VACUUMED,
            storage_options=options,
        )
        return True
    table = deltalake.DeltaTable(root.url, storage_options=options)
    found = _files(table)
    if found == sizes:
        return False
    schema = deltalake.Schema.from_arrow(_schema(root, sizes))
    if found.keys().isdisjoint(sizes):
        table.create_write_transaction(_added(actions, sizes), "overwrite", schema)
        return True
    # The same run with other parts, made again since: no path may be added and removed by one commit.
    changed = {path: size for path, size in sizes.items() if found.get(path) != size}
    now = _milliseconds()
    removed = [
        actions.RemoveAction(path=path, size=size, deletion_timestamp=now, data_change=True, partition_values={})
        for path, size in found.items()
        if path not in sizes
    ]
    table.create_write_transaction([*_added(actions, changed), *removed], "append", schema)
    return True


def is_table(root: Location) -> bool:
    """Whether a Delta table was made there."""
    return any(name.endswith(".json") for name in (root / LOG).names())


def check_table(root: Location, run: Location) -> str:
    """That the table holds this run, in words.

    Raises:
        PublishError: it holds another, or can't be read. ConfigError: deltalake is not installed.
    """
    deltalake = require("deltalake", extra="lakes", what="the Delta table")
    try:
        table = deltalake.DeltaTable(root.url, storage_options=storage_options(os.environ))
        found, version = _files(table), table.version()
    except Exception as error:  # deltalake raises errors of its own, and those of each storage
        raise PublishError(f"the Delta table {root} can't be read ({mask(first_line(error))}); {CURE}") from error
    if found != _wanted_files(run):
        holds = ", ".join(sorted({path.partition("/")[0] for path in found}))
        raise PublishError(f"the Delta table {root} holds {holds or 'nothing'}, not {run.name} as it is now; {CURE}")
    return f"version {version} of {root} holds {len(found)} files of {run.name}"


def _wanted_files(run: Location) -> dict[str, int]:
    """Size of every part of a run, by its path below the table's directory."""
    return {f"{run.name}/{name}": int(stamp["bytes"]) for name, stamp in read_run(run).parts.items()}


def _added(actions: Any, sizes: Mapping[str, int]) -> list[Any]:
    now = _milliseconds()
    return [actions.AddAction(path, size, {}, now, True, "{}") for path, size in sizes.items()]


def _files(table: Any) -> dict[str, int]:
    """Size of every file of the table, by its path below the table's directory."""
    found = table.get_add_actions(flatten=True)
    paths, sizes = (found.column(name).to_pylist() for name in ("path", "size_bytes"))
    return dict(zip(paths, sizes, strict=True))


def _schema(root: Location, sizes: Mapping[str, int]) -> Any:
    with (root / min(sizes)).open() as file:
        return pq.read_schema(file)


def _milliseconds() -> int:
    return int(time.time() * 1000)


def storage_options(variables: Mapping[str, str]) -> dict[str, str]:
    """What deltalake is told beside the environment: an endpoint without TLS is as good as its address says."""
    endpoint = variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL") or ""
    return {"AWS_ALLOW_HTTP": "true"} if endpoint.startswith("http://") else {}
