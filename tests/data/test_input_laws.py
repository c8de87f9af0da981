"""Whatever is written is read back equal or refused in one line, in pieces of any size; so is noise."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys_ray.base.errors import DataError, RecsysError
from recsys_ray.data.item_list import read_item_list
from recsys_ray.data.prepare import files, tables
from recsys_ray.data.sources import Source, open_source
from recsys_ray.data.sources.config import DataConfig
from tests.data_worlds import COLUMNS, settings_of

Row = tuple[str, str, float, int]
TEXT = st.text(st.sampled_from("ab1 ,;\t\"'\\\n\réß\u2028") | st.characters(codec="utf-8"), min_size=1, max_size=6)
IDS = TEXT.filter(lambda text: "\0" not in text)
TIMES = st.integers(10**11, 10**13)
RATINGS = st.floats(-5, 5, width=32)
ROWS = st.lists(st.tuples(IDS, IDS, RATINGS, TIMES), min_size=1, max_size=12)
NAMES = list(COLUMNS)
LINES = ["a,b", 'a,"b"', 'a,"b', 'b",c', '"a', '""', 'a"', "", "x,y,z"]
WORDS = [b"user_id", b"item_id", b",", b"\n", b'"', b"\t", b"1", b"x", b"{", b"}", b":", b"\r", b"\xff", b"\0"]


def to_csv(rows: list[Row], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")
    writer.writerows([NAMES, *rows])
    return text.getvalue().encode()


def to_tsv(rows: list[Row]) -> bytes:
    """Tab files know no quotes, so a field with a tab or a line end can't be written; here it breaks the file."""
    return "".join("\t".join(map(str, row)) + "\n" for row in [NAMES, *rows]).encode()


def to_json(rows: list[Row]) -> bytes:
    return "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in rows).encode()


def to_parquet(rows: list[Row]) -> bytes:
    sink = pa.BufferOutputStream()
    columns = dict(zip(NAMES, map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), sink, row_group_size=3)
    return bytes(sink.getvalue())


WRITERS: dict[str, Callable[[list[Row]], bytes]] = {
    "a.csv": to_csv,
    "A.TSV": to_tsv,
    "a.jsonl": to_json,
    "a.parquet": to_parquet,
}


@contextmanager
def pieces(size: int) -> Iterator[None]:
    """Text in ranges of so many bytes, Parquet in chunks of so many rows."""
    with patch.object(files.byte_ranges, "__defaults__", (0, 0, size)), patch.object(tables, "CHUNK_ROWS", size):
        yield


def read(source: Source) -> list[Row]:
    found = [source.read(chunk).events for chunk in source.chunks()]
    kept = pa.concat_tables(found).select(["user_id", "item_id", "rating", "timestamp"])
    return [tuple(row.values()) for row in kept.to_pylist()]  # type: ignore[misc]


@pytest.mark.parametrize("file", WRITERS)
@given(ROWS, st.integers(1, 200))
@example([('a"', "b", 1.0, 10**12), ('c"', "d", 1.0, 10**12)], 7)
@example([('"a', "b", 1.0, 10**12), ("c", 'd"', 1.0, 10**12)], 7)
@example([("a\n", "b", 1.0, 10**12)], 9)
@settings(deadline=None, max_examples=60)
def test_a_table_is_read_as_it_was_written_or_refused(file: str, rows: list[Row], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pieces(size):
        path = Path(folder) / file
        path.write_bytes(WRITERS[file](rows))
        source = open_source(settings_of(source="table", path=str(path), columns=COLUMNS, id_type="string"))
        try:
            found = read(source)
        except DataError as error:
            assert str(error).isprintable() and file in str(error)
            assert file.endswith(("csv", "TSV")), "these say where a value ends"
            assert any(set("\t\n\r") & set(user + item) for user, item, *_ in rows), str(error)
            return
        # A tab file has no quotes: what begins with a line break is an empty line, and then a row without it.
        written = [(user.lstrip("\r\n"), *rest) for user, *rest in rows] if file.endswith("TSV") else rows
        assert found == written


@given(st.lists(st.tuples(IDS, IDS), min_size=1, max_size=8, unique_by=lambda row: row[0]))
@example([("1", "a\nb"), ("2", "c")])
@settings(deadline=None, max_examples=100)
def test_a_catalogue_is_read_as_it_was_written_or_refused(rows: list[tuple[str, str]]) -> None:
    """Of two columns, so that lines inside of a title can look like rows."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows([("item_id", "title"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.csv"
        path.write_bytes(text.getvalue().encode())
        for quotes in (None, True):
            columns = {"title": "title"}
            values = {"path": "x", "items": str(path), "item_columns": columns, "id_type": "string", "quotes": quotes}
            try:
                items = open_source(settings_of(source="table", **values)).items()
            except DataError as error:
                assert quotes is None and "data.quotes" in str(error) and "\n" in "".join(map("".join, rows))
                continue
            assert items is not None
            assert list(zip(*(items.column(name).to_pylist() for name in ("item_id", "title")), strict=True)) == rows


@given(
    st.lists(st.sampled_from(["a,b", 'a,"b"', 'a,"b', 'b",c', '"a', '""', 'a"', "", "x,y,z"]), max_size=6),
    st.booleans(),
)
@settings(deadline=None, max_examples=300)
def test_no_line_vanishes(lines: list[str], ends: bool) -> None:
    """Of lines with quotes anywhere, every one that is not empty is a row, or the whole is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_text("\n".join(["user_id,item_id", *lines]) + "\n" * ends)
        source = open_source(settings_of(source="table", path=str(path), id_type="string"))
        try:
            read_rows = sum(source.read(chunk).events.num_rows for chunk in source.chunks())
        except DataError:
            return
        assert read_rows == sum(bool(line) for line in lines)


NOISE = st.binary(max_size=300) | st.lists(st.sampled_from(WORDS)).map(b"".join)
PACKED = ("a.csv.gz", "a.jsonl.bz2", "a.tsv.xz", "a.csv.zst", "a.csv.zip")
SOURCES: dict[str, dict[str, Any]] = {
    **{name: {"source": "table", "path": name} for name in ("a.csv", "a.tsv", "a.jsonl", "a.parquet", "a", *PACKED)},
    "i.csv": {"source": "table", "path": "good.csv", "items": "i.csv", "item_columns": {"title": "item_id"}},
    "i.jsonl": {"source": "table", "path": "good.csv", "items": "i.jsonl"},
    "i.parquet": {"source": "table", "path": "good.csv", "items": "i.parquet"},
    "u.csv": {"source": "table", "path": "good.csv", "users": "u.csv"},
    "ratings.csv": {"source": "movielens", "path": "."},
    "movies.csv": {"source": "movielens", "path": "."},
    "tags.csv": {"source": "movielens", "path": "."},
    "links.csv": {"source": "movielens", "path": "."},
    "u.data": {"source": "movielens", "path": ".", "size": "100k"},
    "u.item": {"source": "movielens", "path": ".", "size": "100k"},
    "u.genre": {"source": "movielens", "path": ".", "size": "100k"},
    "u.user": {"source": "movielens", "path": ".", "size": "100k", "users": True},
    "ratings.dat": {"source": "movielens", "path": ".", "size": "1m"},
    "items.csv": {"source": "movielens", "path": ".", "size": "100k"},
    "s.txt": {"source": "sequences", "path": "s.txt"},
    "train.txt": {"source": "lightgcn", "path": "."},
    "am.jsonl": {"source": "amazon", "path": "am.jsonl"},
    "meta.json": {"source": "amazon", "path": "am.csv", "items": "meta.json"},
    "Ratings.csv": {"source": "book_crossing", "path": "."},
    "Books.csv": {"source": "book_crossing", "path": "."},
    "Users.csv": {"source": "book_crossing", "path": ".", "users": True},
}
GOOD = {
    "good.csv": b"user_id,item_id\n1,2\n",
    "ratings.csv": b"userId,movieId,rating,timestamp\n1,2,3,4\n",
    "movies.csv": b"movieId,title,genres\n2,A (1990),B\n",
    "u.data": b"1\t2\t3\t4\n",
    "u.item": b"2|A (1990)|||x|1\n",
    "u.genre": b"unknown|0\n",
    "ratings.dat": b"1::2::3::4\n",
    "movies.dat": b"2::A (1990)::B\n",
    "test.txt": b"1 2\n",
    "am.csv": b"user_id,parent_asin,rating,timestamp\n1,2,3,4\n",
    "Ratings.csv": b"User-ID,ISBN,Book-Rating\n1,2,3\n",
    "Books.csv": b"ISBN,Book-Title,Book-Author,Year-Of-Publication,Publisher,Image-URL-L\n2,A,B,1990,C,d\n",
}


@pytest.mark.parametrize("file", SOURCES)
@given(NOISE, st.booleans())
@settings(deadline=None, max_examples=25)
def test_noise_in_any_file_is_read_or_refused_in_one_line(file: str, noise: bytes, behind: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in GOOD.items():
            (Path(folder) / name).write_bytes(data)
        (Path(folder) / file).write_bytes(GOOD.get(file, b"user_id,item_id\n1,2\n") * behind + noise)
        values = {
            key: str(Path(folder) / value) if key in ("path", "items", "users") and isinstance(value, str) else value
            for key, value in SOURCES[file].items()
        }
        source: Any = open_source(settings_of(**values))
        for look in (source.fingerprint, source.estimated_rows, source.items, source.chunks, source.user_chunks):
            try:
                found = look()
                for chunk in found if look in (source.chunks, source.user_chunks) else []:
                    (source.read if look == source.chunks else source.read_users)(chunk)
            except RecsysError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("file", ["l.txt", "l.csv", "l.tsv", "l.jsonl", "l.parquet", "l.csv.gz"])
@given(NOISE)
@settings(deadline=None, max_examples=25)
def test_noise_as_a_list_of_items(file: str, noise: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / file).write_bytes(noise)
        try:
            read_item_list(str(Path(folder) / file), "recommend.deny")
        except RecsysError as error:
            assert "\n" not in str(error) and file in str(error)


def test_every_source_is_here() -> None:
    kinds = {kind.model_fields["source"].annotation for kind in DataConfig.__origin__.__args__}  # type: ignore[attr-defined]
    named = {str(kind).split("'")[1] for kind in kinds}
    assert named - {"synthetic"} == {values["source"] for values in SOURCES.values()}
