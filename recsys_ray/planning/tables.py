"""Files as somebody has them, looked at: tables, their columns, and what values say of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO, StringIO
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.files import guarded_parquet, is_parquet, open_parquet
from recsys_ray.data.prepare.listing import ALL_SUFFIXES, expand, partition_values
from recsys_ray.data.prepare.packed import open_text
from recsys_ray.data.prepare.text import is_json

LOOK_ROWS = 500_000
LOOK_BYTES = 64 << 20
DELIMITERS = (",", ";", "\t", "|")
IMAGE = re.compile(r"\.(?:jpe?g|png|webp|gif|bmp|avif)(?:\?.*)?$", re.IGNORECASE)
ISO = re.compile(r"^\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}.*)?$")
NOTES = re.compile(r"[._]|readme|license|copying|changelog", re.IGNORECASE)
"""What lies beside data and is none."""
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True)
class Column:
    """One column of the rows that were looked at."""

    name: str
    values: pd.Series = field(repr=False)
    """Those that are not empty."""
    rows: int

    @property
    def words(self) -> set[str]:
        """Of its name: ``customerNumber`` is customer and number; plurals are the same word."""
        found = {word.lower() for word in WORD.findall(self.name)}
        return found | {word.removesuffix("s") for word in found} | {"".join(sorted(found, key=self.name.lower().find))}

    @cached_property
    def is_list(self) -> bool:
        return len(self.values) > 0 and not pd.api.types.is_scalar(self.values.iloc[0])

    @cached_property
    def distinct(self) -> int:
        return 0 if self.is_list else int(self.values.nunique())

    @property
    def filled(self) -> float:
        return len(self.values) / max(1, self.rows)

    @property
    def is_unique(self) -> bool:
        """Nearly: a catalogue may name some items twice."""
        return self.distinct > 0.9 * len(self.values) and self.filled > 0.98 and self.distinct > 1

    @cached_property
    def texts(self) -> pd.Series:
        """A thousand values as text."""
        return self.values.iloc[:: max(1, len(self.values) // 1000)].astype(str)

    @cached_property
    def numbers(self) -> pd.Series | None:
        """All values as numbers, where nearly all are."""
        if self.is_list or pd.api.types.is_datetime64_any_dtype(self.values) or self.values.empty:
            return None
        found = pd.to_numeric(self.values, errors="coerce")
        return found.dropna() if found.notna().mean() > 0.98 else None

    @cached_property
    def is_whole(self) -> bool:
        return self.numbers is not None and bool((self.numbers % 1 == 0).all())

    @cached_property
    def is_time(self) -> bool:
        """Times of Arrow, ISO dates, epoch seconds or milliseconds, or days as yyyymmdd."""
        if pd.api.types.is_datetime64_any_dtype(self.values):
            return True
        if self.numbers is None:
            return not self.is_list and len(self.texts) > 0 and bool(self.texts.str.match(ISO).mean() > 0.9)
        low, high = self.numbers.quantile([0.02, 0.98])
        return any(first <= low <= high <= last for first, last in ((6e8, 4e9), (6e11, 4e12), (19000101, 21001231)))

    @cached_property
    def is_image(self) -> bool:
        return not self.is_list and len(self.texts) > 0 and bool(self.texts.str.contains(IMAGE).mean() > 0.5)

    @cached_property
    def length(self) -> float:
        """Characters of a value, on average."""
        return float(self.texts.str.len().mean()) if len(self.texts) else 0.0


@dataclass(frozen=True)
class Table:
    """A file or a directory of files, and the rows of it that were looked at."""

    path: str
    columns: list[Column]
    rows: int
    whole: bool
    """All rows were looked at."""
    delimiter: str | None = None
    """Where it is not what the file's name says."""
    header: bool = True
    encoding: str = "utf-8"

    def column(self, name: str) -> Column:
        return next(one for one in self.columns if one.name == name)


def find_tables(paths: list[str]) -> list[Table]:
    """The tables under these paths, each a file or a directory of equal files.

    Raises:
        DataError, StorageError: nothing is there, or it can't be read.
    """
    found = [read(place) for path in paths for place in _places(path)]
    if not found:
        raise DataError(f"{', '.join(paths)}: no table is there; files end in {', '.join(ALL_SUFFIXES)}")
    return found


def _places(path: str) -> list[str]:
    """A directory of different things comes apart."""
    top = Location.of(path)
    names = [] if any(sign in path for sign in "*?[") else sorted(top.names())
    if not names:
        return [path] if any(sign in path for sign in "*?[") or not _is_directory(top) else []
    here = path.rstrip("/")
    files = [name for name in names if name.endswith(ALL_SUFFIXES) and not NOTES.match(name)]
    inside = [name for name in names if name not in files and _holds_data(top / name)]
    partitioned = inside and all("=" in name for name in inside)
    if partitioned or (not inside and len({tuple(_columns(f"{here}/{name}")) for name in files}) == 1):
        return [path]
    return [f"{here}/{name}" for name in (*inside, *files)]


def _is_directory(place: Location) -> bool:
    filesystem, path = place.filesystem()
    return bool(filesystem.isdir(path))


def _holds_data(place: Location) -> bool:
    try:
        return bool(place.names()) and bool(expand(str(place)))
    except DataError:
        return False


def _columns(path: str) -> list[str]:
    return [column.name for column in read(path, rows=100, size=1 << 16).columns]


def read(path: str, rows: int = LOOK_ROWS, size: int = LOOK_BYTES) -> Table:
    """A table with its first rows, of as many files as it takes."""
    files = expand(path)
    frames: list[pd.DataFrame] = []
    facts: dict[str, Any] = {}
    left, whole = rows, True
    for file in files:
        if left <= 0:
            whole = False
            break
        frame, complete, facts = _frame(file, left, size)
        whole &= complete
        left -= len(frame)
        for name, value in partition_values(file.url).items():
            if name not in frame.columns:
                frame[name] = value
        frames.append(frame)
    frame = pd.concat(frames, ignore_index=True)
    columns = [Column(str(name), _filled(frame[name]), len(frame)) for name in frame.columns]
    return Table(path, columns, len(frame), whole, **facts)


def _filled(values: pd.Series) -> pd.Series:
    values = values.dropna()
    if pd.api.types.is_string_dtype(values) or values.dtype == object:
        return values[values.map(lambda value: not isinstance(value, str) or bool(value.strip()))]
    return values


def _frame(file: Location, rows: int, size: int) -> tuple[pd.DataFrame, bool, dict[str, Any]]:
    if is_parquet(file):
        table, whole = guarded_parquet(file, lambda opened: _first_groups(open_parquet(opened), rows))
        return table.to_pandas(), whole, {}
    with open_text(file) as opened:
        data = opened.read(size)
        whole = not opened.read(1)
    if not whole:
        data = data[: data.rfind(b"\n") + 1]
    if not data.strip():
        raise DataError(f"{file}: is empty")
    try:
        encoding, text = "utf-8", data.decode("utf-8-sig")
    except UnicodeDecodeError:
        encoding, text = "latin-1", data.decode("latin-1")
    if is_json(file):
        return pd.read_json(BytesIO(data), lines=True, nrows=rows, dtype=False), whole, {}
    delimiter, has_header = _layout(text)
    usual = "\t" if file.name.split(".")[1:2] in (["tsv"], ["tab"]) else ","
    try:
        frame = pd.read_csv(
            StringIO(text), sep=delimiter, dtype=str, header=0 if has_header else None, nrows=rows, on_bad_lines="skip",
            quotechar='"', keep_default_na=False,
        )  # fmt: skip
    except (pd.errors.ParserError, ValueError) as error:
        raise DataError(f"{file}: can't be read as a table ({str(error).splitlines()[0]})") from error
    if not has_header:
        frame.columns = [f"column_{number + 1}" for number in range(frame.shape[1])]
    facts = {"delimiter": None if delimiter == usual else delimiter, "header": has_header, "encoding": encoding}
    return frame, whole and len(frame) < rows, facts


def _first_groups(parquet: pq.ParquetFile, rows: int) -> tuple[pa.Table, bool]:
    groups, total = [], 0
    for group in range(parquet.metadata.num_row_groups):
        if total and total >= rows:
            break
        groups.append(group)
        total += parquet.metadata.row_group(group).num_rows
    whole = len(groups) == parquet.metadata.num_row_groups and total <= rows
    return parquet.read_row_groups(groups, use_threads=False).slice(0, rows), whole


def _layout(text: str) -> tuple[str, bool]:
    """(The delimiter that the first lines have most of, whether the first of them is a header)."""
    lines = [line for line in text[: 1 << 16].splitlines() if line.strip()][:20]
    delimiter = max(DELIMITERS, key=lambda sign: (min(lines[0].count(sign), 40), -DELIMITERS.index(sign)))
    fields = [one.strip().strip('"') for one in lines[0].split(delimiter)]
    numbers = sum(bool(re.fullmatch(r"-?\d+(\.\d+)?", one)) for one in fields)
    return delimiter, numbers == 0 or numbers * 2 < len(fields)
