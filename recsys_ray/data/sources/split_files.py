"""A directory with train.txt, test.txt and optionally valid.txt of ``user item item ...`` lines (He et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.data.config import DataSettings
from recsys_ray.data.sources.token_lines import TokenLinesSource

PART_FILES = {"train.txt": schema.TRAIN, "valid.txt": schema.VALID, "test.txt": schema.TEST}


class LightGCNSettings(DataSettings):
    """Pre-split files as published with LightGCN. Use ``split: {kind: given}`` to keep their parts."""

    source: Literal["lightgcn"]
    path: str = Field(min_length=1)
    """Directory or URL that holds train.txt, test.txt and perhaps valid.txt."""

    @property
    def gives_parts(self) -> bool:
        return True


@dataclass(frozen=True)
class LightGCNSource(TokenLinesSource):
    settings: LightGCNSettings

    def files(self) -> dict[Location, int]:
        directory = Location.of(self.settings.path)
        present = set(directory.names())
        for name in ("train.txt", "test.txt"):
            if name not in present:
                raise DataError(
                    f"{directory}: {name} is missing; set data.path to a directory with train.txt and test.txt"
                )
        files = {directory / name: part for name, part in PART_FILES.items() if name in present}
        for file in files:
            if file.size() == 0:
                raise DataError(f"{file}: the file is empty")
        return files
