"""Book-Crossing (Ziegler, McNee, Konstan and Lausen 2005), as published and in its later copies with commas."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.data.config import DataSettings, IdType
from recsys_ray.data.prepare.files import Chunk, stamp
from recsys_ray.data.prepare.packed import open_text
from recsys_ray.data.prepare.text import TextFormat, parse_delimited, require, split_header
from recsys_ray.data.prepare.values import Place
from recsys_ray.data.sources.base import Rows, catalogue
from recsys_ray.data.sources.columns import Columns
from recsys_ray.data.sources.table_files import TableSource, as_table
from recsys_ray.data.sources.users import UserColumns, to_users

NAMES = (("BX-Book-Ratings.csv", "BX-Books.csv"), ("Ratings.csv", "Books.csv"))
USER_FILES = ("BX-Users.csv", "Users.csv")
COLUMNS = Columns(user_id="User-ID", item_id="ISBN", rating="Book-Rating")
BOOK_COLUMNS = ("ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher", "Image-URL-L")
YEARS = (1000, 2100)
"""Others in the file are mistakes, 0 foremost."""


class BookCrossingSettings(DataSettings):
    """Ratings from 1 to 10, and 0 for a book that was read but not rated. No times."""

    source: Literal["book_crossing"]
    path: str = Field(min_length=1)
    """Directory with BX-Book-Ratings.csv and BX-Books.csv, or with Ratings.csv and Books.csv."""
    unrated: float | None = Field(default=None, gt=0)
    """The rating that a book without one counts as; null: it is filtered as seen and teaches nothing."""
    users: bool = False
    """Take the users' ages and countries, from BX-Users.csv or Users.csv."""
    id_type: IdType = "string"
    unknown_items: Literal["error", "drop", "add"] = "add"


@dataclass(frozen=True)
class BookCrossingSource:
    settings: BookCrossingSettings

    @cached_property
    def _files(self) -> tuple[Location, Location]:
        directory = Location.of(self.settings.path)
        present = set(directory.names())
        for ratings, books in NAMES:
            if ratings in present and books in present:
                return directory / ratings, directory / books
        wanted = " or ".join(f"{ratings} and {books}" for ratings, books in NAMES)
        raise DataError(f"{directory}: needs {wanted}; set data.path")

    @cached_property
    def _table(self) -> TableSource:
        file = self._files[0]
        form = {"delimiter": _delimiter(file), "escape": "\\", "encoding": "latin-1", "columns": COLUMNS}
        return as_table(self.settings, path=file.url, **form)

    def chunks(self) -> list[Chunk]:
        return self._table.chunks()

    def read(self, chunk: Chunk) -> Rows:
        rows = self._table.read(chunk)
        events = rows.events
        ratings_E, parts_E = events.column("rating").to_numpy(), events.column("part").to_numpy()
        unrated_E = ratings_E == 0
        if self.settings.unrated is None:
            parts_E = np.where(unrated_E, parts_E | schema.SEEN_ONLY, parts_E).astype(np.uint8)
        else:
            ratings_E = np.where(unrated_E, self.settings.unrated, ratings_E).astype(np.float32)
        changed = {"item_id": _isbn(events.column("item_id")), "rating": pa.array(ratings_E), "part": pa.array(parts_E)}
        for name, column in changed.items():
            events = events.set_column(events.schema.get_field_index(name), name, column)
        return replace(rows, events=events)

    def items(self) -> pa.Table | None:
        file = self._files[1]
        body, names, form = _read_whole(file)
        require(BOOK_COLUMNS, names, str(file), "data.path")
        books = parse_delimited(body, names, form, str(file))
        isbn = _isbn(books.column("ISBN"))
        first = pa.array(np.unique(isbn.to_numpy(zero_copy_only=False).astype(str), return_index=True)[1])
        books, isbn = books.take(first), isbn.take(first)
        text = pc.binary_join_element_wise(
            _clean(books.column("Book-Title")),
            _clean(books.column("Book-Author")),
            _clean(books.column("Publisher")),
            " ",
        )
        columns = {
            "title": _clean(books.column("Book-Title")),
            "text": text,
            "genres": pa.array([[]] * len(isbn), pa.list_(pa.string())),
            "year": _years(books.column("Year-Of-Publication")),
            "poster": _clean(books.column("Image-URL-L")),
        }
        return catalogue(isbn, columns)

    def user_chunks(self) -> list[Chunk]:
        if not self.settings.users:
            return []
        directory = Location.of(self.settings.path)
        names = [name for name in USER_FILES if (directory / name).exists()]
        if not names:
            raise DataError(f"{directory}: needs {' or '.join(USER_FILES)}; set data.users=false")
        file = directory / names[0]
        return [Chunk(file.url, 0, file.size())]

    def read_users(self, chunk: Chunk) -> pa.Table:
        """Age, and the country that ends a location."""
        file = Location(chunk.path)
        body, names, form = _read_whole(file)
        require(("User-ID", "Location", "Age"), names, str(file), "data.path")
        users = parse_delimited(body, names, form, str(file))
        age = users.column("Age").combine_chunks()
        table = pa.table(
            {
                "user_id": users.column("User-ID"),
                "age": pc.if_else(pc.match_substring_regex(age, "^[0-9.]+$"), age, ""),
                "country": pc.struct_field(
                    pc.extract_regex(users.column("Location"), "(?P<country>[^,]*)$"), "country"
                ),
            }
        )
        columns = UserColumns(numbers=["age"], categories=["country"])
        return to_users(table, columns, self.settings.id_type, Place(str(file)), text=True)

    def fingerprint(self) -> dict[str, Any]:
        users = [Location(chunk.path) for chunk in self.user_chunks()]
        return {"files": [stamp(file) for file in (*self._files, *users)]}

    def estimated_rows(self) -> int:
        return self._table.estimated_rows()


def _read_whole(file: Location) -> tuple[bytes, list[str], TextFormat]:
    """The rows, the names of their columns, and how they are written."""
    with open_text(file) as stream:
        data = stream.read()
    form = TextFormat(_delimiter(file), True, "\\", _encoding(data))
    line, _, body = data.partition(b"\n")
    return body, split_header(line, form, str(file)), form


def _delimiter(file: Location) -> str:
    with open_text(file) as stream:
        return ";" if b";" in stream.readline() else ","


def _encoding(data: bytes) -> str:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def _isbn(column: pa.ChunkedArray) -> pa.Array:
    """As published, which is with blanks around it and a small check digit x in places, made one."""
    return pc.utf8_upper(pc.utf8_trim_whitespace(column.combine_chunks()))


def _clean(column: pa.ChunkedArray) -> pa.Array:
    return pc.utf8_trim_whitespace(pc.replace_substring(column.combine_chunks(), "&amp;", "&"))


def _years(column: pa.ChunkedArray) -> pa.Array:
    text = pc.utf8_trim_whitespace(column.combine_chunks())
    years = pc.if_else(pc.match_substring_regex(text, "^[0-9]{4}$"), text, pa.scalar(None, pa.string())).cast(
        pa.int32()
    )
    sound = pc.and_(pc.greater_equal(years, YEARS[0]), pc.less_equal(years, YEARS[1]))
    return pc.if_else(sound, years, pa.scalar(None, pa.int32()))
