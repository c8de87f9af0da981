"""Where raw data comes from: one file, one settings class and one source per kind."""

from __future__ import annotations

from recsys_ray.base.storage import Location
from recsys_ray.data.config import DataSettings
from recsys_ray.data.sources.amazon import AmazonSettings, AmazonSource
from recsys_ray.data.sources.base import Source
from recsys_ray.data.sources.book_crossing import BookCrossingSettings, BookCrossingSource
from recsys_ray.data.sources.feedback import WithFeedback
from recsys_ray.data.sources.guarded import Guarded
from recsys_ray.data.sources.movielens import MovieLensSettings, MovieLensSource
from recsys_ray.data.sources.sequences import SequencesSettings, SequencesSource
from recsys_ray.data.sources.split_files import LightGCNSettings, LightGCNSource
from recsys_ray.data.sources.table_files import TableSettings, TableSource
from recsys_ray.data.synthetic.source import SyntheticSettings, SyntheticSource

__all__ = ["Source", "open_source"]


def open_source(settings: DataSettings, seed: int = 0) -> Source:
    """The source that settings of this kind describe. Reads nothing yet; ``seed`` is for made-up worlds."""
    source = Guarded(_source(settings, seed))
    return source if settings.feedback is None else Guarded(WithFeedback(source, Location.of(settings.feedback)))


def _source(settings: DataSettings, seed: int) -> Source:
    match settings:
        case AmazonSettings():
            return AmazonSource(settings)
        case BookCrossingSettings():
            return BookCrossingSource(settings)
        case MovieLensSettings():
            return MovieLensSource(settings)
        case LightGCNSettings():
            return LightGCNSource(settings)
        case SequencesSettings():
            return SequencesSource(settings)
        case TableSettings():
            return TableSource(settings)
        case SyntheticSettings():
            return SyntheticSource(settings, seed)
    raise TypeError(f"no source for {type(settings).__name__}")
