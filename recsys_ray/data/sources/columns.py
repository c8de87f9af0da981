"""Interactions in a table of any column names: what is what, events and their weights, rows that can't be read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError
from recsys_ray.base.types import BoolArray, FloatArray, Settings
from recsys_ray.data.config import DataSettings
from recsys_ray.data.prepare import times, values
from recsys_ray.data.sources.base import BAD_ROWS, Rows, interactions
from recsys_ray.data.sources.catalogue import ItemColumns
from recsys_ray.data.sources.users import UserColumns

NO_WEIGHT = "events_without_weight"


class Columns(Settings):
    """Which column of the files is what."""

    user_id: str = "user_id"
    """Who; numbers or text."""
    item_id: str = "item_id"
    """What; numbers or text, as in the catalogue."""
    rating: str | None = None
    """Without it every interaction counts 1."""
    timestamp: str | None = None
    """Without it the order of the files is the order in time."""
    event: str | None = None
    """Kind of an interaction (view, purchase, ...), weighted by event_weights."""

    @property
    def names(self) -> list[str]:
        found = (self.user_id, self.item_id, self.rating, self.timestamp, self.event)
        return [name for name in found if name is not None]

    @model_validator(mode="after")
    def _are_different(self) -> Columns:
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"a column has two roles: {', '.join(self.names)}")
        return self


class ColumnSettings(DataSettings):
    """What the columns of interactions and catalogue are."""

    columns: Columns = Columns()
    event_weights: dict[str, float | None] = Field(default_factory=dict)
    """What an event of each kind in columns.event counts, as its rating (times the rating, where there is one). 0 and
    less: filtered as seen, never learned from. null: left out. A kind that is not named is an error. With events,
    filters.duplicates is max where it is not set."""
    timestamp_unit: Literal["auto", "s", "ms", "yyyymmdd"] = "auto"
    """What numeric timestamps are. auto: days where all are like 20200131, seconds below 10^11, else milliseconds; one
    answer for the whole input, or it is refused."""
    item_columns: ItemColumns = ItemColumns()
    user_columns: UserColumns = UserColumns()
    genre_separator: str = Field(default="|", min_length=1)
    """Splits genres that are written as one text."""

    @model_validator(mode="before")
    @classmethod
    def _best_event_of_a_pair(cls, given: Any) -> Any:
        """A view after a purchase does not undo it: with events, filters.duplicates is max unless it is given."""
        if isinstance(given, dict) and given.get("event_weights"):
            filters = given.get("filters", {})
            if isinstance(filters, dict):
                return given | {"filters": {"duplicates": "max"} | filters}
        return given

    @model_validator(mode="after")
    def _events_have_weights(self) -> ColumnSettings:
        if (self.columns.event is None) != (not self.event_weights):
            raise ValueError(
                "columns.event and event_weights go together: set both, for example {view: 1, purchase: 5}"
            )
        if self.event_weights and not any(weight is not None and weight > 0 for weight in self.event_weights.values()):
            raise ValueError("event_weights leaves nothing to learn from; give one kind a weight above 0")
        return self


def to_interactions(
    table: pa.Table, settings: ColumnSettings, where: values.Place, *, text: bool, part: int = schema.TRAIN
) -> Rows:
    """What ``Source.read`` gives, from a table that has the columns of the settings; ``text``: read from a file that
    declares no types.

    Raises:
        DataError: a column holds what it may not, unless ``bad_rows`` is drop.
    """
    columns = settings.columns
    left_out: dict[str, int] = {}
    example = None
    if settings.bad_rows == "drop":
        bad_E, example = _bad(table, settings, where, text)
        if bad_E.any():
            left_out[BAD_ROWS] = int(bad_E.sum())
            table = table.filter(pa.array(~bad_E))
    weights_E = None
    if columns.event is not None:
        weights_E = _weights(table.column(columns.event), settings, where)
        if (nothing := np.isnan(weights_E)).any():
            left_out[NO_WEIGHT] = int(nothing.sum())
            table, weights_E = table.filter(pa.array(~nothing)), weights_E[~nothing]

    def ids(name: str) -> pa.Array:
        return values.ids(table.column(name), settings.id_type, name, where, text=text)

    rating, time = columns.rating, columns.timestamp
    ratings = None if rating is None else values.ratings(table.column(rating), rating, where)
    parts: pa.Array | int = part
    if weights_E is not None:
        given = np.ones(len(weights_E), np.float32) if ratings is None else ratings.to_numpy()
        ratings = pa.array((given * weights_E).astype(np.float32))
        parts = pa.array(np.where(weights_E > 0, part, part | schema.SEEN_ONLY).astype(np.uint8))
    moments, unit = None, None
    if time is not None:
        moments, unit = times.timestamps(table.column(time), time, where, settings.timestamp_unit)
    events = interactions(ids(columns.user_id), ids(columns.item_id), ratings, moments, parts)
    return Rows(events, left_out, example, unit)


def _weights(column: pa.ChunkedArray, settings: ColumnSettings, where: values.Place) -> FloatArray:
    """(E,) what every event counts; NaN for one that is left out."""
    name = settings.columns.event
    kinds = _kinds(column, str(name), where)
    weights = settings.event_weights
    codes = pc.index_in(kinds, value_set=pa.array(list(weights), pa.string()))
    if codes.null_count:
        row = int(codes.is_null().to_numpy(zero_copy_only=False).argmax())
        raise DataError(
            f"{where.file}: column {name!r}, {where.row(row)}: {kinds[row].as_py()!r} is no kind of event_weights "
            f"({', '.join(weights)}); give it a weight, or null to leave such events out"
        )
    by_code = np.array([np.nan if weight is None else weight for weight in weights.values()], np.float32)
    found: FloatArray = by_code[codes.to_numpy()]
    return found


def _kinds(column: pa.ChunkedArray, name: str, where: values.Place) -> pa.Array:
    try:
        return values.plain(column).cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{where.file}: column {name!r} must hold kinds of events, found {column.type}") from error


def _bad(table: pa.Table, settings: ColumnSettings, where: values.Place, text: bool) -> tuple[BoolArray, str | None]:
    """(E,) the rows that can't be read, and what is wrong with the first."""
    columns, bad_E, example = settings.columns, np.zeros(table.num_rows, np.bool_), None
    bad_ids = partial(values.bad_ids, id_type=settings.id_type, text=text)

    def bad_times(column: pa.ChunkedArray) -> BoolArray:
        return times.read_times(column, str(columns.timestamp), where, settings.timestamp_unit).bad_E

    checks: list[tuple[str | None, Callable[[pa.ChunkedArray], BoolArray]]] = [
        (columns.user_id, bad_ids),
        (columns.item_id, bad_ids),
        (columns.rating, lambda column: values.bad_ratings(column, str(columns.rating), where)),
        (columns.timestamp, bad_times),
    ]
    for name, check in checks:
        if name is None:
            continue
        found_E = check(table.column(name))
        if found_E.any() and example is None:
            row = int(found_E.argmax())
            example = f"{where.file}: column {name!r}, {where.row(row)}: {table.column(name)[row].as_py()!r}"
        bad_E |= found_E
    return bad_E, example
