"""Amazon reviews as published in 2014, 2018 (McAuley et al.; Ni, Li and McAuley 2019) and 2023 (Hou et al. 2024)."""

from __future__ import annotations

import ast
import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.data.config import DataSettings, IdType
from recsys_ray.data.prepare import values
from recsys_ray.data.prepare.files import Chunk, read_start, stamp
from recsys_ray.data.prepare.listing import expand
from recsys_ray.data.prepare.packed import open_text
from recsys_ray.data.prepare.text import JSON_SUFFIXES, is_json
from recsys_ray.data.sources.base import Rows, catalogue
from recsys_ray.data.sources.columns import Columns
from recsys_ray.data.sources.table_files import TableSource, as_table

SUFFIXES = (*JSON_SUFFIXES, ".csv")
OF_2014 = Columns(user_id="reviewerID", item_id="asin", rating="overall", timestamp="unixReviewTime")
OF_2023 = Columns(user_id="user_id", item_id="parent_asin", rating="rating", timestamp="timestamp")
PRODUCT = re.compile(r"[0-9B][0-9A-Z]{9}")
REVIEWER = re.compile(r"A[0-9A-Z]{9,27}")
PRICE = re.compile(r"\d[\d,]*(\.\d+)?")


class AmazonSettings(DataSettings):
    """Reviews as JSON lines, or ratings as CSV without a header (2014: user first, 2018: product first) or with one
    (2023); the products' metadata as JSON lines, or as the Python literals of 2014. All may be packed (.gz)."""

    source: Literal["amazon"]
    path: str = Field(min_length=1)
    """Reviews or ratings: file, directory or glob."""
    items: str | None = None
    """Metadata of the products: file, directory or glob."""
    id_type: IdType = "string"
    unknown_items: Literal["error", "drop", "add"] = "add"


@dataclass(frozen=True)
class AmazonSource:
    settings: AmazonSettings

    @cached_property
    def _table(self) -> TableSource:
        """The reviews as a table of the columns that the first file has."""
        first = expand(self.settings.path, SUFFIXES)[0]
        layout = _json_layout(first) if is_json(first) else _csv_layout(first)
        return as_table(self.settings, path=self.settings.path, **layout)

    def chunks(self) -> list[Chunk]:
        return self._table.chunks()

    def notes(self) -> list[str]:
        return self._table.notes()

    def read(self, chunk: Chunk) -> Rows:
        return self._table.read(chunk)

    def items(self) -> pa.Table | None:
        if self.settings.items is None:
            return None
        found: dict[str, dict[str, Any]] = {}
        for file in expand(self.settings.items, JSON_SUFFIXES, "items"):
            for product in products(file):
                found.setdefault(product["id"], product)  # some stand twice
        rows = list(found.values())
        columns = {
            "title": pa.array([row["title"] for row in rows], pa.string()),
            "text": pa.array([row["text"] for row in rows], pa.string()),
            "genres": pa.array([row["genres"] for row in rows], pa.list_(pa.string())),
            "poster": pa.array([row["poster"] for row in rows], pa.string()),
        }
        ids = pa.array([row["id"] for row in rows], pa.string())
        where = values.Place(self.settings.items)
        item_ids = values.ids(ids, self.settings.id_type, "asin", where, text=True)
        return catalogue(item_ids, columns, [("price", pa.array([row["price"] for row in rows], pa.float32()))])

    def fingerprint(self) -> dict[str, Any]:
        items = self.settings.items
        files = [] if items is None else [stamp(file) for file in expand(items, JSON_SUFFIXES, "items")]
        return {"files": self._table.fingerprint()["files"] + files}

    def estimated_rows(self) -> int:
        return self._table.estimated_rows()


def _first_lines(file: Location) -> list[str]:
    return [line for line in read_start(file).decode("utf-8", "replace").splitlines()[:-1] if line.strip()]


def _json_layout(file: Location) -> dict[str, Any]:
    try:
        keys = json.loads(_first_lines(file)[0]).keys()
    except (ValueError, IndexError, AttributeError) as error:
        raise DataError(f"{file}: does not begin with a JSON object on a line of its own") from error
    for columns in (OF_2014, OF_2023):
        if set(columns.names) <= keys:
            return {"columns": columns}
    raise DataError(f"{file}: no reviews of Amazon, its fields are {', '.join(sorted(keys))}; use data.source=table")


def _csv_layout(file: Location) -> dict[str, Any]:
    lines = _first_lines(file)
    if lines and set(OF_2023.names) <= set(lines[0].split(",")):
        return {"columns": OF_2023}
    rows = [line.split(",") for line in lines]
    for names in (["user_id", "parent_asin"], ["parent_asin", "user_id"]):
        shapes = {"user_id": REVIEWER, "parent_asin": PRODUCT}
        first, second = (shapes[name] for name in names)
        if rows and all(len(row) == 4 and first.fullmatch(row[0]) and second.fullmatch(row[1]) for row in rows):
            return {"columns": OF_2023, "column_names": [*names, "rating", "timestamp"]}
    raise DataError(f"{file}: no ratings of Amazon (reviewer, product, rating, time); use data.source=table")


def products(file: Location) -> Iterator[dict[str, Any]]:
    """id, title, text, genres, poster and price of every line; None where it says nothing.

    Raises:
        DataError: a line that is neither JSON nor a Python literal, or has no id.
    """
    with open_text(file) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            product = _parsed(line.decode("utf-8", "replace"), f"{file}: line {number:,}")
            item = product.get("parent_asin") or product.get("asin")
            if not item:
                raise DataError(f"{file}: line {number:,} has neither asin nor parent_asin")
            yield {
                "id": str(item),
                "title": _words(product.get("title")),
                "text": _words([product.get("features"), product.get("description")]),
                "genres": list(dict.fromkeys(_flat(product.get("categories") or product.get("category")))),
                "poster": _poster(product),
                "price": _price(product.get("price")),
            }


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        try:
            found = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise DataError(f"{where} is neither JSON nor a Python literal: {line[:60]!r}") from error
    if not isinstance(found, dict):
        raise DataError(f"{where} is no object with fields: {line[:60]!r}")
    return found


def _flat(value: Any) -> list[str]:
    """The texts inside lists of lists of texts."""
    if isinstance(value, list):
        return [text for part in value for text in _flat(part)]
    return [html.unescape(value).strip()] if isinstance(value, str) and value.strip() else []


def _words(value: Any) -> str | None:
    return " ".join(_flat(value)) or None


def _poster(product: dict[str, Any]) -> str | None:
    images = product.get("images")
    if isinstance(images, list):  # 2023: the first is the main one
        images = [image.get("hi_res") or image.get("large") for image in images if isinstance(image, dict)]
    found = [product.get(name) for name in ("imUrl", "imageURLHighRes", "imageURL")] + [images]
    return next(iter(_flat(found)), None)


def _price(value: Any) -> float | None:
    number = PRICE.search(str(value)) if value is not None else None
    return None if number is None else float(number.group().replace(",", ""))
