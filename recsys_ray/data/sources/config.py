"""``data:`` of a configuration: one settings class per source, told apart by ``source``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recsys_ray.data.sources.amazon import AmazonSettings
from recsys_ray.data.sources.book_crossing import BookCrossingSettings
from recsys_ray.data.sources.movielens import MovieLensSettings
from recsys_ray.data.sources.sequences import SequencesSettings
from recsys_ray.data.sources.split_files import LightGCNSettings
from recsys_ray.data.sources.table_files import TableSettings
from recsys_ray.data.synthetic.source import SyntheticSettings

DataConfig = Annotated[
    AmazonSettings
    | BookCrossingSettings
    | MovieLensSettings
    | LightGCNSettings
    | SequencesSettings
    | TableSettings
    | SyntheticSettings,
    Field(discriminator="source"),
]
