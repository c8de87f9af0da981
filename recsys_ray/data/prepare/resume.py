"""Work that is done once: what a task reports is kept beside its file, and an interrupted ``prepare`` goes on there.

    staging/_plan.json           written first: what is prepared, into how many shards
    staging/chunk-00000.report   written after the chunk's file, and so its commit; the same for shards

A report is a dataclass of numbers, texts, lists of them, and arrays. It is kept as one row of an Arrow table behind its
checksum; a report that can't be read counts as work that was not done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

import numpy as np
import pyarrow as pa

from recsys_ray.base.errors import DataError, StorageError
from recsys_ray.base.manifest import damage, read_manifest, write_manifest
from recsys_ray.base.provenance import versions
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.shard import ATTRIBUTES, MANIFEST, REPORT, STAGING, USERS, report_file
from recsys_ray.data.prepared import Prepared

Report = TypeVar("Report")
PLAN = "_plan.json"
_KINDS = b"kinds"
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class Work:
    """A function over numbered blocks, and where its reports are kept."""

    function: Callable[[Any, Any], Any]
    job: Any
    report: type[Any]
    """The class of what it returns."""
    directory: Location
    name: str
    """What its files are called: ``<name>-<number>``."""


def once(block: Any, work: Work) -> Any:
    """The report of a block, taken from where it is kept or made and kept."""
    number = block[0] if isinstance(block, tuple) else block
    file = report_file(work.directory, f"{work.name}-{number:05d}")
    if file.exists():
        try:
            return loaded(work.report, file.read_bytes())
        except (StorageError, ValueError, KeyError, pa.ArrowException):
            pass  # damaged: the work is done again
    made = work.function(block, work.job)
    file.write_bytes(dumped(made))
    return made


def complete(location: Location, fingerprint: dict[str, Any]) -> Prepared | None:
    """What is prepared there of the same, if it is whole."""
    if not Prepared.is_at(location):
        return None
    try:
        prepared = Prepared.open(location)
    except DataError:
        return None
    same = prepared.manifest.get("fingerprint") == json.loads(json.dumps(fingerprint))
    return prepared if same and not damage(location, prepared.files) else None


def begin(location: Location, facts: dict[str, Any], progress: Callable[[str], None]) -> None:
    """What an interrupted attempt at the same has done is kept; of any other nothing is. ``facts`` say what it is."""
    location.remove([MANIFEST])
    plan, file = json.loads(json.dumps(facts | {"version": versions()["recsys_ray"]})), location / STAGING / PLAN
    try:
        found = read_manifest(file) if file.exists() else None
    except StorageError:
        found = None
    if found == plan:
        done = sum(name.endswith(REPORT) for name in file.parent.names())
        progress(f"prepare: resuming, {done:,} pieces of work are there")
        return
    location.remove([STAGING])
    write_manifest(file, plan)


def remove_strays(location: Location, files: Collection[str]) -> None:
    """Files of earlier attempts that had other shards, or were killed while they wrote."""
    for folder in (USERS, ATTRIBUTES):
        (location / folder).remove(name for name in (location / folder).names() if f"{folder}/{name}" not in files)


def dumped(report: Any) -> bytes:
    """A report as bytes, behind their SHA-256."""
    columns: dict[str, pa.Array] = {}
    kinds = _collect("", report, columns)
    table = pa.table(columns or {"": pa.array([None])}).replace_schema_metadata({_KINDS: json.dumps(kinds).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return hashlib.sha256(data).digest() + data


def loaded(kind: type[Report], data: bytes) -> Report:
    """The report that was ``dumped``.

    Raises:
        ValueError, KeyError, ArrowException: it is damaged, or of another version.
    """
    digest, data = data[:_DIGEST], data[_DIGEST:]
    if hashlib.sha256(data).digest() != digest:
        raise ValueError("the checksum differs")
    table = pa.ipc.open_stream(data).read_all()
    return _restored("", kind, table, json.loads(table.schema.metadata[_KINDS]))


def _collect(prefix: str, report: Any, columns: dict[str, pa.Array]) -> dict[str, Any]:
    """Arrays go into ``columns``, one row each; what every field is, and the plain values, are returned by name."""
    kinds: dict[str, Any] = {}
    for field in fields(report):
        name, value = prefix + field.name, getattr(report, field.name)
        if is_dataclass(value):
            kinds |= {name: ["record"]} | _collect(f"{name}.", value, columns)
        elif isinstance(value, pa.Schema):
            kinds[name], columns[name] = ["schema"], pa.array([value.serialize().to_pybytes()])
        elif isinstance(value, pa.Array):
            kinds[name], columns[name] = ["array"], pa.ListArray.from_arrays([0, len(value)], value)
        elif isinstance(value, np.ndarray):
            flat = pa.array(value.reshape(-1))
            kinds[name], columns[name] = ["numbers", value.shape], pa.ListArray.from_arrays([0, len(flat)], flat)
        else:
            kinds[name] = ["tuple" if isinstance(value, tuple) else "plain", value]
    return kinds


def _restored(prefix: str, kind: type[Report], table: pa.Table, kinds: dict[str, Any]) -> Report:
    values: dict[str, Any] = {}
    hints = get_type_hints(kind)
    for field in fields(kind):  # type: ignore[arg-type]
        name = prefix + field.name
        what, *more = kinds[name]
        if what == "record":
            values[field.name] = _restored(f"{name}.", hints[field.name], table, kinds)
        elif what == "schema":
            values[field.name] = pa.ipc.read_schema(pa.py_buffer(table.column(name)[0].as_py()))
        elif what == "array":
            values[field.name] = table.column(name).combine_chunks().flatten()
        elif what == "numbers":
            flat = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
            values[field.name] = flat.reshape(more[0]).copy()
        else:
            values[field.name] = tuple(more[0]) if what == "tuple" else more[0]
    return kind(**values)
