"""A directory with train.txt, test.txt and optionally valid.txt of ``user item item ...`` lines (He et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from recsys_ray import schema
from recsys_ray.data.common import DataSettings
from recsys_ray.data.files import Chunk, byte_ranges, stamp
from recsys_ray.data.sources.wordlines import CHUNK_BYTES, estimated_interactions, read_word_lines
from recsys_ray.errors import DataError
from recsys_ray.storage import Location

PART_FILES = {"train.txt": schema.TRAIN, "valid.txt": schema.VALID, "test.txt": schema.TEST}


class LightGCNSettings(DataSettings):
    """Pre-split files as published with LightGCN. Use ``split: {kind: given}`` to keep their parts."""

    source: Literal["lightgcn"]
    path: str = Field(min_length=1)
    """Directory or URL that holds train.txt, test.txt and perhaps valid.txt."""

    @property
    def gives_parts(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class LightGCNSource:
    settings: LightGCNSettings

    def chunks(self) -> list[Chunk]:
        return [
            chunk for file in self._files() for chunk in byte_ranges(file, part=PART_FILES[file.name], size=CHUNK_BYTES)
        ]

    def read(self, chunk: Chunk) -> pa.Table:
        return read_word_lines(chunk, self.settings.id_type)

    def items(self) -> pa.Table | None:
        return None

    def fingerprint(self) -> dict[str, Any]:
        return {"files": [stamp(file) for file in self._files()]}

    def estimated_rows(self) -> int:
        return estimated_interactions(self._files())

    def _files(self) -> list[Location]:
        directory = Location.of(self.settings.path)
        present = set(directory.names())
        for name in ("train.txt", "test.txt"):
            if name not in present:
                raise DataError(
                    f"{directory}: {name} is missing; set data.path to a directory with train.txt and test.txt"
                )
        files = [directory / name for name in PART_FILES if name in present]
        for file in files:
            if file.size() == 0:
                raise DataError(f"{file}: the file is empty")
        return files
