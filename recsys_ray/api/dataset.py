"""Interactions and catalogue in memory, prepared as a run prepares its files: the same rows, order and numbers."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter, ValidationError

from recsys_ray.api.frames import Kind, kind_of, to_arrow, to_kind
from recsys_ray.api.recommender import Recommender, fit_prepared
from recsys_ray.base import schema
from recsys_ray.base.errors import ConfigError, DataError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import FloatArray, ItemContent
from recsys_ray.data.config import SplitConfig
from recsys_ray.data.prepare.driver import prepare
from recsys_ray.data.prepare.tables import column_names
from recsys_ray.data.prepared import Prepared
from recsys_ray.data.sources.base import Source
from recsys_ray.data.sources.frame import FrameSettings, FrameSource
from recsys_ray.data.sources.table_files import TableSettings, TableSource
from recsys_ray.models import Model

OPTIONAL = ("rating", "timestamp")
ITEM_OPTIONAL = ("title", "genres", "year", "poster")
PARTS = tuple(schema.PARTS)


class Dataset:
    """Interactions of users with items, and what is known of the items.

    Columns are found by name: ``user_id`` and ``item_id`` (integers or text) must be there; ``rating`` (a number) and
    ``timestamp`` (seconds, milliseconds, dates or times) are used when they are. Of the items ``item_id`` must be
    there; ``title``, ``text``, ``genres`` (a list, or one text split at "|"), ``year`` and ``poster`` are used when
    they are, and so is every further numeric column. Other names are given with ``columns`` and ``item_columns``.

    Args:
        interactions: one event a row: a DataFrame of pandas or polars, an Arrow table, or the path of a CSV or Parquet
            file. What a model gives comes back in the same kind of frame (for a path, pandas).
        items: the catalogue, in any of these kinds; without it, it is the items of the interactions.
        columns: your names, ``{"user_id": "customer", "item_id": "sku"}``.
        item_columns: the same of the catalogue, ``{"item_id": "movieId", "text": ["overview"]}``.
        users: what is known of the users, in any of these kinds, with a column ``user_id``; all of them are users, also
            those without interactions.
        user_columns: ``{"user_id": ..., "numbers": [...], "categories": [...]}``; of a frame by default every column of
            numbers and every column of text. Of a path, columns that are not named here are not used.
        item_vectors: (rows of items, D) one vector for each item, for models that compare contents; NaN or zero where
            there is none.
        seed: of random splits.
        data: further keys of the section ``data`` of a configuration: ``filters={"min_rating": 3.5}``,
            ``id_type="string"``, ``unknown_items="drop"``.

    Raises:
        DataError: a column is missing, or holds what it may not.
        ConfigError: there is no such key, or its value is impossible.

    >>> import pandas as pd
    >>> import recsys_ray as rr
    >>> rr.Dataset(pd.DataFrame({"user_id": ["ann", "ann", "bob"], "item_id": [1, 2, 2]}))
    Dataset(2 users, 2 items, 3 interactions)
    """

    def __init__(
        self,
        interactions: Any,
        items: Any = None,
        *,
        columns: Mapping[str, str] | None = None,
        item_columns: Mapping[str, Any] | None = None,
        users: Any = None,
        user_columns: Mapping[str, Any] | None = None,
        item_vectors: npt.NDArray[np.floating] | None = None,
        seed: int = 0,
        **data: Any,
    ) -> None:
        self.kind: Kind = kind_of(interactions) or "pandas"
        self.seed = seed
        self.parts: tuple[str, ...] = PARTS
        tables = interactions, items, users
        roles = dict(columns or {}), dict(item_columns or {}), dict(user_columns or {})
        if kind_of(interactions) is None and isinstance(interactions, str | PathLike):
            self._source = _of_paths(tables, roles, data)
        else:
            self._source = _of_frames(tables, roles, data)
        self._vectors = None if item_vectors is None else _Vectors.of(item_vectors, self._source)

    @cached_property
    def prepared(self) -> Prepared:
        """The prepared data, in memory: what every fit on it reads."""
        location = Location(f"memory://recsys_ray/{uuid.uuid4().hex}/prepared/data")
        prepared = prepare(self._source, location, seed=self.seed)
        weakref.finalize(prepared, location.parent.parent.remove)  # parts and models hold it, too
        return prepared

    @property
    def num_users(self) -> int:
        return self.prepared.num_users

    @property
    def num_items(self) -> int:
        return self.prepared.num_items

    @property
    def num_interactions(self) -> int:
        """Those of this part that teach; rows below ``filters.min_rating`` are only filtered as seen."""
        return self.prepared.counts(self.parts).num_interactions

    def __repr__(self) -> str:
        part = "" if self.parts == PARTS else f", {'+'.join(self.parts)} of a split"
        sizes = f"{self.num_users:,} users, {self.num_items:,} items, {self.num_interactions:,} interactions"
        return f"Dataset({sizes}{part})"

    def split(self, kind: str, **settings: Any) -> tuple[Dataset, ...]:
        """(train, test), or (train, valid, test) where the settings ask for a validation part.

        All parts know all users and items, so that a model of one can be measured on another.

        Args:
            kind: ``leave_last_out``, ``temporal``, ``random``, ``last_share``, ``cold_items`` or ``cold_users``.
            settings: of ``data.split`` of this kind: ``test_ratio=0.1``, ``valid_ratio=0.1``, ``valid=True``.

        Raises:
            ConfigError: no such kind or setting. DataError: nothing is left to learn from or to measure on.

        >>> import pandas as pd
        >>> import recsys_ray as rr
        >>> events = pd.DataFrame({"user_id": [1] * 3 + [2] * 3, "item_id": [1, 2, 3, 3, 1, 2]})
        >>> train, test = rr.Dataset(events).split("leave_last_out")
        >>> test.interactions()
           user_id  item_id  rating  timestamp
        0        1        3     1.0          0
        1        2        2     1.0          0
        """
        if kind == "leave_last_out":
            settings = {"valid": False} | settings
        split = validated(TypeAdapter(SplitConfig), {"kind": kind, **settings}, "split")
        whole = self._of_source(
            replace(self._source, settings=self._source.settings.model_copy(update={"split": split}))
        )
        found = whole.prepared.manifest["interactions"]
        parts = [part for part in ("train", "valid", "test") if part != "valid" or found[part]]
        for part in parts:
            if not found[part]:
                raise DataError(f"split {kind!r}: the part {part} is empty; set other ratios or a smaller min_history")
        return tuple(whole._part(part) for part in parts)

    def interactions(self) -> Any:
        """The events of this part that teach, user by user, oldest first: a frame user_id, item_id, rating,
        timestamp (UTC milliseconds, 0 when unknown)."""
        blocks = []
        item_ids = self.prepared.items.column("item_id").combine_chunks()
        for shard in range(self.prepared.num_shards):
            requests = self.prepared.requests(shard, self.parts)
            events = requests.histories
            columns = [requests.user_ids.take(pa.array(events.rows_E)), item_ids.take(pa.array(events.items_E))]
            columns += [pa.array(events.ratings_E), pa.array(events.timestamps_E)]
            blocks.append(pa.table(columns, schema=schema.interactions(requests.user_ids.type, item_ids.type)))
        return to_kind(pa.concat_tables(blocks).combine_chunks(), self.kind)

    def content(self) -> ItemContent | None:
        """``item_vectors`` in the order of the prepared catalogue, normalised."""
        if self._vectors is None:
            return None
        return self._vectors.content(self.prepared.items.column("item_id").combine_chunks())

    def fitted(self, model: Model, **options: Any) -> Recommender:
        """``model.fit(self)``; see ``recsys_ray.fit``."""
        return fit_prepared(model, self.prepared, self.parts, self.content(), self.kind, **options)

    def _of_source(self, source: Source) -> Dataset:
        other = object.__new__(Dataset)
        other.kind, other.seed, other.parts = self.kind, self.seed, PARTS
        other._source, other._vectors = source, self._vectors
        return other

    def _part(self, part: str) -> Dataset:
        other = self._of_source(self._source)
        other.__dict__["prepared"] = self.prepared
        other.parts = (part,)
        return other

    _source: Any


@dataclass(frozen=True, slots=True)
class _Vectors:
    """A vector for each row of a catalogue, as it was given."""

    item_ids: pa.Array
    vectors_ID: FloatArray

    @classmethod
    def of(cls, vectors: Any, source: Any) -> _Vectors:
        catalogue = source.items()
        if catalogue is None:
            raise DataError("item_vectors: they are one for each row of items; give items, too")
        array = np.asarray(vectors, np.float32)
        if array.ndim != 2 or len(array) != catalogue.num_rows:
            raise DataError(f"item_vectors: the shape must be ({catalogue.num_rows}, D), found {array.shape}")
        return cls(catalogue.column("item_id").combine_chunks(), array)

    def content(self, item_ids: pa.Array) -> ItemContent:
        rows_I = pc.index_in(item_ids, value_set=self.item_ids)
        vectors_ID = self.vectors_ID[rows_I.fill_null(0).to_numpy()].copy()
        lengths_I = np.linalg.norm(vectors_ID, axis=1)
        present_I = np.isfinite(lengths_I) & (lengths_I > 0) & rows_I.is_valid().to_numpy(zero_copy_only=False)
        vectors_ID[~present_I] = 0
        vectors_ID[present_I] /= lengths_I[present_I, None]
        return ItemContent(vectors_ID, present_I)


Tables = tuple[Any, Any, Any]
"""Interactions, items, users."""
Roles = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
"""Of their columns."""


def _of_frames(tables: Tables, roles: Roles, data: Any) -> FrameSource:
    events = to_arrow(tables[0], "interactions")
    items, users = (_as_frame(table, what) for table, what in zip(tables[1:], ("items", "users"), strict=True))
    settings = {
        **data,
        "columns": _by_name(roles[0], events.column_names, OPTIONAL),
        "item_columns": _item_columns(roles[1], [] if items is None else items.column_names),
        "user_columns": roles[2] if users is None else _user_columns(roles[2], users.schema),
    }
    return FrameSource(validated(TypeAdapter(FrameSettings), settings, "Dataset"), events, items, users)


def _of_paths(tables: Tables, roles: Roles, data: Any) -> TableSource:
    events, items, users = tables
    columns, item_columns, user_columns = roles
    for table, what in ((items, "items"), (users, "users")):
        if table is not None and not isinstance(table, str | PathLike):
            raise DataError(f"{what}: interactions are given as a path, so give {what} as a path, too")
    delimiter = data.get("delimiter")
    columns = _by_name(columns, column_names(str(events), "interactions", delimiter), OPTIONAL)
    settings = {**data, "source": "table", "path": str(events), "columns": columns}
    if items is not None:
        found = column_names(str(items), "items", delimiter)
        settings |= {"items": str(items), "item_columns": _item_columns(item_columns, found)}
    if users is not None:
        settings |= {"users": str(users), "user_columns": user_columns}
    return TableSource(validated(TypeAdapter(TableSettings), settings, "Dataset"))


def _as_frame(table: Any, what: str) -> pa.Table | None:
    if isinstance(table, str | PathLike):
        raise DataError(f"{what}: interactions are given as a frame, so give {what} as a frame, too")
    return None if table is None else to_arrow(table, what)


def _user_columns(given: dict[str, Any], found: pa.Schema) -> dict[str, Any]:
    """As given, else all columns of numbers and of text beside the id."""
    user_id = given.get("user_id", "user_id")
    if "numbers" in given or "categories" in given:
        return given
    others = [field for field in found if field.name != user_id]
    numbers = [f.name for f in others if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
    return given | {
        "numbers": numbers,
        "categories": [field.name for field in others if any(is_text(field.type) for is_text in texts)],
    }


def _by_name(given: dict[str, Any], found: list[str], optional: tuple[str, ...]) -> dict[str, Any]:
    """The roles of columns: as given, else the column of the same name where there is one."""
    return {name: name for name in optional if name in found} | given


def _item_columns(given: dict[str, Any], found: list[str]) -> dict[str, Any]:
    text = {"text": ["text"]} if "text" in found else {}
    return text | _by_name(given, found, ITEM_OPTIONAL)


def validated(adapter: TypeAdapter[Any], values: dict[str, Any], what: str) -> Any:
    """The settings of these values; ``what`` names them in messages.

    Raises:
        ConfigError: an unknown setting, or an impossible value.
    """
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        names = [str(name) for name in first["loc"] if name != values.get("kind")]
        key = ".".join(names)
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "there is no such setting"
        elif first["type"].startswith("union_tag"):
            message = f"kind {first['ctx'].get('tag')!r} is none of {first['ctx'].get('expected_tags')}"
        raise ConfigError(f"{what}: {f'{key}: ' if key else ''}{message}") from error
