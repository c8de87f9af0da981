"""What is read of an input: its files, its columns, its times; and what is said of what is not."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_ray.base.errors import DataError
from recsys_ray.base.proportion import in_proportion
from recsys_ray.base.storage import Location
from recsys_ray.base.types import FitContext
from recsys_ray.data.feature_tables import newest
from recsys_ray.data.prepare import times
from recsys_ray.data.prepare.driver import open_source, prepare
from recsys_ray.data.prepare.listing import expand, find
from recsys_ray.data.prepare.values import Place
from recsys_ray.data.prepared import Prepared
from recsys_ray.models.popularity import Popularity
from tests.data_worlds import COLUMNS, histories, prepare_events, prepare_values, settings_of, write_csv

DAY = 86_400
NOW = int(time.time())


def said(tmp_path: Path, **values: Any) -> tuple[Prepared, list[str]]:
    lines: list[str] = []
    return prepare(open_source(settings_of(**values)), Location.of(tmp_path / "out"), progress=lines.append), lines


def names(path: Path, **more: Any) -> list[str]:
    return [os.path.relpath(file.url, path) for file in expand(str(path), **more)]


# -- files -----------------------------------------------------------------------------------------------------------


def test_links_are_entered_once_and_loops_never(tmp_path: Path) -> None:
    inside, other = tmp_path / "in", tmp_path / "disk2"
    write_csv(inside / "1" / "a.csv", [(1, 2)], "user_id,item_id")
    write_csv(other / "b.csv", [(2, 2)], "user_id,item_id")
    write_csv(tmp_path / "c.csv", [(3, 2)], "user_id,item_id")
    (inside / "0-linked").symlink_to(other)
    (inside / "1" / "back").symlink_to(inside)  # a loop
    (inside / "0-same").symlink_to(inside / "1")  # there by its own name
    (inside / "latest.csv").symlink_to(inside / "1" / "a.csv")
    (inside / "c.csv").symlink_to(tmp_path / "c.csv")
    assert names(inside) == ["0-linked/b.csv", "1/a.csv", "c.csv"]
    (inside / "gone.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"gone\.csv is a link to nothing"):
        expand(str(inside))


def test_a_glob_may_name_directories_and_a_name_may_look_like_a_glob(tmp_path: Path) -> None:
    for name in ("m1/a.csv", "m2/deep/b.csv", "other/c.csv", "x[1].csv"):
        write_csv(tmp_path / name, [(1, 2)], "user_id,item_id")
    assert [file.name for file in expand(str(tmp_path / "m*"))] == ["a.csv", "b.csv"]
    assert [file.name for file in expand(str(tmp_path / "**" / "*.csv"))] == ["a.csv", "b.csv", "c.csv", "x[1].csv"]
    assert [file.name for file in expand(str(tmp_path / "x[1].csv"))] == ["x[1].csv"]


def test_files_that_are_not_read_are_told(tmp_path: Path) -> None:
    write_csv(tmp_path / "in" / "A.CSV", [(1, 2)], "user_id,item_id")
    for name in ("part-00000", "b.xlsx", "notes.md", "z.log", "_SUCCESS", ".hidden"):
        (tmp_path / "in" / name).write_text("x")
    assert len(find(str(tmp_path / "in")).left_out) == 4
    _, lines = said(tmp_path, source="table", path=str(tmp_path / "in"))
    assert "prepare: data.path: 1 files read, 4 others left out (b.xlsx, notes.md, part-00000, ...)" in lines


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_partitions_are_columns(tmp_path: Path, suffix: str) -> None:
    for user, day in ((7, "2020-01-01"), (8, "2020-01-02")):
        file = tmp_path / "in" / f"user_id={user}" / f"day={day}" / f"a.{suffix}"
        file.parent.mkdir(parents=True)
        if suffix == "parquet":
            pq.write_table(pa.table({"item_id": [1, 2]}), file)
        else:
            file.write_text("item_id\n1\n2\n" if suffix == "csv" else '{"item_id": 1}\n{"item_id": 2}\n')
    prepared = prepare_values(tmp_path / "out", source="table", path=str(tmp_path / "in"), columns={"timestamp": "day"})
    assert set(histories(prepared)) == {7, 8}
    assert prepared.manifest["timestamp_range"] == [1_577_836_800_000, 1_577_923_200_000]


def test_a_partition_of_a_catalogue_is_a_column(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "c" / "kind=film%20noir" / "i.csv", [(1, "A")], "item_id,title")
    events = write_csv(tmp_path / "e.csv", [(1, 1)], "user_id,item_id")
    columns = {"title": "title", "genres": "kind"}
    for items in (file, tmp_path / "c"):
        prepared = prepare_values(
            tmp_path / "out", source="table", path=str(events), items=str(items), item_columns=columns
        )
        assert prepared.items.column("genres").to_pylist() == [["film noir"]]


# -- columns ---------------------------------------------------------------------------------------------------------


def test_movielens_is_read_by_the_names_in_its_headers(tmp_path: Path) -> None:
    write_csv(tmp_path / "ratings.csv", [(1580702706, 242, 3.0, 196)], "timestamp,movieId,rating,userId")
    write_csv(tmp_path / "movies.csv", [("Drama", "A (1990)", 242)], "genres,title,movieId")
    write_csv(tmp_path / "tags.csv", [("slow", 9, 1, 242)], "tag,timestamp,userId,movieId")
    write_csv(tmp_path / "links.csv", [(862, 242, "0114709")], "tmdbId,movieId,imdbId")
    prepared = prepare_values(tmp_path / "out", source="movielens", path=str(tmp_path))
    assert histories(prepared) == {196: [(242, "train")]}
    (film,) = prepared.items.to_pylist()
    assert (film["title"], film["year"], film["genres"], film["text"]) == ("A (1990)", 1990, ["Drama"], "slow")
    assert (film["imdb_id"], film["tmdb_id"]) == ("tt0114709", "862")


@pytest.mark.parametrize(
    "year",
    [
        pa.array([datetime.date(1995, 11, 22), None]),
        pa.array([datetime.datetime(1995, 11, 22), None], pa.timestamp("ns")),
        pa.array(["1995-11-22", None]),
        pa.array([" 1995 ", ""]),
        pa.array(["1995", None]).dictionary_encode(),
        pa.array([1995.0, None]),
        pa.array([1995, None], pa.uint16()),
    ],
)
def test_the_year_of_whatever_says_one(tmp_path: Path, year: pa.Array) -> None:
    events = write_csv(tmp_path / "e.csv", [(1, 1)], "user_id,item_id")
    kinds = pa.array(["Drama|War", "War"]).dictionary_encode()
    table = {"item_id": [1, 2], "name": pa.array(["A", "B"]).dictionary_encode(), "kinds": kinds, "made": year}
    pq.write_table(pa.table(table), tmp_path / "i.parquet")
    columns = {"title": "name", "genres": "kinds", "year": "made"}
    paths = {"path": str(events), "items": str(tmp_path / "i.parquet")}
    items = prepare_values(tmp_path / "out", source="table", item_columns=columns, **paths).items
    assert items.column("year").to_pylist() == [1995, None]
    assert items.column("title").to_pylist() == ["A", "B"]
    assert items.column("genres").to_pylist() == [["Drama", "War"], ["War"]]


def test_a_column_has_one_role() -> None:
    for columns in ({"user_id": "a", "item_id": "a"}, {"rating": "t", "timestamp": "t"}):
        with pytest.raises(ValueError, match="a column has two roles"):
            settings_of(source="table", path="x", columns=columns)
    with pytest.raises(ValueError, match="text names a column twice"):
        settings_of(source="table", path="x", item_columns={"text": ["a", "a"]})


def test_blanks_round_numbers_are_no_part_of_them(tmp_path: Path) -> None:
    events = [(" 1", "2 ", " +5 ", "1580702706 "), ("1", "3", ".5", " 1580702707")]
    prepared = prepare_events(tmp_path, events)  # type: ignore[arg-type]
    assert histories(prepared) == {1: [(2, "train"), (3, "train")]}
    assert prepared.requests(0, ("train",)).histories.ratings_E.tolist() == [5.0, 0.5]


# -- times -----------------------------------------------------------------------------------------------------------


def test_days_as_numbers_are_days(tmp_path: Path) -> None:
    numbers = ["20180101", "20200229"]
    for column in (pa.array(numbers), pa.array(list(map(int, numbers))), pa.array(list(map(float, numbers)))):
        found, unit = times.timestamps(column, "t", Place("a"))
        assert (found.cast(pa.timestamp("ms")).cast(pa.date32()).to_pylist(), unit) == (
            [datetime.date(2018, 1, 1), datetime.date(2020, 2, 29)],
            "yyyymmdd",
        )
    days = np.arange("1900-01-01", "2100-12-31", dtype="datetime64[D]")
    written = pa.array([int(str(day).replace("-", "")) for day in days])
    assert np.array_equal(times.timestamps(written, "t", Place("a"))[0].to_numpy() // 86_400_000, days.astype(int))


def test_old_spark_times_do_not_wrap(tmp_path: Path) -> None:
    moments = [datetime.datetime(2020, 2, 29), datetime.datetime(9999, 12, 31)]
    table = pa.table({"user_id": [1, 2], "item_id": [1, 2], "t": pa.array(moments, pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    source = open_source(settings_of(source="table", path=str(tmp_path / "a.parquet"), columns={"timestamp": "t"}))
    found = source.read(source.chunks()[0]).events.column("timestamp").cast(pa.timestamp("ms")).to_pylist()
    assert found == moments


def test_the_range_of_times_is_told_and_an_odd_one_warned_of(tmp_path: Path) -> None:
    events = [(1, item, 1.0, 1_580_000_000 + item * DAY) for item in range(9)]
    file = write_csv(tmp_path / "e.csv", events)  # type: ignore[arg-type]
    lines = said(tmp_path, source="table", path=str(file), columns=COLUMNS)[1]
    assert "prepare: times from 2020-01-26 to 2020-02-03" in lines and not any("warning" in line for line in lines)
    write_csv(tmp_path / "e.csv", [*events, (2, 1, 1.0, 1000)])  # type: ignore[list-item]
    lines = said(tmp_path, source="table", path=str(file), columns=COLUMNS)[1]
    assert any(line.startswith("prepare: warning: the first interaction is of 1970-01-01") for line in lines)


def with_future(tmp_path: Path, keep: bool = False, **split: Any) -> tuple[Prepared, list[str]]:
    """Item 1 is old and much loved, item 2 is of this week, and one event on item 3 is of the year 2100."""
    events = [(user, 1, 1.0, NOW - 1000 * DAY + user) for user in range(30)]
    events += [(user, 2, 1.0, NOW - 2 * DAY + user) for user in range(20)]
    events += [(0, 3, 1.0, 4_102_444_800)]
    file = write_csv(tmp_path / "e.csv", events)  # type: ignore[arg-type]
    filters = {"future": "keep"} if keep else {}
    return said(
        tmp_path, source="table", path=str(file), columns=COLUMNS, filters=filters, split={"kind": "none"} | split
    )


def test_an_event_of_the_future_turns_nothing_round(tmp_path: Path) -> None:
    prepared, lines = with_future(tmp_path)
    assert any(line.startswith("prepare: 1 of 51 interactions lie in the future, and are filtered") for line in lines)
    assert histories(prepared)[0] == [(1, "train"), (2, "train"), (3, "train-")]  # had, but it teaches nothing
    assert newest(prepared) == (NOW - 2 * DAY + 19) * 1000
    data = prepared.train_data(("train",))
    for model in (Popularity(half_life_days=30.0), Popularity(window_days=30.0)):
        scores_I = model.fit_scorer(data, FitContext()).scores_I
        assert scores_I.argmax() == 1, model  # by the event of 2100, the window would hold nothing else
    kept, lines = with_future(tmp_path, keep=True)
    assert newest(kept) == 4_102_444_800_000 and any("1 of 51 interactions lie in the future" in line for line in lines)


def test_a_split_in_time_is_not_emptied_by_the_future(tmp_path: Path) -> None:
    prepared, _ = with_future(tmp_path, kind="temporal", test_ratio=0.02)
    assert prepared.manifest["interactions"]["test"] == 1
    assert prepared.targets(0, "test").items.items_E.tolist() == [1]


# -- in proportion ---------------------------------------------------------------------------------------------------


def test_a_gap_is_as_loud_as_it_is_wide() -> None:
    def line(found: int) -> str:
        return in_proportion(found, 1000, "posters are missing", "set root", 0.5, "content.missing_at_most")

    assert line(3) == "3 of 1,000 posters are missing"
    assert line(100) == "warning: 100 of 1,000 posters are missing; set root"
    assert line(500).startswith("warning")
    with pytest.raises(DataError, match=r"501 of 1,000 posters are missing, more than content\.missing_at_most=0\.5"):
        line(501)


def test_unknown_items_that_are_dropped_are_told(tmp_path: Path) -> None:
    items = write_csv(tmp_path / "items.csv", [(n, "A") for n in range(40)], "item_id,title")
    values = {"source": "table", "items": str(items), "item_columns": {"title": "title"}, "unknown_items": "drop"}
    for unknown, pattern in ((1, "prepare: 1 of 20 inter"), (2, "prepare: warning: 2 of 20 inter")):
        rows = [(1, n + 100 * (n < unknown)) for n in range(20)]
        file = write_csv(tmp_path / "e.csv", rows, "user_id,item_id")
        lines = said(tmp_path, path=str(file), **values)[1]
        assert any(line.startswith(pattern) for line in lines), lines
    file = write_csv(tmp_path / "e.csv", [(1, n + 100 * (n > 2)) for n in range(20)], "user_id,item_id")
    with pytest.raises(DataError, match=r"17 of 20 interactions are of unknown items.*data\.left_out_at_most"):
        said(tmp_path, path=str(file), **values)
