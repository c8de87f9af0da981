"""Every row that was read is in the funnel once, and what is outside the time window is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.data.prepare.driver import open_source, prepare
from recsys_ray.data.prepared import Prepared
from tests.data_worlds import COLUMNS, histories, prepare_events, settings_of, write_csv

DAY = 86_400
T0 = 1_577_836_800  # 2020-01-01
NEVER = frozenset(["valid", "test", "shown"])

Row = tuple[int, int, int, int]
rows_of = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(1, 5), st.integers(0, 9)), min_size=1, max_size=60
)
splits = st.sampled_from(
    [
        {"kind": "none"},
        {"kind": "leave_last_out", "valid": False, "min_history": 2},
        {"kind": "last_share", "test_ratio": 0.3},
        {"kind": "temporal", "test_from": "2020-01-06"},
        {"kind": "cold_users", "test_ratio": 0.3, "shown": 0.5},
    ]
)
filters_of = st.fixed_dictionaries(
    {"duplicates": st.sampled_from(["last", "first", "max", "sum", "keep"])},
    optional={
        "min_rating": st.sampled_from([2.0, 3.5, 5.0]),
        "start": st.sampled_from(["2020-01-03", "2020-01-05"]),
        "end": st.sampled_from(["2020-01-08", "2020-01-09T12:00:00"]),
        "newest_per_user": st.integers(1, 4),
        "k_core_users": st.integers(0, 2),
        "k_core_items": st.integers(0, 2),
    },
)


def events_of(rows: list[Row]) -> list[Any]:
    return [(user, item, rating, T0 + day * DAY) for user, item, rating, day in rows]


@settings(deadline=None, max_examples=120)
@given(
    rows=rows_of, filters=filters_of, split=splits, bad=st.integers(0, 2), known=st.integers(3, 8), add=st.booleans()
)
def test_what_became_of_the_rows_adds_up_to_what_was_read(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    filters: dict[str, Any],
    split: dict[str, Any],
    bad: int,
    known: int,
    add: bool,
) -> None:
    folder = tmp_path_factory.mktemp("funnel")
    events = events_of(rows) + [(1, 1, "no number", T0)] * bad
    items = write_csv(folder / "items.csv", [(item, f"t{item}") for item in range(known)], "item_id,title")
    values = {
        "filters": filters,
        "split": split,
        "bad_rows": "drop",
        "bad_rows_at_most": 1.0,
        "left_out_at_most": 1.0,
        "items": str(items),
    }
    try:
        prepared = prepare_events(folder, events, unknown_items="add" if add else "drop", shards=2, **values)
    except DataError:
        assume(False)
    funnel = prepared.manifest["funnel"]
    lost, used, seen = (funnel[name] for name in ("left_out", "used", "seen_only"))
    assert min([*lost.values(), *used.values(), *seen.values()]) >= 0
    assert funnel["read"] == len(events) == sum([*lost.values(), *used.values(), *seen.values()])
    assert lost.get("bad_rows", 0) == bad
    counted = pd.Series([part for found in histories(prepared).values() for _, part in found]).value_counts().to_dict()
    assert {name: count for name, count in used.items() if count} == {
        part: count for part, count in counted.items() if not part.endswith("-")
    }
    assert sum(seen.values()) == sum(count for part, count in counted.items() if part.endswith("-"))


@settings(deadline=None, max_examples=80)
@given(
    rows=rows_of,
    duplicates=st.sampled_from(["last", "first", "max", "sum", "keep"]),
    window=st.fixed_dictionaries({}, optional={"start": st.just("2020-01-04"), "end": st.just("2020-01-08")}),
    min_rating=st.sampled_from([None, 3.0]),
)
def test_a_window_teaches_what_the_rows_inside_teach_and_the_others_are_seen(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    duplicates: str,
    window: dict[str, str],
    min_rating: float | None,
) -> None:
    first, last = (3 if "start" in window else 0), (7 if "end" in window else 10)
    inside = [row for row in rows if first <= row[3] < last]
    assume(inside and any(min_rating is None or row[2] >= min_rating for row in inside))
    folder = tmp_path_factory.mktemp("window")
    common: dict[str, Any] = {"duplicates": duplicates, "min_rating": min_rating}
    catalogue = write_csv(folder / "items.csv", [(item, "t") for item in range(8)], "item_id,title")
    try:
        alone = prepare_events(folder / "a", events_of(inside), filters=common, items=str(catalogue))
    except DataError:
        assume(False)
    prepared = prepare_events(folder / "b", events_of(rows), filters=common | window, items=str(catalogue))
    wanted, found = histories(alone), histories(prepared)
    for user in {row[0] for row in rows}:
        positive = [entry for entry in found[user] if not entry[1].endswith("-")]
        assert positive == [entry for entry in wanted.get(user, []) if not entry[1].endswith("-")]
        assert {item for item, _ in found[user]} == {item for owner, item, *_ in rows if owner == user}


def test_items_of_nothing_but_the_outside_stay_out_of_a_vocabulary_without_a_catalogue(tmp_path: Path) -> None:
    events = [(1, 10, 5, T0), (1, 11, 5, T0 + 9 * DAY), (2, 12, 5, T0)]
    prepared = prepare_events(tmp_path, events, filters={"start": "2020-01-05"})
    assert prepared.items.column("item_id").to_pylist() == [11]
    assert histories(prepared) == {1: [(11, "train")], 2: []}
    assert prepared.manifest["funnel"]["left_out"]["outside_time_window"] == 2
    assert prepared.manifest["timestamp_range"] == [(T0 + 9 * DAY) * 1000] * 2


def test_an_unknown_item_outside_the_window_is_no_error(tmp_path: Path) -> None:
    items = write_csv(tmp_path / "items.csv", [(11, "t")], "item_id,title")
    events = [(1, 10, 5, T0), (1, 11, 5, T0 + 9 * DAY)]
    prepared = prepare_events(tmp_path, events, filters={"start": "2020-01-05"}, items=str(items))
    assert histories(prepared) == {1: [(11, "train")]}


def told(tmp_path: Path, events: list[Any], **values: Any) -> tuple[Prepared, list[str]]:
    lines: list[str] = []
    file = write_csv(tmp_path / "events.csv", events)
    source = open_source(settings_of(source="table", path=str(file), columns=COLUMNS, **values))
    return prepare(source, Location.of(tmp_path / "out"), progress=lines.append), lines


def test_the_funnel_is_told_in_aligned_lines(tmp_path: Path) -> None:
    events = [(user, item, 1 + item % 5, T0 + item * DAY) for user in range(30) for item in range(40)] + [(1, 1, 5, T0)]
    _, lines = told(tmp_path, events, filters={"min_rating": 2.0, "start": "2020-01-02"})
    at = lines.index("prepare: 1,201  read")
    assert lines[at + 1 : -1] == [
        "prepare:    30  left out: outside filters.start and end",
        "prepare:     1  left out: repeat a pair (filters.duplicates)",
        "prepare:   960  train",
        "prepare:   210  only seen: below filters.min_rating",
    ]


@pytest.mark.parametrize(
    ("unknown", "said"), [(1, None), (3, "3 of 20 interactions are of unknown items"), (12, "error")]
)
def test_unknown_items_are_told_in_proportion(tmp_path: Path, unknown: int, said: str | None) -> None:
    items = write_csv(tmp_path / "items.csv", [(item, "t") for item in range(20 - unknown)], "item_id,title")
    events = [(1 + item % 3, item, 5, T0) for item in range(20)]
    values: dict[str, Any] = {"items": str(items), "unknown_items": "drop"}
    if said == "error":
        with pytest.raises(
            DataError, match=r"12 of 20 interactions are of unknown items.*more than data.left_out_at_most=0.5"
        ):
            told(tmp_path, events, **values)
        return
    prepared, lines = told(tmp_path, events, **values)
    warnings = [line for line in lines if "warning" in line]
    assert len(warnings) == (said is not None) and all(str(said) in line for line in warnings), lines
    assert f"{unknown:>2}  left out: of items outside the catalogue" in "\n".join(lines)
    assert prepared.manifest["funnel"]["left_out"]["unknown_items"] == unknown
