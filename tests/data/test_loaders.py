"""Layouts of published data sets, packed text, JSON lines, kinds of events, rows that can't be read."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare import files
from recsys_ray.data.prepare.driver import prepare
from recsys_ray.data.prepare.files import Chunk, byte_ranges, read_blocks
from recsys_ray.data.sources import open_source
from tests.data.test_sources import TABLE_COLUMNS, TABLE_ROWS, rows, source_of, write_movielens_csv
from tests.data_worlds import COLUMNS, histories, prepare_events, prepare_values, settings_of, write_csv

CSV = "u,i,r,t\nx,3,1.5,10\nx,4,2.0,20\ny,3,5.0,30\n"


def _zip(data: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.csv", data)


def _zst(data: bytes, path: Path) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(data)


PACKERS: dict[str, Callable[[bytes, Path], Any]] = {
    "gz": lambda data, path: path.write_bytes(gzip.compress(data)),
    "bz2": lambda data, path: path.write_bytes(bz2.compress(data)),
    "xz": lambda data, path: path.write_bytes(lzma.compress(data)),
    "zst": _zst,
    "zip": _zip,
}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("mark", [b"", files.MARK])
def test_packed_text_is_read_as_what_is_inside(tmp_path: Path, packer: str, mark: bytes) -> None:
    PACKERS[packer](mark + CSV.encode(), tmp_path / f"a.CSV.{packer.upper()}")
    assert rows(source_of(source="table", path=str(tmp_path), columns=TABLE_COLUMNS)) == TABLE_ROWS


@pytest.mark.parametrize("packer", PACKERS)
def test_packed_text_that_was_cut_is_one_line(tmp_path: Path, packer: str) -> None:
    file = tmp_path / f"a.csv.{packer}"
    PACKERS[packer]("".join(CSV[8:] * 500).encode(), file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match="unpacked") as failure:
        rows(source_of(source="table", path=str(file), columns=TABLE_COLUMNS, column_names=["u", "i", "r", "t"]))
    assert "\n" not in str(failure.value)


@settings(deadline=None)
@given(lines=st.lists(st.text("abc", max_size=9), max_size=12), size=st.integers(1, 40), ends=st.booleans())
def test_blocks_of_a_packed_file_hold_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], size: int, ends: bool
) -> None:
    file = tmp_path_factory.mktemp("packed") / "a.txt.gz"
    text = "\n".join(lines) + ("\n" if ends else "")
    file.write_bytes(gzip.compress(text.encode()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK_BYTES", size)
        blocks = [block.decode() for chunk in byte_ranges(Location.of(str(file))) for block in read_blocks(chunk)]
    assert "".join(blocks) == text
    assert all(block.endswith("\n") for block in blocks[:-1])


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".NDJSON", ".jsonl.gz"])
def test_a_table_of_json_lines(tmp_path: Path, suffix: str) -> None:
    found = [
        {"u": u, "i": i, "r": r, "t": t, "text": "not read"} for u, i, r, t in [("x", 3, 1.5, 10), ("x", 4, 2, 20)]
    ]
    data = "\n".join(map(json.dumps, [*found, {"u": "y", "i": 3, "r": 5, "t": 30}])).encode()
    file = tmp_path / f"a{suffix}"
    file.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    assert rows(source_of(source="table", path=str(tmp_path), columns=TABLE_COLUMNS)) == TABLE_ROWS


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ('[{"u": 1, "i": 2}]', "one JSON array; write one object a line"),
        ("1,2\n", "is not a JSON object|is not JSON"),
        ('{"u": 1, "item": 2}\n', "no field 'i'; found item, u; set data.columns"),
        ('{"u": 1, "i": 2}\n{"u": 1\n', "JSON"),
        ('{"u": 1, "i": 2}\n{"u": 1, "i": "b"}\n', "several types|changed"),
    ],
)
def test_broken_json_lines_are_one_line(tmp_path: Path, text: str, pattern: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(DataError, match=pattern) as failure:
        rows(source_of(source="table", path=str(tmp_path), columns={"user_id": "u", "item_id": "i"}))
    assert "\n" not in str(failure.value)


def test_a_catalogue_of_packed_json_lines(tmp_path: Path) -> None:
    items = [{"id": "a", "name": "A", "tags": ["x", "y"], "more": {"b": 1}}, {"id": "b", "name": None, "tags": []}]
    (tmp_path / "items.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, items)).encode()))
    write_csv(tmp_path / "a.csv", [("u", "a", 1, 1)])
    columns = {"item_id": "id", "title": "name", "genres": "tags"}
    source = source_of(
        source="table", path=str(tmp_path / "a.csv"), items=str(tmp_path / "items.jsonl.gz"), item_columns=columns
    )
    found = source.items()
    assert found is not None
    assert found.select(["item_id", "title", "genres"]).to_pylist() == [
        {"item_id": "a", "title": "A", "genres": ["x", "y"]},
        {"item_id": "b", "title": None, "genres": []},
    ]


# -- quotes --------------------------------------------------------------------------------------------------------


def test_tabs_have_no_quotes_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('u\ti\nx\t5" pipe\ny\t"quoted"\n')
    columns = {"user_id": "u", "item_id": "i"}
    assert [row[1] for row in rows(source_of(source="table", path=str(tmp_path), columns=columns))] == [
        '5" pipe',
        '"quoted"',
    ]
    with pytest.raises(DataError, match=r"set data\.quotes=false"):
        (tmp_path / "a.tsv").write_text('u\ti\nx\t"5 pipe\ny\tquoted"\n')
        rows(source_of(source="table", path=str(tmp_path), columns=columns, quotes=True))


FIELD = st.text(st.sampled_from('ab",'), min_size=1, max_size=4)


@settings(deadline=None)
@given(fields=st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=8))
def test_a_line_is_a_row_or_the_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, fields: list[tuple[str, str]]
) -> None:
    file = tmp_path_factory.mktemp("quotes") / "a.csv"
    file.write_text("u,i\n" + "".join(f"{user},{item}\n" for user, item in fields))
    try:
        found = rows(
            source_of(source="table", path=str(file), columns={"user_id": "u", "item_id": "i"}, id_type="string")
        )
    except DataError as refusal:
        assert "\n" not in str(refusal)
    else:
        assert len(found) == len(fields)


# -- kinds of events -----------------------------------------------------------------------------------------------

SHOP = [
    ("u", "a", "view", 1),
    ("u", "a", "buy", 2),
    ("u", "a", "view", 3),
    ("u", "b", "skip", 4),
    ("v", "b", "view", 5),
]


def prepare_shop(directory: Path, weights: dict[str, float | None], **values: Any) -> Any:
    file = write_csv(directory / "shop.csv", SHOP, "user_id,item_id,kind,timestamp")
    columns = {"event": "kind", "timestamp": "timestamp"}
    return prepare_values(
        directory / "out", source="table", path=str(file), columns=columns, event_weights=weights, **values
    )


def test_events_count_what_their_kind_weighs(tmp_path: Path) -> None:
    prepared = prepare_shop(tmp_path, {"view": 1, "buy": 5, "skip": 0})
    users = {row["user_id"]: row for row in prepared.shard(0).to_pylist()}
    assert users["u"]["ratings"] == [5, 0]  # the purchase stays, whatever came behind it
    assert histories(prepared) == {"u": [("a", "train"), ("b", "train-")], "v": [("b", "train")]}


def test_events_of_a_pair_may_be_summed(tmp_path: Path) -> None:
    prepared = prepare_shop(tmp_path, {"view": 1, "buy": 5, "skip": None}, filters={"duplicates": "sum"})
    users = {row["user_id"]: row for row in prepared.shard(0).to_pylist()}
    assert (users["u"]["ratings"], users["u"]["timestamps"]) == ([7], [3000])
    assert prepared.manifest["dropped"]["events_without_weight"] == 1


def test_a_sum_teaches_when_one_of_its_events_does(tmp_path: Path) -> None:
    prepared = prepare_shop(tmp_path, {"view": 0, "buy": 5, "skip": None}, filters={"duplicates": "sum"})
    assert histories(prepared) == {"u": [("a", "train")], "v": [("b", "train-")]}


@pytest.mark.parametrize(
    ("columns", "weights", "pattern"),
    [
        ({"event": "kind"}, {}, "go together"),
        ({}, {"view": 1}, "go together"),
        ({"event": "kind"}, {"view": 0}, "nothing to learn from"),
    ],
)
def test_events_and_weights_go_together(columns: dict[str, Any], weights: dict[str, float], pattern: str) -> None:
    with pytest.raises(ValidationError, match=pattern):
        settings_of(source="table", path="x", columns=columns, event_weights=weights)


def test_an_unknown_kind_of_event_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 4: 'skip' is no kind of event_weights \(view, buy\); give it a weight"):
        prepare_shop(tmp_path, {"view": 1, "buy": 5})


@settings(deadline=None, max_examples=30)
@given(events=st.lists(st.tuples(st.sampled_from("uv"), st.sampled_from("ab"), st.integers(1, 5)), min_size=1))
@pytest.mark.parametrize("policy", ["max", "sum"])
def test_repeats_by_a_plain_loop(
    tmp_path_factory: pytest.TempPathFactory, policy: str, events: list[tuple[str, str, int]]
) -> None:
    prepared = prepare_events(
        tmp_path_factory.mktemp("repeats"),
        [(user, item, rating, time) for time, (user, item, rating) in enumerate(events)],
        filters={"duplicates": policy},
    )
    expected: dict[tuple[str, str], tuple[float, int]] = {}
    for time, (user, item, rating) in enumerate(events):
        before = expected.get((user, item), (0, 0))
        if policy == "sum":
            expected[user, item] = (before[0] + rating, time)
        elif rating >= before[0]:
            expected[user, item] = (rating, time)
    items = prepared.items.column("item_id").to_pylist()
    found = {
        (row["user_id"], items[item]): (rating, time // 1000)
        for row in prepared.shard(0).to_pylist()
        for item, rating, time in zip(row["items"], row["ratings"], row["timestamps"], strict=True)
    }
    assert found == expected


# -- rows that can't be read ---------------------------------------------------------------------------------------

BAD = ["1,2,nan,1000", ",2,3,1000", "1,,3,1000", "-1,2,3,1000", "1,2,good,1000", "1,2,3,never", "1,2", "1,2,3,1000,5"]


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_row_is_dropped_and_counted(tmp_path: Path, bad: str) -> None:
    good = "".join(f"{n},{n % 7},3,{1000 + n}\n" for n in range(1, 20))
    (tmp_path / "a.csv").write_text(f"user_id,item_id,rating,timestamp\n{good}{bad}\n{good.replace(',3,', ',4,')}")
    values = {"source": "table", "path": str(tmp_path / "a.csv"), "columns": COLUMNS}
    said: list[str] = []
    source = open_source(settings_of(**values, bad_rows="drop", bad_rows_at_most=0.1))
    prepared = prepare(source, Location.of(tmp_path / "out"), progress=said.append)
    assert prepared.manifest["dropped"]["bad_rows"] == 1
    assert prepared.manifest["interactions_read"] == 38
    assert any("1 rows left out: bad_rows; the first: " in line and "a.csv" in line for line in said)
    with pytest.raises(DataError, match=r"1 of 39 rows can't be read, more than data.bad_rows_at_most=0.01 .*a\.csv"):
        prepare_values(tmp_path / "strict", **values, bad_rows="drop")
    with pytest.raises(DataError, match=r"a\.csv: "):
        prepare_values(tmp_path / "error", **values)


# -- Amazon --------------------------------------------------------------------------------------------------------

REVIEWS = [("A1X2Y3Z4W5V6", "B000000001", 5.0, 1400000000), ("A9X2Y3Z4W5V6Q", "0001713353", 2.0, 1400000001)]


def write_amazon(directory: Path, layout: str) -> Path:
    file = directory / {"2014 json": "r.json.gz", "2014 csv": "r.csv", "2018 csv": "r.csv"}.get(
        layout, f"r.{layout[5:]}"
    )
    lines = []
    for user, item, rating, time in REVIEWS:
        match layout:
            case "2014 json":
                review = {
                    "reviewerID": user,
                    "asin": item,
                    "overall": rating,
                    "unixReviewTime": time,
                    "helpful": [0, 1],
                }
                lines.append(json.dumps(review))
            case "2023 jsonl":
                review = {
                    "user_id": user,
                    "parent_asin": item,
                    "asin": "B1",
                    "rating": rating,
                    "timestamp": time * 1000,
                }
                lines.append(json.dumps(review | {"images": [], "text": "x", "verified_purchase": True}))
            case "2014 csv":
                lines.append(f"{user},{item},{rating},{time}")
            case "2018 csv":
                lines.append(f"{item},{user},{rating},{time}")
            case "2023 csv":
                lines.append(f"{user},{item},{rating},{time * 1000}")
    if layout == "2023 csv":
        lines.insert(0, "user_id,parent_asin,rating,timestamp")
    data = ("\n".join(lines) + "\n").encode()
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
    return file


@pytest.mark.parametrize("layout", ["2014 json", "2014 csv", "2018 csv", "2023 jsonl", "2023 csv"])
def test_amazon_reviews_in_every_layout(tmp_path: Path, layout: str) -> None:
    file = write_amazon(tmp_path, layout)
    expected = [(user, item, rating, time * 1000, schema.TRAIN) for user, item, rating, time in REVIEWS]
    assert rows(source_of(source="amazon", path=str(file))) == expected


PRODUCTS = {
    2014: "{'asin': 'B000000001', 'title': 'A &amp; B', 'description': \"it's\", 'price': 9.5, 'imUrl': 'http://x/a.jpg',"
    " 'categories': [['Books', 'Art'], ['Books', 'Film']]}",
    2018: json.dumps(
        {"asin": "B000000001", "title": "A &amp; B", "description": ["it's"], "price": "$9.50", "imageURL": ["http://y"],
         "imageURLHighRes": ["http://x/a.jpg"], "category": ["Books", "Art", "Film"]}
    ),
    2023: json.dumps(
        {"parent_asin": "B000000001", "title": "A & B", "description": ["it's"], "features": [], "price": 9.5,
         "images": [{"large": "http://y", "hi_res": "http://x/a.jpg"}], "categories": ["Books", "Art", "Film"]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("year", PRODUCTS)
def test_amazon_products_in_every_layout(tmp_path: Path, year: int) -> None:
    file = tmp_path / "meta.jsonl.gz"
    file.write_bytes(gzip.compress(f"{PRODUCTS[year]}\n{PRODUCTS[year]}\n".encode()))
    found = source_of(source="amazon", path=str(write_amazon(tmp_path, "2014 csv")), items=str(file)).items()
    assert found is not None
    assert found.to_pylist() == [
        {"item_id": "B000000001", "title": "A & B", "text": "it's", "genres": ["Books", "Art", "Film"], "year": None,
         "poster": "http://x/a.jpg", "price": 9.5}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "pattern"),
    [
        ("a.csv", "1,2,3\n4,5,6\n", "no ratings of Amazon"),
        ("a.json", '{"who": 1}\n{"who": 2}\n', "no reviews of Amazon, its fields are who"),
        ("a.json", "nothing\n\n", "does not begin with a JSON object"),
    ],
)
def test_what_is_not_amazons_is_one_line(tmp_path: Path, name: str, text: str, pattern: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=pattern):
        rows(source_of(source="amazon", path=str(tmp_path / name)))


# -- Book-Crossing -------------------------------------------------------------------------------------------------


def write_books(directory: Path, published: bool) -> None:
    mark = ";" if published else ","
    quote = '"' if published else ""

    def line(*fields: str) -> str:
        return mark.join(f"{quote}{field}{quote}" for field in fields) + "\n"

    books = line("ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher", "Image-URL-S", "Image-URL-L")
    title = r"The \"Real\" Café; one" if published else "The Real Café"
    books += line("034545104X", title, "Ann &amp; Bob", "2002", "Ballantine", "http://s", "http://l")
    books += line("0155061224", "Rites", "Judith", "0", "Heinle", "http://s", "http://m")
    ratings = (
        line("User-ID", "ISBN", "Book-Rating") + line("276725", "034545104x", "0") + line("276726", "0155061224", "5")
    )
    ratings += line("276726", "9999999999", "7")
    prefix = "BX-" if published else ""
    (directory / f"{prefix}Books.csv").write_bytes(books.encode("latin-1" if published else "utf-8"))
    (directory / ("BX-Book-Ratings.csv" if published else "Ratings.csv")).write_text(ratings)


@pytest.mark.parametrize("published", [True, False])
def test_book_crossing(tmp_path: Path, published: bool) -> None:
    write_books(tmp_path, published)
    prepared = prepare_values(tmp_path / "out", source="book_crossing", path=str(tmp_path))
    assert histories(prepared) == {
        "276725": [("034545104X", "train-")],
        "276726": [("0155061224", "train"), ("9999999999", "train")],
    }
    books = {row["item_id"]: row for row in prepared.items.to_pylist()}
    assert books["034545104X"]["title"] == ('The "Real" Café; one' if published else "The Real Café")
    assert books["034545104X"]["text"].endswith("Ann & Bob Ballantine")
    assert [books[isbn]["year"] for isbn in sorted(books)] == [None, 2002, None]


def test_book_crossing_with_unrated_books_as_ratings(tmp_path: Path) -> None:
    write_books(tmp_path, True)
    prepared = prepare_values(tmp_path / "out", source="book_crossing", path=str(tmp_path), unrated=6.0)
    users = {row["user_id"]: row for row in prepared.shard(0).to_pylist()}
    assert users["276725"]["ratings"] == [6.0]
    assert histories(prepared)["276725"] == [("034545104X", "train")]


def test_a_directory_without_the_files_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs BX-Book-Ratings.csv and BX-Books.csv or Ratings.csv"):
        rows(source_of(source="book_crossing", path=str(tmp_path)))


def test_films_carry_their_ids_elsewhere(tmp_path: Path) -> None:
    write_movielens_csv(tmp_path / "ml-latest-small")
    write_csv(
        tmp_path / "ml-latest-small" / "links.csv",
        [(377, "0111257", ""), (242, "0116985", "1")],
        "movieId,imdbId,tmdbId",
    )
    items = source_of(source="movielens", path=str(tmp_path)).items()
    assert items is not None
    assert items.column("imdb_id").to_pylist() == ["tt0116985", "tt0111257"]
    assert items.column("tmdb_id").to_pylist() == ["1", None]


def test_a_chunk_of_a_packed_file_is_the_whole_file(tmp_path: Path) -> None:
    PACKERS["gz"](CSV.encode(), tmp_path / "a.csv.gz")
    file = Location.of(str(tmp_path / "a.csv.gz"))
    assert byte_ranges(file, 8, size=2) == [Chunk(file.url, 8, file.size())]
