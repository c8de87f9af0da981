"""What of the catalogue a list may show: genres, years, and any column of the item table, as one mask of the items.

The batch job asks for it in ``recommend.context``, a request in its query or body; both are ``ContextSettings``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.types import BoolArray, LongArray
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.recommend.config import ColumnFilter, ContextSettings

MOST_NAMED = 10
LONGEST_NAME = 30


def context_mask(bundle: Bundle, context: ContextSettings, what: str = "") -> BoolArray:
    """(I,) the items that pass every filter. An item that has no value in a column passes none of its bounds.

    Args:
        what: stands before the name of a filter in messages.

    Raises:
        ConfigError: the catalogue has no such column or genre, or its values are of another type than those asked for.
    """
    passes_I = np.ones(bundle.num_items, np.bool_)
    if context.any_genres:
        passes_I &= genre_counts(bundle, context.any_genres, f"{what}any_genres") > 0
    if context.all_genres:
        wanted = {name.casefold() for name in context.all_genres}
        passes_I &= genre_counts(bundle, context.all_genres, f"{what}all_genres") == len(wanted)
    if context.no_genres:
        passes_I &= genre_counts(bundle, context.no_genres, f"{what}no_genres") == 0
    if context.year_from is not None or context.year_to is not None:
        years = ColumnFilter.model_construct(min=context.year_from, max=context.year_to)
        passes_I &= _column_mask(bundle, "year", years, f"{what}year_from, {what}year_to")
    for name, wanted_values in context.where.items():
        passes_I &= _column_mask(bundle, name, wanted_values, f"{what}where.{_shown(name)}")
    return passes_I


def read_context(given: Mapping[str, Any]) -> ContextSettings:
    """The filters of a plain mapping. Raises ConfigError."""
    try:
        return ContextSettings.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("context", *first["loc"])))
        raise ConfigError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error


def genre_numbers(bundle: Bundle, genres: list[str], what: str) -> list[int]:
    """The numbers of these genres in ``bundle.genres``, ascending, whatever the case they are written in.

    Raises:
        ConfigError: the catalogue has none of this name.
    """
    names = bundle.genres[1]
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        numbers.setdefault(name.casefold(), []).append(number)
    for genre in genres:
        if genre.casefold() not in numbers:
            raise ConfigError(f"{what}: the catalogue has no genre {_shown(genre)!r}; it has {_listed(names)}")
    return sorted({number for genre in genres for number in numbers[genre.casefold()]})


def genre_counts(bundle: Bundle, genres: list[str], what: str) -> LongArray:
    """(I,) how many of these genres an item is of. Raises ConfigError as ``genre_numbers``."""
    numbers, names = bundle.genres
    folded = {name: place for place, name in enumerate(dict.fromkeys(genre.casefold() for genre in genres))}
    genre_numbers(bundle, genres, what)
    # G: the place of each genre of the catalogue among the folded names that are asked for, -1 for the others.
    places_G = np.array([folded.get(name.casefold(), -1) for name in names], np.int64)
    places_E = places_G[numbers.items_E]
    pairs_E = np.unique(numbers.rows_E[places_E >= 0].astype(np.int64) * len(folded) + places_E[places_E >= 0])
    return np.bincount(pairs_E // max(1, len(folded)), minlength=bundle.num_items)


def _column_mask(bundle: Bundle, name: str, wanted: ColumnFilter, what: str) -> BoolArray:
    items = bundle.items
    usable = [field.name for field in items.schema if _is_number(field.type) or pa.types.is_string(field.type)]
    if name not in usable:
        hint = "; genres are filtered by any_genres, all_genres, no_genres" if name == "genres" else ""
        raise ConfigError(
            f"{what}: the item table has no such column of numbers or texts{hint or f'; it has {_listed(usable)}'}"
        )
    column = items.column(name).combine_chunks()
    is_number = _is_number(column.type)
    if not is_number and (wanted.min is not None or wanted.max is not None):
        raise ConfigError(f"{what}: min and max need a column of numbers, this one holds texts; list its values")
    masks = []
    if wanted.min is not None:
        masks.append(pc.greater_equal(column, pa.scalar(float(wanted.min))))
    if wanted.max is not None:
        masks.append(pc.less_equal(column, pa.scalar(float(wanted.max))))
    if wanted.any is not None:
        masks.append(pc.is_in(column, value_set=_values(wanted.any, column.type, what)))
    passes_I = np.ones(len(column), np.bool_)
    for mask in masks:
        passes_I &= pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
    if wanted.none is not None:
        passes_I &= ~pc.is_in(column, value_set=_values(wanted.none, column.type, what)).to_numpy(zero_copy_only=False)
    return passes_I


def _values(given: list[str] | list[float], kind: pa.DataType, what: str) -> pa.Array:
    values: list[Any] = list(given)
    texts = [isinstance(value, str) for value in values]
    if any(texts) if _is_number(kind) else not all(texts):
        wanted = "numbers" if _is_number(kind) else "texts"
        raise ConfigError(f"{what}: the column holds {wanted}; give {wanted}")
    if pa.types.is_integer(kind):  # a value between two integers, or beyond them, is in no cell
        limits = np.iinfo(kind.to_pandas_dtype())
        values = [int(value) for value in values if float(value).is_integer() and limits.min <= value <= limits.max]
    return pa.array(values, kind)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return (", ".join(map(_shown, names[:MOST_NAMED])) or "none") + more


def _shown(name: str) -> str:
    """On one line, and no longer than a message bears."""
    text = "".join(character if character.isprintable() else "?" for character in name)
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}..."
