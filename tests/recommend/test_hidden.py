"""What a user hides never comes back: from files in every form, from feedback, in batch, service and Python alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

import recsys_ray as rr
from recsys_ray.base.errors import DataError, PublishError, StorageError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import Requests
from recsys_ray.recommend.bundle import Bundle, open_bundle
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.recommend.hidden import read_hidden, with_hidden
from recsys_ray.recommend.options import Options, read_options
from recsys_ray.recommend.rank import rank
from recsys_ray.runs.batch import Models, run_fingerprint
from recsys_ray.runs.config import GateSettings
from recsys_ray.runs.gate import check_run
from tests.rule_worlds import AT, ITEMS, USERS, Rules, answers


def lists(bundle: Bundle, path: Any) -> dict[int, set[int]]:
    """User id -> hidden item ids, as they are read."""
    found, ids = read_hidden(bundle, str(path)), bundle.item_ids.to_pylist()
    rows = [found.items.row(place).tolist() for place in range(len(found.items))]
    users = found.user_ids.to_pylist()
    return {user: {ids[row] for row in hidden} for user, hidden in zip(users, rows, strict=True) if hidden}


EVENTS = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.sampled_from(["hidden", "shown", "rated"]), st.integers(0, 3)),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(events=EVENTS)
def test_the_last_event_of_a_user_and_an_item_decides(
    bundle: Bundle, tmp_path_factory: pytest.TempPathFactory, events: list[tuple[int, int, str, int]]
) -> None:
    expected: dict[int, set[int]] = {}
    for user, item, kind, _ in sorted(events, key=lambda event: event[3]):
        wanted = expected.setdefault(user, set())
        wanted.update({item} if kind == "hidden" else ())
        wanted.difference_update({item} if kind == "shown" else ())
    columns = list(zip(*events, strict=True)) or [()] * 4
    names, kinds = ("user_id", "item_id", "kind", "timestamp"), (pa.int64(), pa.int64(), pa.string(), pa.int64())
    table = pa.table([pa.array(list(c), k) for c, k in zip(columns, kinds, strict=True)], names=list(names))
    folder = tmp_path_factory.mktemp("hidden")
    pq.write_table(table.slice(0, 5), folder / "a.parquet")
    pq.write_table(table.slice(5), folder / "b.parquet")
    assert lists(bundle, folder) == {user: items for user, items in expected.items() if items}


def test_files_of_every_form_say_the_same(bundle: Bundle, tmp_path: Path) -> None:
    rows = {"user_id": [1, 1, 2, 999], "item_id": [5, 6, 7, 8]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("user_id,item_id\n1,5\n1,6\n2,7\n999,8\n3,12345\n")
    expected = {1: {5, 6}, 2: {7}, 999: {8}}
    assert (
        lists(bundle, tmp_path / "a.parquet")
        == lists(bundle, tmp_path / "a.csv")
        == lists(bundle, tmp_path)
        == expected
    )
    assert lists(bundle, tmp_path / "not yet") == {}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("user_id,item\n1,5\n", DataError, "has no column item_id; found user_id, item"),
        ("user_id,item_id\nann,5\n", DataError, "column user_id must hold ids of type int64, found string"),
        ("user_id,item_id,timestamp\n1,5,noon\n", DataError, "column timestamp must hold times"),
        ("user_id,item_id\n1,5,6\n", DataError, "can't be read"),
        (None, StorageError, "a.csv"),
    ],
)
def test_what_can_not_be_read_is_one_line(
    bundle: Bundle, tmp_path: Path, text: str | None, error: type[Exception], message: str
) -> None:
    if text is not None:
        (tmp_path / "a.csv").write_text(text)
    with pytest.raises(error, match=message) as caught:
        read_hidden(bundle, str(tmp_path / "a.csv"))
    assert "\n" not in str(caught.value) and "a.csv" in str(caught.value)


HIDES = st.dictionaries(st.integers(0, USERS - 1), st.sets(st.integers(0, ITEMS - 1), max_size=ITEMS), max_size=8)


@settings(max_examples=40, deadline=None)
@given(hides=HIDES, filter_seen=st.booleans(), n=st.integers(1, ITEMS), fallback=st.sampled_from([(), ("popularity",)]))
def test_no_rule_lets_a_hidden_item_through(
    bundle: Bundle, hides: dict[int, set[int]], filter_seen: bool, n: int, fallback: tuple[str, ...]
) -> None:
    everyone = Requests.concatenate([bundle.requests(shard) for shard in range(bundle.num_shards)])
    hidden = type(everyone.seen).from_lists([sorted(hides.get(row, ())) for row in range(USERS)])
    requests = Requests(everyone.user_ids, everyone.users_B, everyone.histories, everyone.seen, hidden=hidden)
    options = Options(n=n, filter_seen=filter_seen, fallback=fallback)
    ranked = rank(bundle, requests, options)
    free = rank(bundle, everyone, Options(n=ITEMS, filter_seen=filter_seen, fallback=fallback))
    for row in range(USERS):
        listed = [item for item in ranked.rows_BK[row].tolist() if item >= 0]
        expected = [item for item in free.rows_BK[row].tolist() if item >= 0 and item not in hides.get(row, ())]
        assert listed == expected[:n]  # the others keep their order, and nobody else's list changes
    alone = rank(bundle, requests.take(np.array([3, 0])), options)
    np.testing.assert_array_equal(alone.rows_BK, ranked.rows_BK[[3, 0]])


def test_batch_service_and_python_hide_alike(rules: Rules, bundle: Bundle, tmp_path: Path) -> None:
    _, before = rules.batch("before")
    hides = {user: items[:3] for user, items in before.items() if user % 2}
    rows = [f"{user},{item}" for user, items in hides.items() for item in items]
    (tmp_path / "hidden.csv").write_text(
        "\n".join(["user_id,item_id", *rows, f"nobody-knows,{ITEMS}"][:-1]) + "\n777,1\n"
    )
    run, found = rules.batch("hiding", hidden=str(tmp_path / "hidden.csv"))
    assert all(found[user][:5] == before[user][3:] if user % 2 else found[user] == before[user] for user in before)
    asked = RecommendSettings(n=8, at=AT, hidden=str(tmp_path / "hidden.csv"))
    hiding = open_bundle(Location.of(rules.folder) / "models" / "item_cf-hiding")
    assert check_run(hiding, run, asked, GateSettings()).facts["users"] == USERS
    with pytest.raises(PublishError, match=r"items the user has already seen or hides \(60, in part-00000"):
        check_run(bundle, rules.plain, asked, GateSettings())
    with rules.service(run) as service:
        assert answers(service, list(found)) == found
        popular = answers(service, ["nobody", 777], n=ITEMS)  # users the model does not know; one of them hides an item
        assert [item for item in popular["nobody"] if item != 1] == popular[777]
        assert 1 in popular["nobody"]
    frame = rr.load(rules.folder / "recommendations" / run.name).recommend(sorted(found))
    assert {user: rows["item_id"].tolist() for user, rows in frame.groupby("user_id")} == found


def test_another_list_is_another_run(rules: Rules, tmp_path: Path) -> None:
    models = Models(Location.of(rules.folder) / "models" / "item_cf-plain", None)
    asked, keys = RecommendSettings(n=3, hidden=str(tmp_path / "a.csv")), []
    for row in ("1,5", "1,6", "2,5", "1,5"):
        (tmp_path / "a.csv").write_text(f"user_id,item_id\n{row}\n")
        keys.append(run_fingerprint(models, asked))
    assert keys[0] == keys[3] and len(set(keys)) == 3


def wish(service: Any, user: int, item: int, kind: str) -> None:
    event = {"user_id": user, "item_id": item, "kind": kind}
    assert service.post("/v1/feedback", json={"events": [event]}).status_code == 200


def test_what_is_hidden_online_stays_so_through_restarts_and_the_next_batch(
    rules: Rules, bundle: Bundle, tmp_path: Path
) -> None:
    _, before = rules.batch("before2")
    hidden, folder = before[7][:2], rules.folder / "hidden"
    tired: dict[str, Any] = {"feedback": {"remember_days": 1e-9}}  # what is rated is forgotten at once
    with rules.service(rules.plain, **tired) as service:
        for item in (*hidden, before[7][4]):
            wish(service, 7, item, "hidden")
        wish(service, 7, before[7][4], "shown")
        wish(service, 9, before[9][0], "rated")
        assert answers(service, [7])[7][:6] == before[7][2:]
        seen = answers(service, [7], exclude_seen=False, n=ITEMS)[7]
        assert not set(seen) & set(hidden) and before[7][4] in seen
        assert answers(service, [9])[9] == before[9]
    with rules.service(rules.plain) as service:
        assert answers(service, [7])[7][:6] == before[7][2:]
    files = sorted(folder.iterdir())
    assert files and lists(bundle, folder) == {7: set(hidden)}
    feedback = [pq.ParquetFile(file).read() for file in (rules.folder / "feedback").iterdir()]
    assert pa.concat_tables(feedback).select(["user_id", "item_id"]).to_pylist() == [
        {"user_id": 9, "item_id": before[9][0]}
    ]
    run, after = rules.batch("after", hidden=str(folder))
    assert after[7][:6] == before[7][2:] and {u: i for u, i in after.items() if u != 7} == {
        u: i for u, i in before.items() if u != 7
    }
    with rules.service(run) as service:
        assert answers(service, [7])[7] == after[7]
        wish(service, 7, hidden[0], "shown")
        assert answers(service, [7])[7][0] == hidden[0]  # the wish of now counts more than the list of the run


def test_a_hidden_item_is_neither_learned_nor_filtered_as_seen(rules: Rules, bundle: Bundle) -> None:
    requests = bundle.requests(0)
    same = with_hidden(requests, read_options(bundle, RecommendSettings(hidden=str(rules.folder / "none"))).hidden)
    np.testing.assert_array_equal(same.users_B, requests.users_B)
    assert same.hidden is not None and not len(same.hidden.items_E)
