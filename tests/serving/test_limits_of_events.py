"""What users may send and how much of it is kept; what the service takes, the next batch run reads."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_ray.base.storage import Location
from recsys_ray.serving.config import FeedbackSettings
from recsys_ray.serving.problem import Problem
from recsys_ray.serving.users import journal as journals
from recsys_ray.serving.users import quota
from recsys_ray.serving.users.cold_start import is_temporary, temporary_user
from recsys_ray.serving.users.events import Event
from recsys_ray.serving.users.journal import Journal
from recsys_ray.serving.users.quota import Quota
from tests.data_worlds import prepare_values
from tests.serving_worlds import DATA, client

NOW = int(time.time() * 1000)
DAY = 86_400_000
INTEGERS = (pa.int64(), pa.int64())


# --- one door ---

times = st.one_of(st.integers(0, 10**14 + 5), st.integers(NOW - 3 * DAY, NOW + 3 * DAY), st.none())
ratings = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.5, 1.0, 2.5, 5.0, 5.5, 1e6]), st.none())
events_of = st.fixed_dictionaries(
    {
        "user_id": st.integers(0, 10**6) | st.sampled_from(["7", "x", "", "new-york-fan"]),
        "item_id": st.integers(1, 90) | st.sampled_from(["3", "x", "", "01"]),
        "timestamp": times,
        "rating": ratings,
    }
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(events_of, min_size=1, max_size=12))
def test_whatever_the_service_takes_the_next_run_reads(
    world: Path, tmp_path_factory: pytest.TempPathFactory, sent: list[dict[str, Any]]
) -> None:
    """Each event by itself: it is refused in one line, or it is a row that the next ``prepare`` uses as it is."""
    folder = tmp_path_factory.mktemp("law")
    (folder / "models").symlink_to(world / "models")
    (folder / "prepared").symlink_to(world / "prepared")
    (folder / "recommendations").symlink_to(world / "recommendations")
    taken = 0
    with client(folder, state=str(folder / "state"), feedback={"unknown_items": "keep"}) as service:
        for event in sent:
            body = {name: value for name, value in event.items() if value is not None}
            answer = service.post("/v1/feedback", json={"events": [body]})
            assert answer.status_code in (200, 422), answer.text
            taken += answer.status_code == 200
    values = DATA | {"feedback": str(folder / "feedback"), "filters": {"duplicates": "keep", "future": "keep"}}
    before = prepare_values(folder / "a", **DATA | {"filters": values["filters"]}).manifest["interactions_read"]
    after = prepare_values(folder / "b", **values).manifest["interactions_read"]
    assert after - before == taken


def test_a_file_that_can_not_be_used_stops_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "feedback"
    folder.mkdir()
    (folder / "broken.parquet").write_bytes(b"PAR1 and no more")
    pq.write_table(pa.table({"user_id": [1], "something": [2]}), folder / "columns.parquet")
    good = {"user_id": [7], "item_id": [3], "rating": [4.0], "timestamp": [NOW]}
    pq.write_table(pa.table(good), folder / "good.parquet")
    plain = prepare_values(tmp_path / "plain", **DATA).manifest["interactions_read"]
    found = prepare_values(tmp_path / "with", **DATA | {"feedback": str(folder)}).manifest
    assert found["interactions_read"] == plain + 1
    assert found["dropped"]["feedback_files_refused"] == 2


def test_unknown_items_are_kept_where_that_is_asked_for_alone(world: Path, tmp_path: Path) -> None:
    event = {"events": [{"user_id": 7, "item_id": 999_999}]}
    with client(world, state=str(tmp_path / "a")) as service:
        assert service.post("/v1/feedback", json=event).json() | {"took_ms": 0} == {
            "accepted": 0,
            "unknown_items": 1,
            "took_ms": 0,
        }
    with client(world, state=str(tmp_path / "b"), feedback={"unknown_items": "keep"}) as service:
        assert service.post("/v1/feedback", json=event).json()["accepted"] == 1


def test_ids_that_look_temporary_are_those_that_were_given_alone() -> None:
    assert all(is_temporary(temporary_user()) for _ in range(50))
    assert not any(map(is_temporary, ("new-york-fan", "new-", "new-" + "a" * 21, "x" + temporary_user())))


# --- how much is kept ---


def test_of_a_user_the_newest_events_count_and_one_of_each_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "MOST_EVENTS", 5)
    journal = Journal(tmp_path / "state.sqlite")
    rated = [Event(str(place % 12), float(place), place) for place in range(30)]
    asyncio.run(journal.add("1", [Event("99", 0.0, 1, "hidden"), *rated], 1.0, durable=True))
    asyncio.run(journal.add("2", rated[:2], 1.0, durable=True))
    expected = [("99", 1), *((str(place % 12), place) for place in range(25, 30))]
    for _ in range(2):  # before what is beyond has gone, and after
        found = asyncio.run(journal.events("1"))
        assert [(event.item, event.timestamp) for event in found] == expected
        journal.export(Location.of(tmp_path / "feedback"), *INTEGERS)
    rows = sum(Location.of(file).read_parquet().num_rows for file in (tmp_path / "feedback").glob("*.parquet"))
    assert rows == 32  # all of them are in the files
    [(kept,)] = journal._db.execute("SELECT count(*) FROM events")
    assert kept == 6 + 2
    journal.close()


def test_an_export_writes_all_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "ROWS_PER_FILE", 10)
    journal = Journal(tmp_path / "state.sqlite")
    asyncio.run(journal.add("1", [Event(str(place), 1.0, place) for place in range(35)], 1.0, durable=True))
    assert len(journal.export(Location.of(tmp_path / "feedback"), *INTEGERS)) == 4
    journal.close()


def test_quotas_are_by_user_and_by_key_and_end_with_the_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [60.0]
    monkeypatch.setattr(quota.time, "time", lambda: clock[0])
    counts = Quota(FeedbackSettings(events_per_minute=10, events_per_minute_of_key=25))
    counts.take("key", {"a": 10, "b": 10}, {})
    with pytest.raises(Problem, match="of one user"):
        counts.take("key", {"a": 1}, {})
    with pytest.raises(Problem, match="with this key") as refused:
        counts.take("key", {"c": 6}, {})
    assert refused.value.status == 429 and refused.value.headers == {b"retry-after": b"60"}
    counts.take("key", {"c": 5}, {})  # what was refused was not counted
    counts.take("other", {"d": 10}, {})
    clock[0] = 120.5
    counts.take("key", {"a": 10}, {})


def test_users_that_quotas_can_not_tell_apart_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MOST_USERS", 3)
    counts = Quota(FeedbackSettings(events_per_minute=10))
    for user in range(3):
        counts.take(None, {str(user): 1}, {})
    counts.take(None, {"3": 6}, {})
    with pytest.raises(Problem):
        counts.take(None, {"4": 6}, {})
    with pytest.raises(Problem):  # together, too
        counts.take(None, {"5": 3, "6": 3}, {})
    counts.take(None, {"7": 2, "8": 2, "0": 9}, {})


takes = st.lists(
    st.tuples(
        st.sampled_from([None, "a", "b"]),
        st.dictionaries(st.sampled_from("xyz"), st.integers(1, 9), min_size=1),
        st.integers(0, 40_000),
    ),
    max_size=30,
)


@given(takes)
def test_no_source_moves_an_item_by_more_than_its_bound_in_a_day(sent: list[Any]) -> None:
    """Whatever users it makes up. All that is sent together is taken, or nothing of it."""
    counts, now = Quota(FeedbackSettings(events_per_day_of_item=20)), [1_800_000_000.0]
    taken: Counter[tuple[str | None, str, int]] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quota, "time", SimpleNamespace(time=lambda: now[0]))
        for number, (holder, items, seconds) in enumerate(sent):
            now[0] += seconds
            day = int(now[0] // 86_400)
            fits = all(taken[holder, item, day] + size <= 20 for item, size in items.items())
            try:
                counts.take(holder, {f"user {number}": sum(items.values())}, items)
            except Problem as problem:
                assert problem.status == 429 and not fits
                assert int(problem.headers[b"retry-after"]) <= 86_400
            else:
                assert fits
                taken.update({(holder, item, day): size for item, size in items.items()})


@pytest.mark.parametrize("door", ["feedback", "onboarding"])
def test_made_up_users_can_t_push_an_item(world: Path, tmp_path: Path, door: str) -> None:
    with client(
        world, state=str(tmp_path), onboarding={"minimum": 2}, feedback={"events_per_day_of_item": 7}
    ) as service:
        statuses = []
        for user in range(10_000, 10_020):
            if door == "feedback":
                body = {"events": [{"user_id": user, "item_id": 3}, {"user_id": user, "item_id": 4, "kind": "seen"}]}
                statuses.append(service.post("/v1/feedback", json=body).status_code)
            else:
                body = {"user_id": user, "ratings": [{"item_id": 3}, {"item_id": user % 60 + 10}]}
                statuses.append(service.post("/v1/onboarding/ratings", json=body).status_code)
        assert statuses == [200] * 7 + [429] * 13
        seen = {"events": [{"user_id": 1, "item_id": 3, "kind": "seen"}] * 20}  # which popularity does not count
        assert service.post("/v1/feedback", json=seen).status_code == 200


# --- a state file that fails ---


def test_a_damaged_state_file_is_set_aside_at_the_start(world: Path, tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").write_bytes(os.urandom(20_000))
    with client(world, state=str(tmp_path)) as service:
        assert service.get("/health/ready").json()["status"] == "ready"
        assert service.post("/v1/feedback", json={"events": [{"user_id": 7, "item_id": 3}]}).status_code == 200
    assert len(list(tmp_path.glob("state.sqlite.damaged-*"))) >= 1


def test_recommendations_go_on_without_the_state_file_and_health_names_it(world: Path, tmp_path: Path) -> None:
    with client(world, state=str(tmp_path)) as service:
        published = service.get("/v1/recommendations/7").json()["items"]
        application: Any = service.app
        application.service.journal._reader.close()
        application.service.journal._db.close()
        answer = service.get("/v1/recommendations/7?n=9")
        assert answer.status_code == 200 and answer.json()["items"] == published[:9]
        refused = service.post("/v1/feedback", json={"events": [{"user_id": 7, "item_id": 3}]})
        assert refused.status_code == 503 and "can be kept now" in refused.json()["error"]
        health = service.get("/health/ready")
        assert (health.status_code, health.json()["degraded"]) == (200, ["state"])


def test_a_full_disk_blinds_nobody(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with client(world, state=str(tmp_path)) as service:
        application: Any = service.app

        async def full(facts: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(application.service.peers, "publish", full)
        assert service.get("/metrics").status_code == service.get("/info").status_code == 200
        assert service.get("/health/ready").json()["degraded"] == ["replicas"]


# --- a file that is damaged, gone, or on a full disk while the service runs ---


def _spoil(file: Path) -> None:
    """All bytes of it and of its log; the index of the log is in the memory of the processes."""
    for path in (file, Path(f"{file}-wal")):
        with path.open("r+b") as opened:
            opened.write(bytes(range(256)) * (path.stat().st_size // 256))


@pytest.mark.parametrize("blow", ["damaged", "gone"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_processes_that_share_a_broken_journal_begin_the_same_new_one(tmp_path: Path, blow: str) -> None:
    """And no event is in two files, though both wrote before, and each finds out by itself."""
    file, out = tmp_path / "state.sqlite", Location.of(tmp_path / "feedback")
    first, second = Journal(file), Journal(file)

    def add(journal: Journal, user: str, item: str) -> None:
        asyncio.run(journal.add(user, [Event(item, 1.0, 1)], 24, durable=True))

    def files() -> Counter[tuple[str, str]]:
        rows = [row for name in out.names() for row in (out / name).read_parquet().to_pylist()]
        return Counter((row["user_id"], row["item_id"]) for row in rows)

    add(first, "a", "1")
    add(second, "b", "2")
    before = asyncio.run(first.version("b"))
    if blow == "damaged":
        first.export(out, pa.string(), pa.string())  # what is in a destroyed file alone can't be had back
        _spoil(file)
    else:
        for path in tmp_path.glob("state.sqlite*"):
            path.unlink()
    add(first, "c", "3")
    add(second, "d", "4")
    assert asyncio.run(first.version("d")) and asyncio.run(second.version("c"))
    assert asyncio.run(first.version("c")) > before, "an answer from before would be taken for one of now"
    first.export(out, pa.string(), pa.string())
    second.export(out, pa.string(), pa.string())
    assert files() == Counter([("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")])
    assert len(list(tmp_path.glob("state.sqlite.damaged-*[0-9]"))) == (blow == "damaged")
    assert first.problem is None and second.problem is None
    first.close()
    second.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_reader_finds_a_damaged_journal_too(tmp_path: Path) -> None:
    file = tmp_path / "state.sqlite"
    journal = Journal(file)
    asyncio.run(journal.add("a", [Event("1", 1.0, 1)], 24, durable=False))
    _spoil(file)
    assert asyncio.run(journal.version("a")) == 0 or asyncio.run(journal.events("a")) == []
    deadline = time.monotonic() + 10
    while not list(tmp_path.glob("state.sqlite.damaged-*")):
        assert time.monotonic() < deadline
        asyncio.run(journal.version("b"))
        time.sleep(0.02)
    asyncio.run(journal.add("a", [Event("1", 1.0, 1)], 24, durable=False))
    assert asyncio.run(journal.version("a")) > 0 and journal.problem is None
    journal.close()
