"""Every bad file ends in one line that names it, and leaves nothing that could be taken for data."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

from recsys_ray.base.errors import RecsysError
from tests.data import bad_files as bad
from tests.data.bad_files import (
    COLUMNS,
    GOOD,
    GZ,
    HEAD,
    MOVIES,
    PAIR,
    RATINGS,
    TABLE,
    TITLED,
    TWICE,
    Case,
    beside,
    events,
    folder_of,
    items,
    json_lines,
    movielens,
    other,
    parquet,
    rows,
    users,
    written,
)
from tests.data_worlds import prepare_values

ONE = '{"user_id": 1, "item_id": 1}'
TSV = HEAD.replace(",", "\t")
CASES = [
    # Text that is no table.
    events("empty", ""),
    events("blank lines", "\n\n\n"),
    events("only a header", HEAD, "events.csv"),
    events("a header without a line end", HEAD.strip()),
    events("no line end in a long text", "x" * 100_000),
    events("carriage returns alone", (HEAD + GOOD).replace("\n", "\r"), "carriage returns"),
    events("UTF-16", (HEAD + GOOD).encode("utf-16"), "UTF-8"),
    events("UTF-16 without a mark", (HEAD + GOOD).encode("utf-16-le"), "zero bytes"),
    events("latin-1 in the header", HEAD.replace("rating", "bewertüng").encode("latin-1") + GOOD.encode()),
    events("latin-1 in an id", (HEAD + GOOD).encode() + "1,ü,3,1\n".encode("latin-1"), id_type="string"),
    events("Parquet under the name of a text", b"PAR1" + b"\x00" * 100, "Parquet"),
    events("gzip under the name of a text", GZ, "gzip"),
    events("a spreadsheet", b"PK\x03\x04" + b"\x00" * 100, "spreadsheet"),
    events("bzip2 under the name of a text", bz2.compress(b"x"), "bzip2"),
    events("xz under the name of a text", lzma.compress(b"x"), "xz"),
    events("SQLite", b"SQLite format 3\x00", "SQLite"),
    written("ORC under the name of a text", lambda file: orc.write_table(TABLE, file), "events.csv"),
    written("feather under the name of a text", lambda file: feather.write_feather(TABLE, file), "events.csv"),
    events("control characters in the header", "a\x1b[31m,b\n1,2\n", "\\x1b"),
    # Columns.
    events("another name", "user,item_id,rating,timestamp\n" + GOOD, "data.columns"),
    events("another delimiter", (HEAD + GOOD).replace(",", ";"), "data.columns"),
    events("a column twice", "user_id,item_id,item_id,timestamp\n" + GOOD, "'item_id'", columns=PAIR),
    events("an open quote in the header", 'user_id,"item_id,rating\n1,2,3\n', "data.quotes"),
    events("a thousand other columns", ",".join(f"c{n}" for n in range(1000)) + "\n1\n", "and 980 more"),
    written("a column twice in Parquet", lambda file: pq.write_table(TWICE, file), "events.parquet"),
    # Rows.
    rows("a field too many", "1,2,3,4,5\n"),
    rows("a field too few", "1,2,3\n"),
    rows("a word for a number", "1,2,good,1580702706\n"),
    rows("no rating", "1,2,,1580702706\n"),
    rows("a rating that is infinite", "1,2,inf,1580702706\n"),
    rows("a rating beyond float32", "1,2,1e300,1580702706\n"),
    rows("a hexadecimal rating", "1,2,0x10,1580702706\n"),
    rows("a decimal comma", '1,2,"3,5",1580702706\n'),
    rows("a thousands mark", "1,2,1_000,1580702706\n"),
    rows("no user", ",2,3,1580702706\n"),
    rows("no item", "1,,3,1580702706\n"),
    rows("a negative id", "-1,2,3,1580702706\n"),
    rows("a name among numbers", "1,film,3,1580702706\n", "data.id_type"),
    rows("a number beyond int64", "1,99999999999999999999,3,1580702706\n", "data.id_type"),
    rows("a stray quote over lines", '3,"2,3,1580702706\n3,4",3,1580702706\n', "data.quotes"),
    rows("a quote that never closes", '3,2,3,"1580702706\n', "data.quotes"),
    rows("a quote that never closes, without a line end", '3,2,3,"1580702706', "data.quotes"),
    rows("a carriage return inside a line", "3,2\r,3,1580702706\n"),
    rows("too many bad rows to drop", "1,2,x,1580702706\n" * 9, "data.bad_rows_at_most", bad_rows="drop"),
    events("a tab file with other fields", TSV + "1\t2\n", "events.tsv", "events.tsv"),
    events("a backslash before a line end", HEAD + "1,2,3,4\\\n5,6,7,8\n", "events.csv", escape="\\"),
    events("the wrong names of columns", "1,2,3\n", "events.csv", column_names=["user_id", "item_id"], columns=PAIR),
    # Times.
    rows("no time", "1,2,3,\n"),
    rows("a word for a time", "1,2,3,yesterday\n"),
    rows("milliseconds among seconds", "1,2,3,1580702706000\n", "data.timestamp_unit"),
    rows("microseconds", "1,2,3,1580702706000000\n"),
    events("a day that is none", HEAD + "1,2,3,20200101\n2,3,4,20200230\n"),
    events("a month that is none", HEAD + "1,2,3,20200101\n2,3,4,20201301\n"),
    events("a word that pandas knows as a time", HEAD + "1,2,3,2020-01-01\n2,3,4,now\n"),
    events("most of it in the future", HEAD + "1,2,3,9000000000\n2,3,4,9000000001\n", "data.timestamp_unit"),
    folder_of("two files of two units", {"a.csv": HEAD + GOOD, "b.csv": HEAD + "1,9,3,1580702706000\n"}, "b.csv"),
    folder_of("days and seconds", {"a.csv": HEAD + GOOD, "b.csv": HEAD + "1,9,3,20200101\n"}, "b.csv"),
    parquet("a truth as time", {"timestamp": [True, False]}),
    parquet("a time of day as time", {"timestamp": pa.array([1, 2], pa.time64("us"))}),
    parquet("a duration as time", {"timestamp": pa.array([1, 2], pa.duration("s"))}),
    parquet("a moment that would wrap", {"timestamp": pa.array([1, 2**62], pa.timestamp("us"))}),
    parquet("a null as time", {"timestamp": pa.array([1, None], pa.timestamp("ms"))}),
    parquet("nothing but nulls as times", {"timestamp": pa.nulls(2)}),
    parquet("a NaN as time", {"timestamp": [1580702706.0, float("nan")]}),
    parquet("bytes as time", {"timestamp": [b"1", b"2"]}),
    # Types of Parquet.
    parquet("broken numbers as ids", {"user_id": [1.5, 2.5]}),
    parquet("truths as ids", {"user_id": [True, False]}),
    parquet("lists as ids", {"item_id": [[1], [2]]}),
    parquet("records as ids", {"item_id": [{"a": 1}, {"a": 2}]}),
    parquet("dates as ids", {"item_id": pa.array([1, 2], pa.date32())}),
    parquet("nulls as ids", {"item_id": pa.nulls(2)}),
    parquet("unsigned ids beyond int64", {"item_id": pa.array([1, 2**63], pa.uint64())}),
    parquet("a negative id in Parquet", {"item_id": [1, -2]}),
    parquet("lists as ratings", {"rating": [[1.0], [2.0]]}),
    parquet("words as ratings", {"rating": ["good", "bad"]}),
    parquet("moments as ratings", {"rating": pa.array([1, 2], pa.timestamp("s"))}),
    parquet("categories that are no words for ratings", {"rating": pa.array(["a", "b"]).dictionary_encode()}),
    events("text under the name of Parquet", HEAD + GOOD, "events.parquet", "events.parquet"),
    events("bytes under the name of Parquet", bytes(range(256)) * 9, "events.parquet", "events.parquet"),
    events("nothing but the marks of Parquet", b"PAR1PAR1", "events.parquet", "events.parquet"),
    written("INT96 and no user", bad._int96, "events.parquet"),
    # JSON lines.
    json_lines("a JSON array", "[" + json.dumps(dict.fromkeys(COLUMNS, 1)) + "]"),
    json_lines("a line that is no JSON", '{"user_id": 1\n'),
    json_lines("JSON that is no object", "7\n"),
    json_lines("a field that is not there", '{"user_id": 1}\n'),
    json_lines("a deep nest", "[" * 100_000),
    json_lines("a very deep object", '{"user_id":' * 100_000),
    json_lines("an id beyond int64", '{"user_id": 99999999999999999999, "item_id": 1}\n', "events.json"),
    json_lines("ids of two types", '{"user_id": 1, "item_id": 1}\n{"user_id": "a", "item_id": 1}\n', "EVENTS.JSONL"),
    json_lines("two objects on a line", (ONE + "\n") * 1001 + ONE + ONE + "\n"),
    json_lines("a field twice", '{"user_id": 1, "user_id": 2, "item_id": 1}\n'),
    json_lines("a JSON id of null", '{"user_id": 1, "item_id": 1}\n{"user_id": null, "item_id": 1}\n'),
    # Packed.
    events("gzip that was cut", GZ[:-20], "EVENTS.CSV.GZ", "EVENTS.CSV.GZ"),
    events("gzip that is text", HEAD + GOOD, "events.csv.gz", "events.csv.gz"),
    events(
        "gzip of a quote that never closes", gzip.compress((HEAD + '1,2,3,"4\n').encode()), "data.quotes", "e.csv.gz"
    ),
    events("bzip2 that is text", HEAD + GOOD, "events.csv.bz2", "events.csv.bz2"),
    events("xz that was cut", lzma.compress((HEAD + GOOD * 200).encode())[:-9], "events.csv.xz", "events.csv.xz"),
    events("zstandard that is text", HEAD + GOOD, "events.csv.zst", "events.csv.zst"),
    events("a zip that is text", HEAD + GOOD, "events.csv.zip", "events.csv.zip"),
    written("a zip of two files", lambda file: bad._zip(file, {"a.csv": HEAD, "b.csv": HEAD}), "events.csv.zip"),
    written("a zip of nothing", lambda file: bad._zip(file, {}), "events.csv.zip"),
    events("gzip of nothing", gzip.compress(b""), "events.csv.gz", "events.csv.gz"),
    # Directories.
    folder_of("a directory of other files", {"part-00000": "x", "notes.md": "x"}, "notes.md"),
    folder_of("a directory of hidden files", {"_a.csv": HEAD + GOOD, ".b.csv": HEAD}, "data.path"),
    folder_of("an empty file among others", {"a.csv": HEAD + GOOD, "b.csv": ""}, "b.csv"),
    folder_of("a glob of nothing", {"a.csv": HEAD + GOOD}, "data.path", "in/*.tsv"),
    folder_of("files of two types of ids", {"a.csv": HEAD + GOOD, "b.csv": HEAD + "x,y,3,1580702706\n"}, "b.csv"),
    folder_of("a Delta table", {"_delta_log/00.json": "{}", "a.csv": HEAD + GOOD}, "Delta"),
    folder_of("a file of a Delta table", {"_delta_log/00.json": "{}", "a.csv": HEAD + GOOD}, "Delta", "in/a.csv"),
    folder_of("a partition of a Delta table", {"_delta_log/0.json": "{}", "d=1/a.csv": HEAD + GOOD}, "Delta", "in/d=1"),
    folder_of("a glob in a Hudi table", {".hoodie/hoodie.properties": "x", "a.csv": HEAD + GOOD}, "Hudi", "in/*.csv"),
    folder_of("an Iceberg table", {"metadata/v1.metadata.json": "{}", "data/a.csv": HEAD + GOOD}, "Iceberg"),
    folder_of(
        "a partition without a value",
        {"item_id=__HIVE_DEFAULT_PARTITION__/a.csv": "user_id\n1\n"},
        "a.csv",
        columns=PAIR,
    ),
    # Catalogues.
    items("an empty catalogue", ""),
    items("a catalogue without rows", "item_id,title\n"),
    items("a catalogue without its column", "sku,title\n2,A\n", "data.item_columns"),
    items("an item twice", "item_id,title\n2,A\n2,B\n3,C\n", "data.items"),
    items("an item without an id", "item_id,title\n,A\n"),
    items("a column of numbers twice", "item_id,price,price\n2,1,2\n3,1,2\n", "'price'"),
    items("a title that swallows rows", 'item_id,title,year\n2,"A,1990\n3,B",1991\n', "data.quotes", title="title"),
    items("a title that never ends", 'item_id,title,year\n2,A,1990\n3,"B,1991\n', title="title"),
    items("a word as year", "item_id,title,year\n2,A,old\n3,B,1990\n", year="year"),
    items("a day as a number as year", "item_id,title,year\n2,A,19951122\n3,B,19961122\n", year="year"),
    items("half a year", pa.table(TITLED | {"year": [1990.5, 1991.0]}), year="year"),
    items("a truth as year", pa.table(TITLED | {"year": [True, False]}), year="year"),
    items("records as genres", pa.table(TITLED | {"genres": [{"a": 1}, {"a": 2}]}), genres="genres"),
    items("lists as titles", pa.table({"item_id": [2, 3], "title": [["A"], ["B"]]}), title="title"),
    items("a word as date", "item_id,until\n2,soon\n3,soon\n", available_until="until"),
    items("latin-1 in a title", "item_id,title\n2,\xe9\n3,B\n".encode("latin-1"), title="title"),
    items("JSON without the field", '{"sku": 2}\n', "items.jsonl", "items.jsonl"),
    items("strings in the catalogue, integers in the log", "item_id,title\na,A\nb,B\n", "data.id_type"),
    items("items that the catalogue lacks", "item_id,title\n2,A\n", "data.unknown_items"),
    items("a broken Parquet catalogue", b"PAR1 and no more", "items.parquet", "items.parquet"),
    beside("most items unknown and dropped", "items", "items.csv", "item_id,t\n9,A\n", "data.", unknown_items="drop"),
    # Users.
    users("an empty table of users", ""),
    users("users without their column", "user_id,sex\n1,f\n", "data.user_columns"),
    users("a user twice", "user_id,age\n1,30\n1,31\n", "data.users"),
    users("a word as age", "user_id,age\n1,old\n"),
    users("a user without an id", "user_id,age\n,30\n"),
    users("users of another type", "user_id,age\na,30\n", "data.id_type"),
    users("an open quote among users", 'user_id,age\n1,"30\n', "data.quotes"),
    # Other layouts.
    movielens("MovieLens without ratings", "ratings.csv", ""),
    movielens("MovieLens without a header", "ratings.csv", RATINGS.partition("\n")[2]),
    movielens("MovieLens with other names", "ratings.csv", RATINGS.replace("userId", "user")),
    movielens("MovieLens with a bad rating", "ratings.csv", RATINGS + "1,2,good,1580702706\n"),
    movielens("films without a header", "movies.csv", movies=MOVIES.partition("\n")[2]),
    movielens("films of other columns", "movies.csv", movies=MOVIES.replace("title", "name")),
    movielens("a film with an open quote", "movies.csv", movies=MOVIES + '3,"C (1992),War\n'),
    movielens("a film twice", "catalogue", movies=MOVIES + "1,A (1990),Drama\n"),
    movielens("links of other columns", "links.csv", links="a,b\n1,2\n"),
    movielens("tags of other columns", "tags.csv", tags="a,b\n1,2\n"),
    other("100k as noise", "movielens", {"u.data": b"\xff\xfe\x00", "u.item": "x"}, "u.data", size="100k"),
    other(
        "1m of three fields",
        "movielens",
        {"ratings.dat": "1::2::3\n", "movies.dat": "2::A::B\n"},
        "ratings.dat",
        size="1m",
    ),
    other("sequences that are no text", "sequences", {"a.txt": b"\xff\xfe\n"}, "a.txt", "in/a.txt"),
    other("sequences with a word among numbers", "sequences", {"a.txt": "1 2 x\n"}, "a.txt", "in/a.txt"),
    other("LightGCN without its test file", "lightgcn", {"train.txt": "1 2\n"}, "test.txt"),
    other("Amazon without its fields", "amazon", {"a.jsonl": '{"x": 1}\n\n'}, "a.jsonl"),
    other("Amazon that is no JSON", "amazon", {"a.jsonl": "x\n\n"}, "a.jsonl"),
    other("Amazon as other numbers", "amazon", {"a.csv": "1,2,3\n1,2,3\n"}, "a.csv"),
    other(
        "books without their columns",
        "book_crossing",
        {"Ratings.csv": "a,b\n1,2\n", "Books.csv": "a\n1\n"},
        "Ratings.csv",
    ),
    other("books without books", "book_crossing", {"Ratings.csv": "User-ID,ISBN,Book-Rating\n1,2,3\n"}, "Books.csv"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, case: Case) -> None:
    values = case.write(tmp_path)
    with pytest.raises(RecsysError) as refused:
        prepare_values(tmp_path / "out", **values)
    message = str(refused.value)
    assert message.isprintable() and case.word in message, message
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not (tmp_path / "out" / "users").exists() and not (tmp_path / "out" / "items.parquet").exists()


def test_the_corpus_is_large() -> None:
    assert len(CASES) >= 90 and len({case.name for case in CASES}) == len(CASES)
