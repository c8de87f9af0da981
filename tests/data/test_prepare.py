"""Filters, order, duplicates, k-core and splits on worlds small enough to work out by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base.errors import DataError
from recsys_ray.base.manifest import write_manifest
from recsys_ray.base.storage import Location
from recsys_ray.data import split as splits
from recsys_ray.data.prepare.driver import num_shards_for, open_source, prepare
from recsys_ray.data.prepare.keys import hash_ids
from recsys_ray.data.prepared import Prepared
from tests.data_worlds import dataset, histories, parts, prepare_events, prepare_values, settings_of, write_csv

FIVE = [("u", f"i{n}", 5.0, 1000 + n) for n in range(5)]


def random_events(seed: int, users: int = 40, items: int = 25, count: int = 400) -> list[tuple[Any, Any, float, int]]:
    rng = np.random.default_rng(seed)
    return [
        (int(u), int(i), float(r), int(t))
        for u, i, r, t in zip(
            rng.integers(0, users, count),
            rng.integers(0, items, count),
            rng.integers(1, 6, count),
            rng.integers(1000, 1060, count),
            strict=True,
        )
    ]


# -- order, ids, duplicates ----------------------------------------------------------------------------------------


def test_events_are_in_time_order_and_ties_keep_the_order_of_the_file(tmp_path: Path) -> None:
    events = [("u", "c", 1, 2000), ("u", "z", 1, 1000), ("u", "a", 1, 1000), ("u", "m", 1, 1000)]
    assert histories(prepare_events(tmp_path, events))["u"] == [(i, "train") for i in "zamc"]


def test_ties_across_files_follow_the_order_of_the_files(tmp_path: Path) -> None:
    for name, item in (("a.csv", "z"), ("b.csv", "m"), ("c.csv", "a")):
        write_csv(tmp_path / "in" / name, [("u", item, 1, 1000)])
    columns = {"timestamp": "timestamp"}
    prepared = prepare_values(tmp_path / "out", source="table", path=str(tmp_path / "in"), columns=columns)
    assert [item for item, _ in histories(prepared)["u"]] == ["z", "m", "a"]


@pytest.mark.parametrize(
    ("users", "items", "user_type", "item_type"),
    [
        ([1, 20, 3], ["b", "a", "c"], pa.int64(), pa.string()),
        (["x", "y", "z"], [10, 9, 8], pa.string(), pa.int64()),
        (["007", "08", "9a"], ["ä b", "x", "0x"], pa.string(), pa.string()),
    ],
)
def test_ids_come_back_as_given(
    tmp_path: Path, users: list[Any], items: list[Any], user_type: pa.DataType, item_type: pa.DataType
) -> None:
    events = [(user, item, 1.0, 1000) for user, item in zip(users, items, strict=True)]
    prepared = prepare_events(tmp_path, events, shards=2)
    assert histories(prepared) == {user: [(item, "train")] for user, item in zip(users, items, strict=True)}
    assert prepared.user_id_type == user_type
    assert prepared.items.schema.field("item_id").type == item_type
    assert prepared.items.column("item_id").to_pylist() == sorted(items)


def test_users_are_sorted_inside_a_shard_and_numbered_on_from_shard_to_shard(tmp_path: Path) -> None:
    prepared = prepare_events(tmp_path, random_events(0), shards=3)
    following = 0
    for shard in range(3):
        requests = prepared.requests(shard, ("train",))
        assert requests.user_ids.to_pylist() == sorted(requests.user_ids.to_pylist())
        assert requests.users_B.tolist() == list(range(following, following + len(requests)))
        following += len(requests)
    assert following == prepared.num_users == len({event[0] for event in random_events(0)})


@pytest.mark.parametrize(
    ("policy", "expected"), [("last", ["b", "a"]), ("first", ["a", "b"]), ("keep", ["a", "b", "a"])]
)
def test_duplicates(tmp_path: Path, policy: str, expected: list[str]) -> None:
    events = [("u", "a", 1, 1000), ("u", "b", 2, 2000), ("u", "a", 3, 3000)]
    prepared = prepare_events(tmp_path, events, filters={"duplicates": policy})
    assert [item for item, _ in histories(prepared)["u"]] == expected
    assert prepared.manifest["dropped"]["repeated"] == 3 - len(expected)


def test_a_repeated_pair_can_be_refused(tmp_path: Path) -> None:
    events = [("u", "a", 1, 1000), ("w", "a", 1, 1000), ("u", "a", 3, 3000)]
    with pytest.raises(DataError, match=r"1 interactions repeat .*\('u', 'a'\)"):
        prepare_events(tmp_path, events, filters={"duplicates": "error"})


# -- row filters ---------------------------------------------------------------------------------------------------


def test_ratings_below_the_threshold_are_seen_but_neither_learned_nor_targets(tmp_path: Path) -> None:
    events = [("u", "low", 3.9, 1000), ("u", "at", 4.0, 2000), ("w", "bad", 1.0, 1000)]
    prepared = prepare_events(tmp_path, events, filters={"min_rating": 4.0}, shards=1)
    assert histories(prepared) == {"u": [("low", "train-"), ("at", "train")], "w": [("bad", "train-")]}
    requests = prepared.requests(0, ("train",))
    items = prepared.items.column("item_id").to_pylist()
    assert [items[row] for row in requests.histories.items_E] == ["at"]
    assert [[items[row] for row in requests.seen.row(user)] for user in range(2)] == [["low"], ["bad"]]
    assert prepared.manifest["users_without_history"] == 1
    assert prepared.manifest["num_interactions"] == 1 and prepared.manifest["num_seen_only"] == 2


def test_the_time_window_is_half_open_and_users_outside_it_stay_without_history(tmp_path: Path) -> None:
    day = 86_400
    events = [("u", f"i{n}", 1.0, 1_577_836_800 + n * day) for n in range(5)] + [("w", "x", 1.0, 1_577_836_800)]
    messages: list[str] = []
    file = write_csv(tmp_path / "events.csv", events)
    window = {"start": "2020-01-02", "end": "2020-01-04T00:00:00+00:00"}
    columns = {"timestamp": "timestamp"}
    settings = settings_of(source="table", path=str(file), columns=columns, filters=window)
    prepared = prepare(open_source(settings), Location.of(tmp_path / "out"), progress=messages.append)
    assert histories(prepared) == {"u": [("i1", "train"), ("i2", "train")], "w": []}
    assert prepared.manifest["dropped"]["outside_time_window"] == 4
    assert any("1 users have no positive interaction" in message for message in messages)
    assert prepared.items.column("item_id").to_pylist() == ["i1", "i2"]


@pytest.mark.parametrize(("policy", "kept"), [("drop", ["a"]), ("add", ["a", "zz"])])
def test_items_outside_the_catalogue(tmp_path: Path, policy: str, kept: list[str]) -> None:
    catalogue = write_csv(tmp_path / "items.csv", [("a", "A"), ("b", "B")], "item_id,name")
    events = [("u", "a", 1, 1000), ("u", "zz", 1, 1001), ("w", "zz", 1, 1001)]
    values: dict[str, Any] = {"items": str(catalogue), "item_columns": {"title": "name"}}
    prepared = prepare_events(tmp_path, events, unknown_items=policy, left_out_at_most=1.0, **values)
    assert [item for item, _ in histories(prepared)["u"]] == kept
    assert prepared.items.column("title").to_pylist() == (["A", "B"] if policy == "drop" else ["A", "B", None])
    assert prepared.manifest["dropped"]["unknown_items"] == (2 if policy == "drop" else 0)
    assert len(histories(prepared)["w"]) == (policy == "add")
    with pytest.raises(
        DataError, match=r"1 items with 2 interactions are not in the catalogue, for example 'zz'.*unknown"
    ):
        prepare_events(tmp_path / "again", events, **values)


def brute_force_core(pairs: set[tuple[int, int]], k_users: int, k_items: int) -> set[tuple[int, int]]:
    while True:
        users, items = Counter(u for u, _ in pairs), Counter(i for _, i in pairs)
        left = {(u, i) for u, i in pairs if users[u] >= k_users and items[i] >= k_items}
        if left == pairs:
            return left
        pairs = left


@pytest.mark.parametrize(("k_users", "k_items", "seed"), [(5, 5, 0), (6, 0, 1), (0, 9, 2), (5, 6, 3)])
def test_k_core_reaches_the_fixpoint(tmp_path: Path, k_users: int, k_items: int, seed: int) -> None:
    events = random_events(seed, count=260)
    core = {"k_core_users": k_users, "k_core_items": k_items}
    prepared = prepare_events(tmp_path, events, filters=core, shards=3)
    found = {(user, item) for user, history in histories(prepared).items() for item, _ in history}
    expected = brute_force_core({(event[0], event[1]) for event in events}, k_users, k_items)
    assert found == expected and 0 < len(found) < len({event[:2] for event in events})
    if k_items:
        assert set(prepared.items.column("item_id").to_pylist()) == {item for _, item in expected}
    if k_users:
        assert set(histories(prepared)) == {user for user, _ in expected}


def test_k_core_counts_positives_only(tmp_path: Path) -> None:
    events = [("u", "a", 5, 1), ("u", "b", 5, 2), ("w", "a", 5, 1), ("w", "b", 1, 2)]
    prepared = prepare_events(tmp_path, events, filters={"k_core_users": 2, "min_rating": 3.0})
    assert set(histories(prepared)) == {"u"}


# -- splits --------------------------------------------------------------------------------------------------------


def test_leave_last_out(tmp_path: Path) -> None:
    events = [*FIVE, ("short", "i0", 5, 1), ("short", "i1", 5, 2)]
    prepared = prepare_events(tmp_path, events, split={"kind": "leave_last_out"})
    assert parts(prepared, "u") == "tttvT"
    assert parts(prepared, "short") == "tt"
    prepared = prepare_events(
        tmp_path / "b", events, split={"kind": "leave_last_out", "valid": False, "min_history": 2}
    )
    assert parts(prepared, "u") == "ttttT" and parts(prepared, "short") == "tT"


def test_leave_last_out_counts_positives_and_lets_the_others_follow(tmp_path: Path) -> None:
    ratings = [1, 5, 1, 5, 5, 1, 5, 1]
    events = [("u", f"i{n}", rating, 1000 + n) for n, rating in enumerate(ratings)]
    prepared = prepare_events(tmp_path, events, split={"kind": "leave_last_out"}, filters={"min_rating": 3.0})
    assert parts(prepared, "u") == "t-tt-tvv-TT-"
    few = [("few", "a", 5, 1), ("few", "b", 1, 2), ("few", "c", 5, 3)]
    filters = {"min_rating": 3.0}
    prepared = prepare_events(tmp_path / "b", [*events, *few], split={"kind": "leave_last_out"}, filters=filters)
    assert parts(prepared, "few") == "tt-t"
    seen = {}
    for chosen in (("train",), ("train", "valid"), ("train", "valid", "test")):
        lists = [prepared.requests(shard, chosen).seen for shard in range(prepared.num_shards)]
        seen[chosen] = sorted(int(length) for rows in lists for length in rows.lengths_B if length)
    assert seen == {
        ("train",): [1, 2],
        ("train", "valid"): [1, 3],
        ("train", "valid", "test"): [1, 4],
    }


@pytest.mark.parametrize(
    ("count", "test", "valid", "expected"),
    [(10, 0.2, 0.1, (7, 1, 2)), (4, 0.2, 0.0, (3, 0, 1)), (1, 0.9, 0.0, (1, 0, 0)), (3, 0.6, 0.3, (1, 0, 2)),
     (2, 0.2, 0.0, (2, 0, 0))],
)  # fmt: skip
def test_random_split_rounds_per_user_and_leaves_one_to_train(
    tmp_path: Path, count: int, test: float, valid: float, expected: tuple[int, int, int]
) -> None:
    events = [("u", f"i{n}", 5, 1000 + n) for n in range(count)] + [("big", f"i{n}", 5, n) for n in range(30)]
    prepared = prepare_events(tmp_path, events, split={"kind": "random", "test_ratio": test, "valid_ratio": valid})
    found = Counter(parts(prepared, "u"))
    assert (found["t"], found["v"], found["T"]) == expected


@pytest.mark.parametrize(
    ("ratings", "test", "valid", "expected"),
    [
        ([5] * 10, 0.2, 0.1, "tttttttvTT"),
        ([5] * 4, 0.2, 0.0, "tttT"),
        ([5] * 3, 0.9, 0.0, "tTT"),
        ([5], 0.9, 0.0, "t"),
        ([1, 5, 5, 1, 5, 1, 5, 5], 0.4, 0.2, "t-ttt-vv-TT"),
    ],
)
def test_last_share_holds_out_the_end_of_every_history(
    tmp_path: Path, ratings: list[int], test: float, valid: float, expected: str
) -> None:
    events = [("u", f"i{n}", rating, 1000 + n) for n, rating in enumerate(ratings)]
    events += [("big", f"i{n % 8}", 5, n) for n in range(8)]
    split = {"kind": "last_share", "test_ratio": test, "valid_ratio": valid}
    assert parts(prepare_events(tmp_path, events, split=split, filters={"min_rating": 3.0}), "u") == expected


def test_random_split_depends_on_the_seed_and_differs_between_users(tmp_path: Path) -> None:
    events = [(user, f"i{n}", 5, 1000 + n) for n in range(20) for user in "uw"]
    first = prepare_events(tmp_path / "a", events, seed=1, split={"kind": "random"})
    second = prepare_events(tmp_path / "b", events, seed=2, split={"kind": "random"})
    assert len({parts(first, "u"), parts(second, "u"), parts(first, "w"), parts(second, "w")}) == 4


def test_temporal_split_by_share_and_by_date(tmp_path: Path) -> None:
    events = [(f"u{n % 3}", f"i{n}", 5, 1_577_836_800 + 60 * n) for n in range(10)]
    split: dict[str, Any] = {"kind": "temporal", "test_ratio": 0.2, "valid_ratio": 0.1}
    prepared = prepare_events(tmp_path / "a", events, split=split, shards=4)
    part_of = {item: part for history in histories(prepared).values() for item, part in history}
    assert [part_of[f"i{n}"] for n in range(10)] == ["train"] * 7 + ["valid"] + ["test"] * 2
    split = {"kind": "temporal", "valid_from": "2020-01-01T00:02:00Z", "test_from": "2020-01-01T00:05:00Z"}
    prepared = prepare_events(tmp_path / "b", events, split=split, shards=4)
    part_of = {item: part for history in histories(prepared).values() for item, part in history}
    assert [part_of[f"i{n}"] for n in range(10)] == ["train"] * 2 + ["valid"] * 3 + ["test"] * 5


def test_temporal_cut_takes_everything_of_its_millisecond(tmp_path: Path) -> None:
    events = [("u", f"i{n}", 5, 1000 + min(n, 6)) for n in range(10)]
    prepared = prepare_events(tmp_path, events, split={"kind": "temporal", "test_ratio": 0.1})
    assert parts(prepared, "u") == "ttttttTTTT"


@pytest.mark.parametrize("bins", [2, 3, 7, 2**16])
def test_the_time_of_a_rank_is_exact_whatever_the_bins(
    tmp_path: Path, bins: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "BINS", bins)
    events = random_events(5)
    times = sorted({event[:2]: event[3] for event in sorted(events, key=lambda event: event[3])}.values())
    split = {"kind": "temporal", "test_ratio": 0.25}
    prepared = prepare_events(tmp_path, events, split=split, shards=3)
    cut = times[int(len(times) * 0.75)]
    test = prepared.manifest["interactions"]["test"]
    assert test == sum(time >= cut for time in times)


def test_cold_items_hold_out_whole_items(tmp_path: Path) -> None:
    events = random_events(6)
    split = {"kind": "cold_items", "test_ratio": 0.2, "valid_ratio": 0.12}
    prepared = prepare_events(tmp_path, events, split=split)
    by_item: dict[Any, set[str]] = {}
    for history in histories(prepared).values():
        for item, part in history:
            by_item.setdefault(item, set()).add(part)
    assert all(len(found) == 1 for found in by_item.values())
    assert Counter(part for found in by_item.values() for part in found) == {"train": 17, "test": 5, "valid": 3}


def test_given_parts_and_their_conflicts(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", [("u", "a"), ("u", "b"), ("w", "a")], "user_id,item_id")
    test = write_csv(tmp_path / "test.csv", [("u", "c"), ("w", "b")], "user_id,item_id")
    values: dict[str, Any] = {"source": "table", "train": str(train), "split": {"kind": "given"}}
    prepared = prepare_values(tmp_path / "a", test=str(test), **values)
    assert histories(prepared) == {
        "u": [("a", "train"), ("b", "train"), ("c", "test")],
        "w": [("a", "train"), ("b", "test")],
    }
    wrong = write_csv(tmp_path / "wrong.csv", [("u", "c"), ("w", "a"), ("w", "a")], "user_id,item_id")
    with pytest.raises(DataError, match=r"1 \(user, item\) pairs .* \('w', 'a'\)"):
        prepare_values(tmp_path / "b", test=str(wrong), **values)


def test_given_parts_can_lie_evenly_over_each_other(tmp_path: Path) -> None:
    for name, line in (("train", "1 10 11 12 13\n2 10\n"), ("valid", "1 14 15\n"), ("test", "1 16\n2 11\n")):
        (tmp_path / f"{name}.txt").write_text(line)
    values: dict[str, Any] = {"source": "lightgcn", "path": str(tmp_path)}
    after = prepare_values(tmp_path / "a", **values, split={"kind": "given"})
    assert [item for item, _ in histories(after)[1]] == [10, 11, 12, 13, 14, 15, 16]
    mixed = prepare_values(tmp_path / "b", **values, split={"kind": "given", "order": "interleaved"})
    # Places: train 1/8, 3/8, 5/8, 7/8, valid 1/4, 3/4, test 1/2.
    assert histories(mixed)[1] == [
        (10, "train"), (14, "valid"), (11, "train"), (16, "test"), (12, "train"), (15, "valid"), (13, "train"),
    ]  # fmt: skip
    assert histories(mixed)[2] == [(10, "train"), (11, "test")]


def test_timestamps_come_before_places(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", [("u", "a", 5, 30), ("u", "b", 5, 10)])
    test = write_csv(tmp_path / "test.csv", [("u", "c", 5, 20)])
    values: dict[str, Any] = {"source": "table", "train": str(train), "test": str(test)}
    values |= {"columns": {"timestamp": "timestamp"}, "split": {"kind": "given", "order": "interleaved"}}
    assert [item for item, _ in histories(prepare_values(tmp_path / "out", **values))["u"]] == ["b", "c", "a"]


def test_parts_of_the_files_do_not_matter_to_other_splits(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("1 10 11 12\n")
    (tmp_path / "test.txt").write_text("1 13 10\n")
    values = {"source": "lightgcn", "path": str(tmp_path), "split": {"kind": "leave_last_out"}}
    assert parts(prepare_values(tmp_path / "out", **values), 1) == "ttvT"


SPLITS: list[dict[str, Any]] = [
    {"kind": "none"},
    {"kind": "random", "test_ratio": 0.3, "valid_ratio": 0.1},
    {"kind": "leave_last_out"},
    {"kind": "last_share", "test_ratio": 0.2, "valid_ratio": 0.1},
    {"kind": "temporal", "test_ratio": 0.2, "valid_ratio": 0.1},
    {"kind": "cold_items", "test_ratio": 0.2},
]


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS, ids=lambda split: split["kind"])
@pytest.mark.parametrize("as_text", [False, True])
def test_the_split_does_not_depend_on_sharding(tmp_path: Path, split: dict[str, Any], as_text: bool) -> None:
    events = random_events(7)
    if as_text:
        events = [(f"u{user}", f"i{item}", rating, time) for user, item, rating, time in events]
    filters = {"min_rating": 2.0, "k_core_users": 4, "k_core_items": 4}
    found = [
        histories(prepare_events(tmp_path / str(shards), events, split=split, filters=filters, shards=shards))
        for shards in (1, 3, 8)
    ]
    assert found[0] == found[1] == found[2]


def test_chunks_do_not_change_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = histories(prepare_events(tmp_path / "a", random_events(8), split={"kind": "leave_last_out"}))
    monkeypatch.setattr("recsys_ray.data.prepare.files.byte_ranges.__defaults__", (0, 0, 100))
    file = tmp_path / "a" / "events.csv"
    columns = {"rating": "rating", "timestamp": "timestamp"}
    settings = settings_of(source="table", path=str(file), columns=columns, split={"kind": "leave_last_out"})
    assert len(open_source(settings).chunks()) > 20
    assert histories(prepare(open_source(settings), Location.of(tmp_path / "b"))) == whole


# -- the prepared directory ----------------------------------------------------------------------------------------


def test_counts_and_train_data_agree_with_the_histories(tmp_path: Path) -> None:
    split = {"kind": "random", "test_ratio": 0.3, "valid_ratio": 0.2}
    prepared = prepare_events(tmp_path, random_events(9), split=split, filters={"min_rating": 2.0}, shards=3)
    for chosen in (("train",), ("train", "valid"), ("train", "valid", "test")):
        data, counts = prepared.train_data(chosen), prepared.counts(chosen)
        lengths = [
            sum(part in chosen for _, part in history)  # a part with "-" behind it is no positive
            for history in histories(prepared).values()
        ]
        assert data.histories.lengths_B.tolist() == lengths
        assert counts.num_interactions == data.num_interactions == sum(lengths)
        assert counts.num_pairs == sum(length**2 for length in lengths)
        assert (counts.num_users, counts.num_items) == (len(lengths), prepared.items.num_rows)


def test_targets_are_in_the_rows_of_the_requests(tmp_path: Path) -> None:
    prepared = prepare_events(tmp_path, random_events(10), split={"kind": "leave_last_out"}, shards=2)
    items = prepared.items.column("item_id").to_pylist()
    for shard in range(2):
        requests, targets = prepared.requests(shard, ("train", "valid")), prepared.targets(shard, "test")
        assert targets.user_ids.equals(requests.user_ids) and len(targets) == len(requests)
        assert targets.lengths_B.tolist() == prepared.requests(shard, ("train",)).histories.lengths_B.tolist()
        assert len(targets.ratings_E) == len(targets.items.items_E)
        for row, user in enumerate(targets.user_ids.to_pylist()):
            expected = [item for item, part in histories(prepared)[user] if part == "test"]
            assert [items[item] for item in targets.items.row(row)] == expected


def test_complete_data_is_kept_and_incomplete_data_is_done_again(tmp_path: Path) -> None:
    def again(**values: Any) -> tuple[Prepared, list[str]]:
        lines: list[str] = []
        settings = settings_of(source="sequences", path=str(tmp_path / "in.txt"), **values)
        return prepare(open_source(settings), Location.of(tmp_path / "out"), progress=lines.append), lines

    (tmp_path / "in.txt").write_text("1 10 11 12\n2 10\n")
    first, _ = again()
    assert sorted(Location.of(tmp_path / "out").names()) == ["items.parquet", "manifest.json", "users"]
    assert "kept" in again()[1][0]
    (tmp_path / "out" / "users" / "part-00099.parquet").write_text("left over")
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(DataError, match="run prepare"):
        Prepared.open(first.location)
    second, lines = again()
    assert "kept" not in lines[0] and histories(second) == histories(first)
    assert Location.of(tmp_path / "out" / "users").names() == ["part-00000.parquet"]
    assert "kept" not in again(shards=2)[1][0]


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    prepared = prepare_events(tmp_path, FIVE)
    write_manifest(prepared.location / "manifest.json", prepared.manifest | {"format": 99})
    with pytest.raises(DataError, match="format 99"):
        Prepared.open(prepared.location)
    assert histories(prepare_events(tmp_path, FIVE)) == histories(prepared)


def test_an_object_store_holds_the_same(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "events.csv", random_events(12))
    source = open_source(settings_of(source="table", path=str(file), split={"kind": "leave_last_out"}, shards=2))
    here = prepare(source, Location.of(tmp_path / "out"))
    there = prepare(source, Location.of("memory://prepared/out"))
    assert histories(there) == histories(here)
    assert there.location.files() == here.location.files()


def test_a_shard_that_lost_rows_is_noticed(tmp_path: Path) -> None:
    prepared = prepare_events(tmp_path, random_events(11), shards=1)
    file = prepared.location / "users" / "part-00000.parquet"
    file.write_parquet(file.read_parquet().slice(1))
    with pytest.raises(DataError, match="rows, manifest says"):
        prepared.requests(0, ("train",))


def test_hashes_are_fixed() -> None:
    """They place users into shards and into parts: the same in every process, whatever its hash seed."""
    ids = pa.array(["a", "b", "a"])
    assert hash_ids(ids).tolist()[0] == hash_ids(ids).tolist()[2] != hash_ids(ids).tolist()[1]
    assert hash_ids(ids).tolist() == hash_ids(pa.array(["x", "a", "b", "a"])).tolist()[1:]
    assert len(set((hash_ids(pa.array(range(10_000))) % 7).tolist())) == 7


def test_number_of_shards() -> None:
    assert [num_shards_for(rows) for rows in (10, 19_999, 20_000, 2_000_000, 25_000_000, 10**12)] == [
        1, 1, 8, 10, 125, 2048,
    ]  # fmt: skip


# -- real data -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_gowalla_keeps_the_published_split(tmp_path: Path) -> None:
    prepared = prepare_values(tmp_path, source="lightgcn", path=dataset("gowalla"), split={"kind": "given"})
    assert prepared.manifest["interactions"] == {"train": 719_081, "valid": 91_047, "test": 217_242}
    assert (prepared.num_users, prepared.num_items) == (29_858, 40_981)


def test_movielens_small(tmp_path: Path) -> None:
    prepared = prepare_values(
        tmp_path, source="movielens", path=dataset("ml-latest-small"), split={"kind": "leave_last_out"}
    )
    assert (prepared.num_users, prepared.num_items) == (610, 9_742)
    assert prepared.manifest["interactions"] == {"train": 100_836 - 1_220, "valid": 610, "test": 610}


def test_beauty(tmp_path: Path) -> None:
    path = dataset("amazon-beauty/Beauty.txt")
    prepared = prepare_values(tmp_path, source="sequences", path=path, split={"kind": "leave_last_out"})
    assert (prepared.num_users, prepared.num_items, prepared.manifest["num_interactions"]) == (22_363, 12_101, 198_502)
