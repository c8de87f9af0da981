"""The users of all sizes that have some, and MovieLens 100K as tables that others have enriched: overviews, facts and
posters beside the 1998 files' content.

    ratings.csv   user_id, movie_id, rating, unix_timestamp
    items.csv     movie_id, title, a flag a genre, year, overview, runtime, ...
    users.csv     user_id, age, sex, occupation
    posters/<movie_id>.jpg

Films that stand twice in ``items.csv`` keep their first row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from recsys_ray.base.errors import DataError
from recsys_ray.base.ragged import list_array, offsets
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.text import require
from recsys_ray.data.sources.users import UserColumns

if TYPE_CHECKING:
    import pandas as pd

RATINGS, ITEMS, USERS, POSTERS = "ratings.csv", "items.csv", "users.csv", "posters"
RATING_COLUMNS = ("user_id", "movie_id", "rating", "unix_timestamp")
NAMES = {"Children": "Children's", "FilmNoir": "Film-Noir", "SciFi": "Sci-Fi"}
"""Genres as the other sizes write them, where this one does otherwise."""
NUMBERS = ("runtime", "vote_average", "vote_count")


def is_here(directory: Location) -> bool:
    """Whether a directory holds this layout."""
    return (directory / RATINGS).exists() and (directory / ITEMS).exists()


def read_films(directory: Location) -> tuple[pa.Array, dict[str, pa.Array], list[tuple[str, pa.Array]], int]:
    """Ids as text, columns of the catalogue, numeric extras, and how many repeated rows were left out.

    Raises:
        DataError: a column is missing, or the file is no table.
    """
    import pandas as pd

    file = directory / ITEMS
    frame = _read(file)
    require(("movie_id", "title", "year", "overview"), list(frame.columns), str(file), "data.path")
    rows = len(frame)
    frame = frame.drop_duplicates("movie_id", keep="first", ignore_index=True)
    ids = pa.array(frame["movie_id"], pa.string())
    columns = {
        "title": _text(frame["title"]),
        "text": _text(frame["overview"]),
        "genres": _genres(frame),
        "year": pa.array(pd.to_numeric(frame["year"], errors="coerce"), pa.float64(), from_pandas=True).cast(
            pa.int32()
        ),
    }
    if (directory / POSTERS).names():
        there = set((directory / POSTERS).names())
        named = [f"{film}.jpg" for film in frame["movie_id"]]
        found = [(directory / POSTERS / name).url if name in there else None for name in named]
        columns["poster"] = pa.array(found, pa.string())
    extras = [(name, _numbers(frame[name], pa.float32())) for name in NUMBERS if name in frame.columns]
    return ids, columns, extras, rows - len(frame)


def _read(file: Location) -> pd.DataFrame:
    import pandas as pd

    try:
        with file.open() as stream:
            return pd.read_csv(stream, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a table of comma-separated values ({error})") from error


def _text(column: pd.Series) -> pa.Array:
    """Without outer blanks; null where nothing is left."""
    stripped = column.str.strip()
    return pa.array(stripped.where(stripped != "", None), pa.string(), from_pandas=True)


def _numbers(column: pd.Series, kind: pa.DataType) -> pa.Array:
    """Null where there is no number."""
    import pandas as pd

    return pa.array(pd.to_numeric(column, errors="coerce"), kind, from_pandas=True)


def _genres(frame: pd.DataFrame) -> pa.Array:
    """Lists of the names of the columns between title and year that hold a 1."""
    first, last = frame.columns.get_loc("title") + 1, frame.columns.get_loc("year")
    flags = frame.columns[first:last]
    names = pa.array([NAMES.get(name, name) for name in flags], pa.string())
    flags_IG = (frame[list(flags)] == "1").to_numpy() & ~np.array([name == "genre_unknown" for name in flags])
    return list_array(offsets(flags_IG.sum(axis=1)), names.take(pa.array(np.nonzero(flags_IG)[1])))


@dataclass(frozen=True, slots=True)
class UserFile:
    """Where a generation keeps its users and how."""

    name: str
    columns: tuple[str, ...]
    separator: str
    has_header: bool = False


USER_FILES = {
    "u.data": UserFile("u.user", ("user_id", "age", "sex", "occupation", "zip"), "|"),
    "ratings.dat": UserFile("users.dat", ("user_id", "sex", "age", "occupation", "zip"), "::"),
    RATINGS: UserFile(USERS, ("user_id", "age", "sex", "occupation"), ",", True),
}
"""By the file of the ratings."""
USER_COLUMNS = UserColumns(numbers=["age"], categories=["sex", "occupation"])


def user_file(directory: Location, ratings: str) -> Location:
    """The file with the users of a directory.

    Raises:
        DataError: this size has none.
    """
    file = directory / USER_FILES[ratings].name
    if not file.exists():
        raise DataError(f"{file}: no such file, so nothing is known of the users; set data.users=false")
    return file
