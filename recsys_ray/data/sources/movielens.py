"""MovieLens (Harper and Konstan 2015) in every published size, from a directory or downloaded with its checksum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.errors import DataError
from recsys_ray.base.ragged import list_array, offsets
from recsys_ray.base.storage import Location
from recsys_ray.data.config import DataSettings
from recsys_ray.data.prepare import values
from recsys_ray.data.prepare.files import (
    Chunk,
    byte_ranges,
    estimated_lines,
    header,
    place,
    read_lines,
    stamp,
)
from recsys_ray.data.prepare.text import TextFormat, parse_delimited, require, split_header
from recsys_ray.data.prepare.times import timestamps
from recsys_ray.data.sources import movielens_tables as tables
from recsys_ray.data.sources.archive import download_and_unpack
from recsys_ray.data.sources.base import Rows, catalogue, interactions, split
from recsys_ray.data.sources.users import to_users

BASE_URL = "https://files.grouplens.org/datasets/movielens"
MAX_TAGS = 20
LINKS = "links.csv"
Size = Literal["100k", "1m", "10m", "20m", "25m", "32m", "latest-small", "latest"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How one generation of the files is written."""

    ratings: str
    movies: str
    tags: str | None
    separator: str
    has_header: bool
    columns: tuple[str, str, str, str] = ("userId", "movieId", "rating", "timestamp")
    """User, film, rating and time: found by name where there is a header, else in this order."""


LAYOUTS = {
    "100k": Layout("u.data", "u.item", None, "\t", False),
    "1m": Layout("ratings.dat", "movies.dat", None, "::", False),
    "10m": Layout("ratings.dat", "movies.dat", "tags.dat", "::", False),
}
CSV = Layout("ratings.csv", "movies.csv", "tags.csv", ",", True)
TABLES = Layout(tables.RATINGS, tables.ITEMS, None, ",", True, tables.RATING_COLUMNS)
"""The smallest set as tables with overviews and posters; see ``movielens_tables``."""
FOLDERS = {"10m": "ml-10M100K"}
MOVIE_COLUMNS = ("movieId", "title", "genres")
TAG_COLUMNS = ("userId", "movieId", "tag", "timestamp")


class MovieLensSettings(DataSettings):
    """Titles, genres, years from the titles; text from the users' tags where the size has them."""

    source: Literal["movielens"]
    size: Size = "latest-small"
    """Which of the published sets."""
    path: str | None = None
    """Directory with the unpacked files, or the directory around it; by default they are downloaded."""
    users: bool = False
    """Take what 100k and 1m say of the users: age, sex, occupation."""
    cache_dir: str = "~/.cache/recsys_ray"
    """Where downloads are kept."""


@dataclass(frozen=True, slots=True)
class MovieLensSource:
    settings: MovieLensSettings

    @property
    def layout(self) -> Layout:
        path = self.settings.path
        if self.settings.size == "100k" and path is not None:
            around = Location.of(path)
            if tables.is_here(around) or tables.is_here(around / FOLDERS.get("100k", "ml-100k")):
                return TABLES
        return LAYOUTS.get(self.settings.size, CSV)

    def chunks(self) -> list[Chunk]:
        file = self._directory() / self.layout.ratings
        if not self.layout.has_header:
            return byte_ranges(file)
        names, first_byte = header(file, TextFormat(","))
        require(self.layout.columns, names, str(file), "data.size to what the directory holds")
        return byte_ranges(file, first_byte)

    def read(self, chunk: Chunk) -> Rows:
        layout, where, id_type = self.layout, place(chunk), self.settings.id_type
        names = header(Location(chunk.path), TextFormat(","))[0] if layout.has_header else layout.columns
        table = _rows(read_lines(chunk), names, layout.separator, chunk.path, layout.columns)
        user, movie, rating, time = layout.columns
        return Rows(
            interactions(
                values.ids(table.column(user), id_type, user, where, text=True),
                values.ids(table.column(movie), id_type, movie, where, text=True),
                values.ratings(table.column(rating), rating, where),
                timestamps(table.column(time), time, where, "s")[0],
            )
        )

    def items(self) -> pa.Table | None:
        directory = self._directory()
        if self.layout == TABLES:
            ids, columns, extras, _ = tables.read_films(directory)
            where = values.Place(str(directory / tables.ITEMS))
            return catalogue(values.ids(ids, self.settings.id_type, "movie_id", where, text=True), columns, extras)
        movies = _movies_100k(directory) if self.settings.size == "100k" else _movies(directory, self.layout)
        where = values.Place(str(directory / self.layout.movies))
        item_ids = values.ids(movies.column("movieId"), self.settings.id_type, "movieId", where, text=True)
        columns = {
            "title": movies.column("title").combine_chunks(),
            "genres": movies.column("genres").combine_chunks(),
            "year": years(movies.column("title").combine_chunks()),
        }
        if self.layout.tags and (directory / self.layout.tags).exists():
            columns["text"] = _tag_text(directory / self.layout.tags, movies.column("movieId"), self.layout)
        links = directory / LINKS
        return catalogue(item_ids, columns, _linked(links, movies.column("movieId")) if links.exists() else ())

    def user_chunks(self) -> list[Chunk]:
        if not self.settings.users:
            return []
        file = tables.user_file(self._directory(), self.layout.ratings)
        return [Chunk(file.url, 0, file.size())]

    def read_users(self, chunk: Chunk) -> pa.Table:
        """user_id, age, sex and occupation of everybody."""
        file, form = Location(chunk.path), tables.USER_FILES[self.layout.ratings]
        table = _whole(file, form.columns, form.separator, form.has_header)
        return to_users(table, tables.USER_COLUMNS, self.settings.id_type, values.Place(str(file)), text=True)

    def fingerprint(self) -> dict[str, Any]:
        directory = self._directory()
        names = [self.layout.ratings, self.layout.movies, self.layout.tags, LINKS]
        names += [tables.USER_FILES[self.layout.ratings].name] if self.settings.users else []
        files = [directory / name for name in names if name]
        return {"files": [stamp(file) for file in files if file.exists()]}

    def estimated_rows(self) -> int:
        return estimated_lines([self._directory() / self.layout.ratings])

    def _directory(self) -> Location:
        size = self.settings.size
        folder = FOLDERS.get(size, f"ml-{size}")
        if self.settings.path is None:
            around = Location.of(self.settings.cache_dir)
            if not (around / folder / self.layout.ratings).exists():
                download_and_unpack(f"{BASE_URL}/ml-{size}.zip", around, "data.path")
        else:
            around = Location.of(self.settings.path)
        for directory in (around, around / folder):
            if (directory / self.layout.ratings).exists():
                for name in (self.layout.ratings, self.layout.movies):
                    if not (directory / name).exists() or (directory / name).size() == 0:
                        raise DataError(f"{directory / name}: the file is missing or empty")
                return directory
        raise DataError(
            f"{around}: no {self.layout.ratings} here nor in {folder}/; set data.path to the unpacked MovieLens "
            f"{size} directory, or data.size to what it holds"
        )


def years(titles: pa.Array) -> pa.Array:
    """The year in brackets that ends a title, null where there is none."""
    found = pc.extract_regex(titles, r"\((?P<year>[0-9]{4})\)\s*$")
    return pc.struct_field(found, "year").cast(pa.int32())


def _rows(
    data: bytes, names: Sequence[str], separator: str, where: str, columns: Sequence[str] | None = None
) -> pa.Table:
    if separator == "::":
        data, separator = data.replace(b"::", b"\t"), "\t"
    return parse_delimited(data, names, TextFormat(separator, quotes=separator == ","), where, columns)


def _whole(file: Location, columns: Sequence[str], separator: str, has_header: bool) -> pa.Table:
    """These columns of a whole file: by name where there is a header, else in their order."""
    data = _utf8(file.read_bytes())
    if not has_header:
        return _rows(data, columns, separator, str(file))
    line, _, body = data.partition(b"\n")
    names = split_header(line, TextFormat(separator), str(file))
    require(columns, names, str(file), "data.size to what the directory holds")
    return _rows(body, names, separator, str(file), columns)


def _utf8(data: bytes) -> bytes:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1").encode("utf-8")
    return data


def _movies(directory: Location, layout: Layout) -> pa.Table:
    file = directory / layout.movies
    table = _whole(file, MOVIE_COLUMNS, layout.separator, layout.has_header)
    text = table.column("genres").combine_chunks()
    listed = pc.if_else(pc.equal(text, "(no genres listed)"), "", text)
    return table.set_column(2, "genres", split(listed, "|"))


def _movies_100k(directory: Location) -> pa.Table:
    genres_file = directory / "u.genre"
    genres = [line.split("|")[0] for line in _utf8(genres_file.read_bytes()).decode().splitlines() if "|" in line]
    names = ["id", "title", "release", "video", "url", *(f"genre_{number}" for number in range(len(genres)))]
    file = directory / "u.item"
    table = parse_delimited(_utf8(file.read_bytes()), names, TextFormat("|", quotes=False), str(file))
    flags_IG = np.stack([table.column(name).to_numpy() == "1" for name in names[5:]], axis=1)
    if genres and genres[0] == "unknown":
        flags_IG[:, 0] = False
    columns = np.nonzero(flags_IG)[1]
    lists = list_array(offsets(flags_IG.sum(axis=1)), pa.array(genres, pa.string()).take(pa.array(columns)))
    return pa.table({"movieId": table.column("id"), "title": table.column("title"), "genres": lists})


def _linked(file: Location, movie_ids: pa.ChunkedArray) -> list[tuple[str, pa.Array]]:
    """The films' ids elsewhere, as these places write them: tt0114709 of IMDb, 862 of TMDB."""
    table = _whole(file, ("movieId", "imdbId", "tmdbId"), ",", has_header=True)
    places = pc.index_in(movie_ids.combine_chunks(), value_set=table.column("movieId").combine_chunks())
    imdb, tmdb = (table.column(name).combine_chunks().take(places) for name in ("imdbId", "tmdbId"))
    nothing = pa.scalar(None, pa.string())
    imdb = pc.if_else(pc.equal(imdb, ""), nothing, pc.binary_join_element_wise("tt", imdb, ""))
    return [("imdb_id", imdb), ("tmdb_id", pc.if_else(pc.equal(tmdb, ""), nothing, tmdb))]


def _tag_text(file: Location, movie_ids: pa.ChunkedArray, layout: Layout) -> pa.Array:
    """The most frequent tags of each movie, most frequent first, equal ones by name; null where nobody tagged."""
    import pandas as pd

    table = _whole(file, TAG_COLUMNS, layout.separator, layout.has_header)
    frame = pd.DataFrame(
        {
            "movie": table.column("movieId").to_pandas(),
            "tag": pc.utf8_lower(pc.utf8_trim_whitespace(table.column("tag"))).to_pandas(),
        }
    )
    counts = frame[frame["tag"] != ""].groupby(["movie", "tag"], sort=True).size().reset_index(name="count")
    counts = counts.sort_values(["movie", "count"], ascending=[True, False], kind="stable")
    best = counts[counts.groupby("movie").cumcount() < MAX_TAGS]
    joined = best.groupby("movie")["tag"].agg(", ".join)
    return pa.array(joined.reindex(movie_ids.to_pandas()).to_list(), pa.string(), from_pandas=True)
