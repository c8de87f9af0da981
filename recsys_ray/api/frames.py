"""Frames of pandas, polars and Arrow: read as Arrow tables, and given back in the kind that came in."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa

from recsys_ray.base.errors import DataError

Kind = Literal["pandas", "polars", "arrow"]


def kind_of(frame: Any) -> Kind | None:
    """The library that a frame is of; None for anything else. Looks at the type alone, and imports nothing."""
    if isinstance(frame, pa.Table | pa.RecordBatch):
        return "arrow"
    library = type(frame).__module__.partition(".")[0]
    known: dict[str, Kind] = {"pandas": "pandas", "polars": "polars"}
    return known.get(library) if type(frame).__name__ in ("DataFrame", "LazyFrame") else None


def to_arrow(frame: Any, what: str) -> pa.Table:
    """The frame as an Arrow table; ``what`` names it in messages.

    Raises:
        DataError: it is no frame, or a column mixes types.
    """
    kind = kind_of(frame)
    if kind is None:
        raise DataError(
            f"{what}: give a DataFrame of pandas or polars, an Arrow table or a path, found {type(frame).__name__}"
        )
    if kind == "arrow":
        return frame if isinstance(frame, pa.Table) else pa.Table.from_batches([frame])
    if kind == "polars":
        return (frame.collect() if type(frame).__name__ == "LazyFrame" else frame).to_arrow()
    repeated = frame.columns[frame.columns.duplicated()].tolist()
    if repeated:
        raise DataError(f"{what}: column {repeated[0]!r} is there twice; rename one of them")
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{what}: {_mixed(frame)}") from error


def _mixed(frame: Any) -> str:
    """Which column Arrow has no type for."""
    for name in frame.columns:
        kinds = sorted({type(value).__name__ for value in frame[name].dropna()})
        if len(kinds) > 1:
            return f"column {name!r} mixes {' and '.join(kinds)}; make it of one type, frame[{name!r}].astype(str) say"
    return "a column can't be read as an Arrow column; make its values numbers, text or times"


def to_kind(table: pa.Table, kind: Kind) -> Any:
    """The table as a frame of this library."""
    if kind == "arrow":
        return table
    if kind == "pandas":
        return table.to_pandas()
    import polars

    return polars.from_arrow(table)
