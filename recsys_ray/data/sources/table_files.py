"""Interactions and catalogue as Parquet or delimited text: a file, a directory, or a glob, local or a URL."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from recsys_ray.base import schema
from recsys_ray.base.storage import Location
from recsys_ray.data.config import DataSettings
from recsys_ray.data.prepare.files import Chunk, estimated_lines, is_parquet, stamp
from recsys_ray.data.prepare.listing import expand, find, told
from recsys_ray.data.prepare.tables import num_rows, read_table, table_chunks
from recsys_ray.data.prepare.text import TextFormat
from recsys_ray.data.sources.base import Rows
from recsys_ray.data.sources.catalogue import read_catalogue
from recsys_ray.data.sources.columns import ColumnSettings, to_interactions
from recsys_ray.data.sources.users import UserFiles


class TableSettings(ColumnSettings):
    """Parquet (.parquet), delimited text (.csv, .tsv) with a header line, or JSON lines (.jsonl, .json); text may be
    packed (.gz, .bz2, .xz, .zst, .zip), and is then read by one process."""

    source: Literal["table"]
    path: str | None = None
    """Interactions: file, directory or glob; local or any address fsspec knows."""
    train: str | None = None
    """Instead of path, for split.kind=given: the training interactions."""
    valid: str | None = None
    """Validation interactions, beside train."""
    test: str | None = None
    """Test interactions, beside train."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """Field separator of text files; by default tab for .tsv and .tab, else a comma."""
    quotes: bool | None = None
    """Whether a field of a text file may stand in double quotes; by default unless fields are separated by tabs. A
    line of interactions and users is a row, quotes or not. A field of the catalogue may run over lines; where these
    could be rows of their own, it is read so with true alone."""
    escape: str | None = Field(default=None, min_length=1, max_length=1)
    """What stands before a double quote inside a quoted field, where that is not a second quote."""
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    """How characters are written in text files."""
    column_names: list[str] | None = None
    """Names of the columns of interactions in text files that have no header line."""
    items: str | None = None
    """Catalogue: file, directory or glob."""
    users: str | None = None
    """Table of users: file, directory or glob. All of them get recommendations, also those without interactions."""

    @property
    def gives_parts(self) -> bool:
        return self.train is not None and self.test is not None

    @property
    def text_format(self) -> TextFormat:
        """Of the interactions."""
        names = None if self.column_names is None else tuple(self.column_names)
        return TextFormat(self.delimiter, self.quotes, self.escape, self.encoding, names)

    @model_validator(mode="after")
    def _one_way_in(self) -> TableSettings:
        if (self.path is None) == (self.train is None):
            raise ValueError("set either path, or train and test (and valid)")
        if (self.valid or self.test) and self.train is None:
            raise ValueError("valid and test go with train, not with path")
        return self


def as_table(settings: DataSettings, **layout: Any) -> TableSource:
    """Files of another source as a table of this layout, with the settings that all sources share."""
    shared = settings.model_dump(include=set(DataSettings.model_fields), exclude={"feedback"})
    return TableSource(TableSettings.model_validate(shared | layout | {"source": "table"}))


@dataclass(frozen=True)
class TableSource:
    settings: TableSettings

    @cached_property
    def files(self) -> list[tuple[Location, int]]:
        """Every file with the part it belongs to, in reading order."""
        inputs = {"path": schema.TRAIN, "train": schema.TRAIN, "valid": schema.VALID, "test": schema.TEST}
        found = []
        for name, part in inputs.items():
            if (path := getattr(self.settings, name)) is not None:
                found += [(file, part) for file in expand(path, setting=name)]
        return found

    def notes(self) -> list[str]:
        """Files beside the chosen ones that are not read."""
        settings = self.settings
        inputs = {name: getattr(settings, name) for name in ("path", "train", "valid", "test", "items", "users")}
        lines = [told(find(path, setting=name), name) for name, path in inputs.items() if path is not None]
        return [line for line in lines if line is not None]

    def chunks(self) -> list[Chunk]:
        form, wanted = self.settings.text_format, self.settings.columns.names
        found = [table_chunks(file, form, wanted, "data.columns", part) for file, part in self.files]
        return [chunk for chunks in found for chunk in chunks]

    def read(self, chunk: Chunk) -> Rows:
        settings = self.settings
        lenient = settings.bad_rows == "drop"
        read = read_table(chunk, settings.text_format, settings.columns.names, "data.columns", lenient=lenient)
        rows = to_interactions(read.table, settings, read.where, text=read.untyped, part=chunk.part)
        return rows.without(len(read.bad), f"{chunk.path}: {read.bad[0]}") if read.bad else rows

    def user_chunks(self) -> list[Chunk]:
        return [] if self._users is None else self._users.chunks()

    def read_users(self, chunk: Chunk) -> pa.Table:
        assert self._users is not None  # or there would be no chunk
        return self._users.read(chunk)

    @property
    def _users(self) -> UserFiles | None:
        settings = self.settings
        if settings.users is None:
            return None
        return UserFiles(
            settings.users, settings.user_columns, settings.id_type, replace(settings.text_format, names=None)
        )

    def items(self) -> pa.Table | None:
        settings = self.settings
        if settings.items is None:
            return None
        return read_catalogue(
            expand(settings.items, setting="items"),
            settings.item_columns,
            settings.genre_separator,
            settings.id_type,
            replace(settings.text_format, names=None),
        )

    def fingerprint(self) -> dict[str, Any]:
        files = [file for file, _ in self.files]
        if self.settings.items is not None:
            files += expand(self.settings.items, setting="items")
        if self.settings.users is not None:
            files += expand(self.settings.users, setting="users")
        return {"files": [stamp(file) for file in files]}

    def estimated_rows(self) -> int:
        files = [file for file, _ in self.files]
        text = [file for file in files if not is_parquet(file)]
        rows: int = sum(num_rows(file) for file in files if is_parquet(file))
        return rows + (estimated_lines(text) if text else 0)
