"""One user a line, items in time order: ``user item item ...``, the layout of most sequential papers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from recsys_ray.data.common import DataSettings
from recsys_ray.data.files import TEXT_SUFFIXES, Chunk, byte_ranges, expand, stamp
from recsys_ray.data.sources.wordlines import CHUNK_BYTES, estimated_interactions, read_word_lines
from recsys_ray.storage import Location


class SequencesSettings(DataSettings):
    """Timestamps are 0: the order of the file is the order in time."""

    source: Literal["sequences"]
    path: str = Field(min_length=1)
    """File, directory of text files, or glob; local or a URL."""


@dataclass(frozen=True, slots=True)
class SequencesSource:
    settings: SequencesSettings

    def chunks(self) -> list[Chunk]:
        return [chunk for file in self._files() for chunk in byte_ranges(file, size=CHUNK_BYTES)]

    def read(self, chunk: Chunk) -> pa.Table:
        return read_word_lines(chunk, self.settings.id_type)

    def items(self) -> pa.Table | None:
        return None

    def fingerprint(self) -> dict[str, Any]:
        return {"files": [stamp(file) for file in self._files()]}

    def estimated_rows(self) -> int:
        return estimated_interactions(self._files())

    def _files(self) -> list[Location]:
        return expand(self.settings.path, TEXT_SUFFIXES)
