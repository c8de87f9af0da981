"""Any source whose files may hold anything: what libraries raise for it is one line that names the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from recsys_ray.data.config import DataSettings
from recsys_ray.data.prepare.files import Chunk
from recsys_ray.data.prepare.guard import reading
from recsys_ray.data.sources.base import Rows, Source
from recsys_ray.data.sources.users import HasUsers


@dataclass(frozen=True, slots=True)
class Guarded:
    """``source``, every method of which raises errors of ours alone."""

    source: Source

    @property
    def settings(self) -> DataSettings:
        return self.source.settings

    def chunks(self) -> list[Chunk]:
        with reading(self._where()):
            return self.source.chunks()

    def read(self, chunk: Chunk) -> Rows:
        with reading(chunk.path):
            return self.source.read(chunk)

    def items(self) -> pa.Table | None:
        with reading(self._where("items")):
            return self.source.items()

    def user_chunks(self) -> list[Chunk]:
        with reading(self._where("users")):
            return self.source.user_chunks() if isinstance(self.source, HasUsers) else []

    def read_users(self, chunk: Chunk) -> pa.Table:
        assert isinstance(self.source, HasUsers)  # or there would be no chunk
        with reading(chunk.path):
            return self.source.read_users(chunk)

    def fingerprint(self) -> dict[str, Any]:
        with reading(self._where()):
            return self.source.fingerprint()

    def estimated_rows(self) -> int:
        with reading(self._where()):
            return self.source.estimated_rows()

    def _where(self, setting: str = "path") -> str:
        found = getattr(self.settings, setting, None) or getattr(self.settings, "path", None)
        return str(found) if isinstance(found, str) else f"data.{setting}"
