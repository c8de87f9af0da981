"""The items of a run as responses describe them: ids, titles, genres, years, posters; search; masks by genre."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from recsys_ray.base.types import BoolArray, LongArray

WEB = ("http://", "https://")
ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?(?=[/?#]|$)")


class ItemCatalogue:
    """The item table of a bundle; items in vocabulary order."""

    def __init__(self, items: pa.Table, *, by_item: bool = False) -> None:
        """``by_item``: there are posters that are named after items, which the table need not name."""
        self._by_item = by_item
        self.ids: list[Any] = items.column("item_id").to_pylist()
        self.rows = {str(item): row for row, item in enumerate(self.ids)}
        """Rows by the text of the id, as callers write it."""
        self.titles = _texts(items, "title")
        self.texts = _texts(items, "text")
        self.posters = [poster and poster.strip() for poster in _texts(items, "poster")]
        """As ``content.posters`` reads them."""
        self.genres: list[list[str]] = [list(genres or []) for genres in _values(items, "genres")]
        self.years: list[int | None] = _values(items, "year")
        self.counts_I: LongArray = np.asarray(items.column("count").to_numpy(), np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def by_popularity_I(self) -> LongArray:
        """Rows, most interactions first, ties in vocabulary order."""
        return np.argsort(-self.counts_I, kind="stable")

    @cached_property
    def poster_origins(self) -> frozenset[str]:
        """``https://host`` of the posters that pages load from the web, or ``https:`` where the host is a strange one;
        none where the service answers with them."""
        if self._by_item:
            return frozenset()
        web = [poster for poster in self.posters if poster is not None and poster.startswith(WEB)]
        found = ((ORIGIN.match(poster), poster) for poster in web)
        return frozenset(f"{poster.partition(':')[0]}:" if origin is None else origin[0] for origin, poster in found)

    @cached_property
    def newest_year(self) -> int | None:
        """The last year of any item; None where no item has one."""
        return max((year for year in self.years if year is not None), default=None)

    @cached_property
    def genre_rows(self) -> dict[str, LongArray]:
        """Rows of every genre."""
        found: dict[str, list[int]] = {}
        for row, genres in enumerate(self.genres):
            for genre in genres:
                found.setdefault(genre, []).append(row)
        return {genre: np.array(rows, np.int64) for genre, rows in sorted(found.items())}

    def genre(self, name: str) -> str | None:
        """The genre as the catalogue writes it, whatever the case; None when there is none such."""
        folded = {genre.casefold(): genre for genre in self.genre_rows}
        return folded.get(name.casefold())

    def mask(self, rows: Iterable[int] | LongArray, *, value: bool = True) -> BoolArray:
        """(I,) ``value`` at these rows, its opposite elsewhere."""
        mask_I = np.full(len(self), not value)
        mask_I[np.fromiter(rows, np.int64)] = value
        return mask_I

    def known_rows(self, item_ids: Iterable[str]) -> list[int]:
        """Rows of the ids that are in the catalogue."""
        return [self.rows[item] for item in item_ids if item in self.rows]

    def describe(self, row: int) -> dict[str, Any]:
        """``response_models.Item`` of a row. Posters that aren't on the web are fetched from the service itself."""
        return {
            "item_id": self.ids[row],
            "title": self.titles[row],
            "genres": self.genres[row],
            "year": self.years[row],
            "poster": self._poster(row),
        }

    def _poster(self, row: int) -> str | None:
        poster = self.posters[row]
        if not self._by_item and (poster is None or poster.startswith(WEB)):
            return poster
        return poster_path(self.ids[row])

    @cached_property
    def _folded(self) -> list[str]:
        return [fold(f"{title or ''} {item}") for title, item in zip(self.titles, self.ids, strict=True)]

    def search(self, text: str, n: int, offset: int = 0) -> list[int]:
        """Rows whose title or id holds every word of the text, the most popular first; all rows for no text."""
        words = fold(text).split()
        folded = self._folded
        found: list[int] = []
        for row in self.by_popularity_I:
            if all(word in folded[row] for word in words):
                found.append(int(row))
                if len(found) == offset + n:
                    break
        return found[offset:]


def fold(text: str) -> str:
    """Without case and accents."""
    split = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in split if not unicodedata.combining(character))


def poster_path(item_id: Any) -> str:
    """Where the service answers with an item's poster."""
    return f"/v1/items/{quote(str(item_id), safe='')}/poster"


def _values(items: pa.Table, column: str) -> list[Any]:
    return list(items.column(column).to_pylist()) if column in items.schema.names else [None] * items.num_rows


def _texts(items: pa.Table, column: str) -> list[str | None]:
    return [value or None for value in _values(items, column)]
