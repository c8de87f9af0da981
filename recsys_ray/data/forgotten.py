"""Users who asked to be forgotten: a list beside the output, which every stage and the service keep to.

<output>/forgotten/*.jsonl   one line a user: {"user_id": ..., "at": ISO time}; a file a call, never changed
"""

from __future__ import annotations

import datetime
import hashlib
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.errors import StorageError
from recsys_ray.base.storage import Location
from recsys_ray.data.config import DataSettings
from recsys_ray.data.prepare.files import Chunk
from recsys_ray.data.sources.base import Rows, Source
from recsys_ray.data.sources.users import HasUsers

FOLDER = "forgotten"
REASON = "forgotten_users"


def forgotten_users(output: Location) -> frozenset[str]:
    """Their ids as text.

    Raises:
        StorageError: the list can't be read.
    """
    found: set[str] = set()
    for name in (output / FOLDER).names():
        file = output / FOLDER / name
        if name.endswith(".jsonl") and name[0] not in "._":
            try:
                lines = (json.loads(line) for line in file.read_bytes().splitlines() if line.strip())
                found |= {str(line["user_id"]) for line in lines}
            except (ValueError, KeyError, TypeError) as error:
                raise StorageError(f"{file}: not a list of forgotten users ({error}); restore a copy") from error
    return frozenset(found)


def add_forgotten(output: Location, users: Iterable[str]) -> list[str]:
    """Put users on the list; those who were not on it."""
    known = forgotten_users(output)
    new = [user for user in dict.fromkeys(users) if user not in known]
    if new:
        now = datetime.datetime.now(datetime.UTC)
        lines = "".join(json.dumps({"user_id": user, "at": now.isoformat(timespec="seconds")}) + "\n" for user in new)
        name = f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}.jsonl"
        (output / FOLDER / name).write_bytes(lines.encode())
    return new


def without(table: pa.Table, users: frozenset[str]) -> pa.Table:
    """The rows whose ``user_id`` is none of these."""
    ids = table.column("user_id").cast(pa.string())
    return table.filter(pc.invert(pc.is_in(ids, value_set=pa.array(sorted(users), pa.string()))))


@dataclass(frozen=True, slots=True)
class WithoutUsers:
    """Any source without the rows of these users; they are counted."""

    source: Source
    users: frozenset[str]

    @property
    def settings(self) -> DataSettings:
        return self.source.settings

    def chunks(self) -> list[Chunk]:
        return self.source.chunks()

    def read(self, chunk: Chunk) -> Rows:
        rows = self.source.read(chunk)
        events = without(rows.events, self.users)
        if gone := rows.events.num_rows - events.num_rows:
            return replace(rows, events=events, left_out=rows.left_out | {REASON: gone})
        return rows

    def user_chunks(self) -> list[Chunk]:
        return self.source.user_chunks() if isinstance(self.source, HasUsers) else []

    def read_users(self, chunk: Chunk) -> pa.Table:
        assert isinstance(self.source, HasUsers)
        return without(self.source.read_users(chunk), self.users)

    def items(self) -> pa.Table | None:
        return self.source.items()

    def fingerprint(self) -> dict[str, Any]:
        digest = hashlib.sha256("\n".join(sorted(self.users)).encode()).hexdigest()
        return self.source.fingerprint() | {REASON: digest}

    def estimated_rows(self) -> int:
        return self.source.estimated_rows()
