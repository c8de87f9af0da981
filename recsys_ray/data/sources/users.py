"""The table of users: what is known of people beside what they did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from recsys_ray.base.errors import DataError
from recsys_ray.base.types import Settings
from recsys_ray.data.config import IdType
from recsys_ray.data.prepare import values
from recsys_ray.data.prepare.files import Chunk
from recsys_ray.data.prepare.listing import expand
from recsys_ray.data.prepare.tables import read_table, table_chunks
from recsys_ray.data.prepare.text import TextFormat


class UserColumns(Settings):
    """Which column of the table of users is what."""

    user_id: str = "user_id"
    """As in the interactions; a different value in every row."""
    numbers: list[str] = Field(default_factory=list)
    """Columns of numbers, such as an age; empty where unknown."""
    categories: list[str] = Field(default_factory=list)
    """Columns of names of kinds, such as a country; empty where unknown."""

    @property
    def names(self) -> list[str]:
        return [self.user_id, *self.numbers, *self.categories]

    @property
    def attributes(self) -> pa.Schema:
        """Of the columns beside the id."""
        numbers = [(name, pa.float32()) for name in self.numbers]
        return pa.schema([*numbers, *((name, pa.string()) for name in self.categories)])

    @model_validator(mode="after")
    def _are_different(self) -> UserColumns:
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"a column has two roles: {', '.join(self.names)}")
        return self


@runtime_checkable
class HasUsers(Protocol):
    """A source that may come with a table of users."""

    def user_chunks(self) -> list[Chunk]:
        """All pieces of it; none without."""
        ...

    def read_users(self, chunk: Chunk) -> pa.Table:
        """user_id and the attributes, in any order."""
        ...


@dataclass(frozen=True, slots=True)
class UserFiles:
    """Such a table in files."""

    path: str
    columns: UserColumns
    id_type: IdType
    form: TextFormat

    def chunks(self) -> list[Chunk]:
        found = [
            table_chunks(file, self.form, self.columns.names, "data.user_columns")
            for file in expand(self.path, setting="users")
        ]
        return [chunk for chunks in found for chunk in chunks]

    def read(self, chunk: Chunk) -> pa.Table:
        read = read_table(chunk, self.form, self.columns.names, "data.user_columns")
        return to_users(read.table, self.columns, self.id_type, read.where, text=read.untyped)


def to_users(table: pa.Table, columns: UserColumns, id_type: IdType, where: values.Place, *, text: bool) -> pa.Table:
    """user_id and the attributes, from a table that has these columns.

    Raises:
        DataError: an id is missing or wrong, a number is none, a category is no text.
    """
    arrays = [values.ids(table.column(columns.user_id), id_type, columns.user_id, where, text=text)]
    arrays += [_numbers(table.column(name), name, where) for name in columns.numbers]
    arrays += [_kinds(table.column(name), name, where) for name in columns.categories]
    fields = [pa.field("user_id", arrays[0].type), *columns.attributes]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _numbers(column: pa.ChunkedArray, name: str, where: values.Place) -> pa.Array:
    import pandas as pd

    given = column.combine_chunks()
    numbers = pd.to_numeric(given.to_pandas(), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    empty = pc.is_null(given).to_numpy(zero_copy_only=False)
    if pa.types.is_string(given.type):
        empty |= pc.fill_null(pc.equal(pc.utf8_trim_whitespace(given), ""), True).to_numpy(zero_copy_only=False)
    bad = ~np.isfinite(numbers) & ~empty
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{where.file}: column {name!r}, {where.row(row)}: {given[row].as_py()!r} is not a number; "
            "name the column in data.user_columns.categories"
        )
    return pa.array(numbers.astype(np.float32), mask=empty)


def _kinds(column: pa.ChunkedArray, name: str, where: values.Place) -> pa.Array:
    try:
        text = pc.utf8_trim_whitespace(column.combine_chunks().cast(pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{where.file}: column {name!r} must hold names of kinds, found {column.type}") from error
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
