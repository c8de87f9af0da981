"""One user a line, items in time order: ``user item item ...``, the layout of most sequential papers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from recsys_ray.base import schema
from recsys_ray.base.storage import Location
from recsys_ray.data.config import DataSettings
from recsys_ray.data.prepare.listing import TEXT_SUFFIXES, expand
from recsys_ray.data.sources.token_lines import TokenLinesSource


class SequencesSettings(DataSettings):
    """Timestamps are 0: the order of the file is the order in time."""

    source: Literal["sequences"]
    path: str = Field(min_length=1)
    """File, directory of text files, or glob; local or a URL."""


@dataclass(frozen=True)
class SequencesSource(TokenLinesSource):
    settings: SequencesSettings

    def files(self) -> dict[Location, int]:
        return dict.fromkeys(expand(self.settings.path, TEXT_SUFFIXES), schema.TRAIN)
