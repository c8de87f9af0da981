"""Every source reads its format to the same table, whatever the chunks."""

from __future__ import annotations

import datetime
import hashlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError
from recsys_ray.data.config import utc_milliseconds
from recsys_ray.data.prepare import files
from recsys_ray.data.prepare.files import Chunk, parse_token_lines, read_lines
from recsys_ray.data.sources import Source, movielens, open_source
from recsys_ray.data.sources.base import USER_ONLY
from tests.data_worlds import dataset, histories, prepare_values, settings_of, write_csv


def rows(source: Source) -> list[tuple[Any, ...]]:
    tables = [source.read(chunk).events for chunk in source.chunks()]
    return [tuple(row.values()) for table in tables for row in table.to_pylist()]


def source_of(**values: Any) -> Source:
    source = open_source(settings_of(**values))
    copied: Source = pickle.loads(pickle.dumps(source))  # as it travels to a worker
    return copied


# -- MovieLens -----------------------------------------------------------------------------------------------------


def write_100k(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "u.data").write_text("196\t242\t3\t881250949\n22\t377\t1\t878887116\n")
    (directory / "u.genre").write_text("unknown|0\nAction|1\nComedy|2\n\n")
    (directory / "u.item").write_bytes(
        "242|Miséricorde, La (1996)|24-Jan-1997||http://x|0|1|1\n377|unknown||||1|0|0\n".encode("latin-1")
    )


def write_dat(directory: Path, encoding: str, tags: bool) -> None:
    directory.mkdir(parents=True)
    (directory / "ratings.dat").write_text("196::242::3::881250949\n22::377::1::878887116\n")
    movies = "242::Miséricorde, La: one (1996)::Action|Comedy\n377::unknown::(no genres listed)\n"
    (directory / "movies.dat").write_bytes(movies.encode(encoding))
    if tags:
        (directory / "tags.dat").write_text('5::242::dark "ish"::1215184630\n')


def write_movielens_csv(directory: Path) -> None:
    directory.mkdir(parents=True)
    write_csv(directory / "ratings.csv", [(196, 242, 3.0, 881250949), (22, 377, 1.0, 878887116)],
              "userId,movieId,rating,timestamp")  # fmt: skip
    write_csv(directory / "movies.csv", [(242, '"Miséricorde, La (1996)"', "Action|Comedy"), (377, "unknown", "")],
              "movieId,title,genres")  # fmt: skip
    tags = [(1, 242, "slow", 1), (2, 242, "Dark", 1), (3, 242, "dark ", 1), (4, 242, '"a, b"', 1)]
    write_csv(directory / "tags.csv", tags, "userId,movieId,tag,timestamp")


@pytest.mark.parametrize(
    ("size", "folder"),
    [
        ("100k", "ml-100k"),
        ("1m", "ml-1m"),
        ("10m", "ml-10M100K"),
        ("20m", "ml-20m"),
        ("latest-small", "ml-latest-small"),
    ],
)
@pytest.mark.parametrize("around", [False, True])
def test_movielens_in_every_generation_of_its_files(tmp_path: Path, size: str, folder: str, around: bool) -> None:
    directory = tmp_path / folder
    if size == "100k":
        write_100k(directory)
    elif size in ("1m", "10m"):
        write_dat(directory, "latin-1" if size == "1m" else "utf-8", tags=size == "10m")
    else:
        write_movielens_csv(directory)
    source = source_of(source="movielens", size=size, path=str(tmp_path if around else directory))
    assert rows(source) == [(196, 242, 3.0, 881250949000, 0), (22, 377, 1.0, 878887116000, 0)]
    items = source.items()
    assert items is not None
    first, second = schema.check(items, schema.items(pa.int64()), "items").to_pylist()
    assert first["title"].startswith("Miséricorde, La") and first["title"].endswith("(1996)")
    assert (first["year"], first["genres"]) == (1996, ["Action", "Comedy"])
    assert (second["title"], second["year"], second["genres"], second["text"]) == ("unknown", None, [], None)
    texts = {"10m": 'dark "ish"', "20m": "dark, a, b, slow", "latest-small": "dark, a, b, slow"}
    assert first["text"] == texts.get(size)


def test_the_year_is_what_ends_the_title() -> None:
    titles = ["2001 (1968)", "Blade Runner (Director's Cut) (1982) ", "(500) Days", "Show (2006-2007)", None]
    assert movielens.years(pa.array(titles)).to_pylist() == [1968, 1982, None, None, None]


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place to download from: the archive and its checksum, as files."""
    site = tmp_path / "site"
    write_movielens_csv(site / "ml-latest-small")
    with zipfile.ZipFile(site / "ml-latest-small.zip", "w") as archive:
        for file in (site / "ml-latest-small").iterdir():
            archive.write(file, f"ml-latest-small/{file.name}")
    digest = hashlib.md5((site / "ml-latest-small.zip").read_bytes()).hexdigest()
    (site / "ml-latest-small.zip.md5").write_text(f"MD5 (ml-latest-small.zip) = {digest}\n")
    monkeypatch.setattr(movielens, "BASE_URL", site.as_uri())
    return site


def test_movielens_is_downloaded_once_and_checked(tmp_path: Path, published: Path) -> None:
    values = {"source": "movielens", "cache_dir": str(tmp_path / "cache")}
    assert len(rows(source_of(**values))) == 2
    (published / "ml-latest-small.zip").unlink()
    assert len(rows(source_of(**values))) == 2
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["ml-latest-small"]


@pytest.mark.parametrize("fault", ["missing", "checksum", "no checksum"])
def test_a_failed_download_is_one_line_that_says_what_to_set(tmp_path: Path, published: Path, fault: str) -> None:
    if fault == "missing":
        (published / "ml-latest-small.zip").unlink()
    (published / "ml-latest-small.zip.md5").write_text("0" * 32 if fault == "checksum" else "gone")
    with pytest.raises(DataError, match="checksum" if "checksum" in fault else r"set data\.path") as failure:
        rows(source_of(source="movielens", cache_dir=str(tmp_path / "cache")))
    assert "\n" not in str(failure.value)
    assert list((tmp_path / "cache").iterdir()) == []


# -- lines of words ------------------------------------------------------------------------------------------------


def test_words_and_their_lines() -> None:
    words, lines = parse_token_lines("a  bb\tc\r\n\n ä x\nlast".encode(), "here")
    assert words.to_pylist() == ["a", "bb", "c", "ä", "x", "last"]
    assert lines.tolist() == [0, 0, 0, 2, 2, 3]
    assert parse_token_lines(b"", "here")[0].to_pylist() == []


def test_lightgcn_files_with_users_without_items(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0 5 3\n1\n2 7")
    (tmp_path / "test.txt").write_text("0 9\n1 \n")
    (tmp_path / "valid.txt").write_text("2 8\n")
    source = source_of(source="lightgcn", path=str(tmp_path))
    assert rows(source) == [
        (0, 5, 1.0, 0, schema.TRAIN),
        (0, 3, 1.0, 0, schema.TRAIN),
        (2, 7, 1.0, 0, schema.TRAIN),
        (1, None, 1.0, 0, USER_ONLY),
        (2, 8, 1.0, 0, schema.VALID),
        (0, 9, 1.0, 0, schema.TEST),
        (1, None, 1.0, 0, USER_ONLY),
    ]
    assert source.items() is None


def test_sequences_from_a_directory_in_the_order_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("w i2 i1\n")
    (tmp_path / "a.txt").write_text("u i9 i1 i9\n")
    (tmp_path / "_ignored.txt").write_text("x y\n")
    found = rows(source_of(source="sequences", path=str(tmp_path)))
    assert [row[:2] for row in found] == [("u", "i9"), ("u", "i1"), ("u", "i9"), ("w", "i2"), ("w", "i1")]


@pytest.mark.parametrize("size", [1, 2, 5, 13, 64, 10_000])
def test_ranges_of_bytes_hold_every_line_once(tmp_path: Path, size: int) -> None:
    lines = [f"{n} " + "x" * (n * 7 % 23) for n in range(50)]
    file = tmp_path / "lines.txt"
    for text in ("\n".join(lines), "\n".join(lines) + "\n"):
        file.write_text(text)
        total = len(text)
        pieces = [read_lines(Chunk(str(file), start, min(start + size, total))) for start in range(0, total, size)]
        assert b"".join(pieces).decode().splitlines() == lines


def test_a_byte_order_mark_is_no_part_of_the_first_id(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf1 2\n")
    assert rows(source_of(source="sequences", path=str(tmp_path)))[0][:2] == (1, 2)


# -- tables --------------------------------------------------------------------------------------------------------

TABLE: dict[str, Any] = {"u": ["x", "x", "y"], "i": [3, 4, 3], "r": [1.5, 2.0, 5.0], "t": [10, 20, 30]}
TABLE_COLUMNS = {"user_id": "u", "item_id": "i", "rating": "r", "timestamp": "t"}
TABLE_ROWS = [("x", 3, 1.5, 10_000, 0), ("x", 4, 2.0, 20_000, 0), ("y", 3, 5.0, 30_000, 0)]


@pytest.mark.parametrize("layout", ["csv", "tsv", "semicolon", "parquet", "directory", "glob", "url"])
def test_a_table_in_each_layout(tmp_path: Path, layout: str) -> None:
    table = pa.table(TABLE)
    path, values = tmp_path / f"a.{layout}", {}
    separator = {"csv": ",", "tsv": "\t", "semicolon": ";"}.get(layout)
    if separator:
        lines = [separator.join(table.column_names)]
        lines += [separator.join(map(str, row.values())) for row in table.to_pylist()]
        path = path.with_suffix(".tsv" if layout == "tsv" else ".csv")
        path.write_text("\n".join(lines))
        values = {"delimiter": ";"} if layout == "semicolon" else {}
    elif layout == "parquet":
        pq.write_table(table, path)
    else:
        for number in range(3):
            (tmp_path / "in" / "deep").mkdir(parents=True, exist_ok=True)
            pq.write_table(table.slice(number, 1), tmp_path / "in" / "deep" / f"{number}.parquet")
        (tmp_path / "in" / "_SUCCESS").touch()
        path = tmp_path / "in"
    text = str(path / "deep" / "*.parquet") if layout == "glob" else str(path)
    if layout == "url":
        memory = fsspec.filesystem("memory")
        with memory.open("/tables/a.parquet", "wb") as file:
            pq.write_table(table, file)
        text = "memory://tables/a.parquet"
    assert rows(source_of(source="table", path=text, columns=TABLE_COLUMNS, **values)) == TABLE_ROWS


def test_row_groups_are_packed_into_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_ray.data.prepare.tables.CHUNK_ROWS", 7)
    table = pa.table({"user_id": list(range(20)), "item_id": list(range(20))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    source = source_of(source="table", path=str(tmp_path / "a.parquet"))
    assert [(chunk.start, chunk.stop) for chunk in source.chunks()] == [(0, 2), (2, 4), (4, 6), (6, 7)]
    assert [row[0] for row in rows(source)] == list(range(20))
    assert source.estimated_rows() == 20


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([1, 2], pa.int8()),
        pa.array([1, 2], pa.uint64()),
        pa.array(["1", "2"]).cast(pa.large_string()),
        pa.array(["1", "2"]).dictionary_encode(),
    ],
)
@pytest.mark.parametrize("id_type", ["auto", "int64", "string"])
def test_id_types_of_parquet(tmp_path: Path, ids: pa.Array, id_type: str) -> None:
    pq.write_table(pa.table({"user_id": ids, "item_id": ids}), tmp_path / "a.parquet")
    found = rows(source_of(source="table", path=str(tmp_path / "a.parquet"), id_type=id_type))
    integers = id_type == "int64" or (id_type == "auto" and pa.types.is_integer(ids.type))
    assert [row[0] for row in found] == ([1, 2] if integers else ["1", "2"])


MOMENT = datetime.datetime(2020, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
MILLISECONDS = 1_580_702_706_000


@pytest.mark.parametrize(
    "column",
    [
        pa.array([MOMENT], pa.timestamp("us", "UTC")),
        pa.array([MOMENT], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("s")),
        pa.array([1_580_702_706], pa.int32()),
        pa.array([1_580_702_706_000]),
        pa.array([1_580_702_706.0]),
        pa.array(["1580702706"]),
        pa.array(["1580702706.0"]),
        pa.array(["2020-02-03T04:05:06"]),
        pa.array(["2020-02-03 04:05:06.000"]),
        pa.array(["2020-02-03T05:05:06+01:00"]),
        pa.array(["2020-02-03T04:05:06Z"]),
    ],
)
def test_every_way_to_write_a_time(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"user_id": [1], "item_id": [1], "t": column}), tmp_path / "a.parquet")
    found = rows(source_of(source="table", path=str(tmp_path / "a.parquet"), columns={"timestamp": "t"}))
    assert found[0][3] == MILLISECONDS == utc_milliseconds("2020-02-03T04:05:06")


def test_the_unit_of_timestamps_can_be_given(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [1], "item_id": [1], "t": [5000]}), tmp_path / "a.parquet")
    for unit, expected in (("auto", 5_000_000), ("s", 5_000_000), ("ms", 5000)):
        values = {"path": str(tmp_path / "a.parquet"), "columns": {"timestamp": "t"}, "timestamp_unit": unit}
        assert rows(source_of(source="table", **values))[0][3] == expected


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_catalogue_with_mapped_columns(tmp_path: Path, suffix: str) -> None:
    pq.write_table(pa.table({"user_id": [1], "item_id": [7]}), tmp_path / "a.parquet")
    columns: dict[str, Any] = {
        "sku": [7, 8], "name": ["Seven", ""], "plot": ["A\nplot", None], "cast": ["Ann", None],
        "kinds": ["Drama; Comedy", None], "made": [1999, None], "image": ["p/7.jpg", None],
        "price": [1.5, 2.5], "count": [3, 4],
    }  # fmt: skip
    path = tmp_path / f"items.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table(columns), path)
    else:
        path.write_text(
            'sku,name,plot,cast,kinds,made,image,price,count\n'
            '7,Seven,"A\nplot",Ann,Drama; Comedy,1999,p/7.jpg,1.5,3\n8,,,,,,,2.5,4\n'
        )  # fmt: skip
    mapped = {"item_id": "sku", "title": "name", "text": ["plot", "cast"], "genres": "kinds", "year": "made",
              "poster": "image"}  # fmt: skip
    values = {"path": str(tmp_path / "a.parquet"), "items": str(path), "item_columns": mapped, "genre_separator": ";"}
    items = source_of(source="table", **values).items()
    assert items is not None
    assert schema.check(items, schema.items(pa.int64()), "items").to_pylist() == [
        {"item_id": 7, "title": "Seven", "text": "A\nplot Ann", "genres": ["Drama", "Comedy"], "year": 1999,
         "poster": f"{tmp_path}/./p/7.jpg", "price": 1.5, "count_given": 3},
        {"item_id": 8, "title": None, "text": None, "genres": [], "year": None, "poster": None, "price": 2.5,
         "count_given": 4},
    ]  # fmt: skip


def test_genres_may_be_lists(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [1], "item_id": [7]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"item_id": [7, 8], "g": [["A", "B"], None]}), tmp_path / "i.parquet")
    paths = {"path": str(tmp_path / "a.parquet"), "items": str(tmp_path / "i.parquet")}
    items = source_of(source="table", item_columns={"genres": "g"}, **paths).items()
    assert items is not None and items.column("genres").to_pylist() == [["A", "B"], []]


# -- all -----------------------------------------------------------------------------------------------------------


def test_the_fingerprint_changes_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("1 2\n")
    source = source_of(source="sequences", path=str(file))
    before = source.fingerprint()
    assert source.fingerprint() == before
    file.write_text("1 2 3\n")
    assert source.fingerprint() != before


def test_estimates_are_near_on_real_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SAMPLE_BYTES", 2**14)
    for values, count in (
        ({"source": "movielens", "path": dataset("ml-latest-small")}, 100_836),
        ({"source": "lightgcn", "path": dataset("gowalla")}, 1_027_370),
        ({"source": "sequences", "path": dataset("amazon-beauty/Beauty.txt")}, 198_502),
    ):
        assert 0.5 < source_of(**values).estimated_rows() / count < 2


# --- MovieLens 100K as tables


def enriched(folder: Path) -> Path:
    """Two users, three films of which one stands twice, one poster."""
    (folder / "posters").mkdir(parents=True)
    (folder / "ratings.csv").write_text(
        "user_id,movie_id,rating,unix_timestamp\n1,10,5,881250949\n1,11,3,881250950\n2,10,4,1\n"
    )
    (folder / "items.csv").write_text(
        "movie_id,title,genre_unknown,Action,SciFi,year,overview,original_language,runtime\n"
        '10,First (1995),0,1,1,1995,"Long, with ""quotes"".",en,81.0\n'
        "11,Second (1996),1,0,0,1996,,en,\n"
        "10,Again (1995),0,0,0,1995,other,en,1.0\n"
        "12,Third,0,0,1,,text,en,90\n"
    )
    (folder / "users.csv").write_text("user_id,age,sex,occupation\n1,24,M,technician\n2,53,F,other\n")
    (folder / "posters" / "10.jpg").write_bytes(b"x")
    return folder


def test_movielens_100k_as_enriched_tables(tmp_path: Path) -> None:
    folder = enriched(tmp_path / "ml-100k")
    for path in (folder, tmp_path):
        prepared = prepare_values(tmp_path / f"out-{path.name}", source="movielens", size="100k", path=str(path))
        rows = {row["item_id"]: row for row in prepared.items.to_pylist()}
        assert sorted(rows) == [10, 11, 12]
        assert rows[10]["title"] == "First (1995)" and rows[10]["text"] == 'Long, with "quotes".'
        assert rows[10]["genres"] == ["Action", "Sci-Fi"] and rows[11]["genres"] == []
        assert (rows[10]["year"], rows[12]["year"], rows[11]["text"]) == (1995, None, None)
        assert rows[10]["poster"].endswith("posters/10.jpg") and rows[11]["poster"] is None
        assert (rows[10]["runtime"], rows[11]["runtime"]) == (81.0, None)
        assert histories(prepared)[1] == [(10, "train"), (11, "train")]


def test_an_enriched_table_without_a_column_is_one_line(tmp_path: Path) -> None:
    folder = enriched(tmp_path / "ml-100k")
    (folder / "items.csv").write_text("movie_id,title,year\n1,a,1990\n")
    with pytest.raises(DataError, match=r"items\.csv: no column 'overview'; found movie_id, title, year"):
        prepare_values(tmp_path / "out", source="movielens", size="100k", path=str(folder))
