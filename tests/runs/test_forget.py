"""A user who asked to be forgotten is in no later data, in no file that the service kept, and in no answer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_ray.base.errors import StorageError
from recsys_ray.base.storage import Location
from recsys_ray.data.forgotten import FOLDER, WithoutUsers, add_forgotten, forgotten_users
from recsys_ray.data.prepare.driver import open_source, prepare
from recsys_ray.runs.forget import forget
from tests.data.test_users import COLUMNS, EVENTS, USERS
from tests.data_worlds import histories, settings_of, write_csv
from tests.serving_worlds import client, prepared_world, publish_run


def source_without(directory: Path, users: frozenset[str], **values: Any) -> WithoutUsers:
    events = write_csv(directory / "events.csv", EVENTS)
    table = write_csv(directory / "users.csv", USERS, "id,age,job")
    given = {"users": str(table), "user_columns": COLUMNS, "columns": {"timestamp": "timestamp"}} | values
    return WithoutUsers(open_source(settings_of(source="table", path=str(events), **given)), users)


@pytest.mark.parametrize("id_type", ["auto", "string"])
def test_prepared_data_knows_nothing_of_them(tmp_path: Path, id_type: str) -> None:
    source = source_without(tmp_path, frozenset({"3", "9"}), id_type=id_type)
    prepared = prepare(source, Location.of(tmp_path / "out"))
    assert set(map(str, histories(prepared))) == {"1", "2", "4", "5", "6", "7"}  # 9 is in the table of users alone
    assert prepared.manifest["dropped"]["forgotten_users"] == sum(event[0] == 3 for event in EVENTS)
    assert "attributes/part-00000.parquet" in prepared.files


def test_data_without_another_user_is_other_data(tmp_path: Path) -> None:
    one, two = (source_without(tmp_path, frozenset(users)).fingerprint() for users in ({"3"}, {"3", "4"}))
    assert one != two


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "d é"]), max_size=4), max_size=4))
def test_the_list_only_grows(tmp_path_factory: pytest.TempPathFactory, calls: list[list[str]]) -> None:
    output = Location.of(tmp_path_factory.mktemp("list"))
    known: set[str] = set()
    for users in calls:
        assert add_forgotten(output, users) == [user for user in dict.fromkeys(users) if user not in known]
        known |= set(users)
        assert forgotten_users(output) == known


def test_a_list_that_is_none_is_one_line(tmp_path: Path) -> None:
    (Location.of(tmp_path) / FOLDER / "a.jsonl").write_bytes(b"who?\n")
    with pytest.raises(StorageError, match="not a list of forgotten users"):
        forgotten_users(Location.of(tmp_path))


def test_kept_files_lose_their_rows_and_no_others(tmp_path: Path) -> None:
    output = Location.of(tmp_path)
    rows = {"user_id": [1, 2, 1, 3], "item_id": ["a", "b", "c", "d"], "rating": [1.0, 2.0, 3.0, 4.0]}
    for folder in ("feedback", "exposures"):
        (output / folder / "events-1.parquet").write_parquet(pa.table(rows))
        (output / folder / "events-2.parquet").write_parquet(pa.table(rows).slice(1, 1))
    before = (tmp_path / "feedback" / "events-2.parquet").stat().st_mtime_ns
    found = forget(output, ["1", "77"])
    assert found == {"new": 2, "rows": {"feedback": 2, "hidden": 0, "clicks": 0, "exposures": 2}, "runs": []}
    assert (output / "feedback" / "events-1.parquet").read_parquet().column("user_id").to_pylist() == [2, 3]
    assert (tmp_path / "feedback" / "events-2.parquet").stat().st_mtime_ns == before
    assert forget(output, ["1"])["new"] == 0


def test_the_service_knows_them_no_longer(tmp_path: Path) -> None:
    output = tmp_path / "world"
    run = publish_run(output, prepared_world(output))
    with client(output, state=str(tmp_path / "state"), poll_seconds=0.05) as service:
        known = service.get("/v1/recommendations/1", params={"n": 3}).json()
        assert known["user"] == "known"
        event = {"user_id": 1, "item_id": known["items"][0]["item_id"], "rating": 5}
        assert service.post("/v1/feedback", json={"events": [event]}).status_code == 200
        assert service.get("/v1/recommendations/1", params={"n": 3}).json()["user"] == "updated"
        other = service.get("/v1/recommendations/2", params={"n": 3}).json()

        found = forget(Location.of(output), ["1"])
        assert found["runs"] == [run.name]
        deadline = time.monotonic() + 10
        while (answer := service.get("/v1/recommendations/1", params={"n": 3}).json())["user"] != "unknown":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert answer["history"] == 0 and answer["source"] == "fallback:popularity"
        refused = service.post("/v1/feedback", json={"events": [event]})
        assert refused.status_code == 422 and "asked to be forgotten" in refused.text
        again = service.get("/v1/recommendations/2", params={"n": 3}).json()
        assert again["items"] == other["items"] and again["user"] == "known"
    assert not list((output / "feedback").glob("*.parquet"))  # what waited for the next run is gone, too


def test_what_waits_in_the_outbox_is_not_written_out(tmp_path: Path) -> None:
    output = tmp_path / "world"
    publish_run(output, prepared_world(output))
    settings: dict[str, Any] = {"exposures": {"roll_seconds": 3600}}
    with client(output, state=str(tmp_path / "state"), poll_seconds=0.05, **settings) as service:
        for user in (1, 2):
            assert service.get(f"/v1/recommendations/{user}").json()["user"] == "known"
        forget(Location.of(output), ["1"])
        deadline = time.monotonic() + 10
        while service.get("/v1/recommendations/1").json()["user"] != "unknown":
            assert time.monotonic() < deadline
            time.sleep(0.05)
    tables = [Location.of(file).read_parquet() for file in (output / "exposures").glob("*.parquet")]
    assert pa.concat_tables(tables).column("user_id").unique().to_pylist() == [2]
