"""From an answer of the service to the verdict of ``recsys-ray ab``."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recsys_ray.base import schema
from recsys_ray.base.errors import StorageError
from recsys_ray.base.storage import Location
from recsys_ray.cli import main
from recsys_ray.serving.config import ExposureSettings
from recsys_ray.serving.users.events import Event
from recsys_ray.serving.users.exposures import ExposureJournal
from recsys_ray.serving.users.histories import fitting, typed_id
from recsys_ray.serving.users.outbox import Outbox
from tests.serving_worlds import client, counted, run_ids, two_runs

IDS = (pa.int64(), pa.int64())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_runs(tmp_path_factory.mktemp("published"))


@pytest.fixture
def world(published: Path, tmp_path: Path) -> Path:
    """The published runs, with room for what this test's service writes."""
    for name in ("prepared", "models", "recommendations"):
        (tmp_path / name).symlink_to(published / name)
    return tmp_path


def arms(world: Path) -> list[dict[str, Any]]:
    item_cf, popularity = run_ids(world)
    return [{"name": "a", "run": item_cf}, {"name": "b", "run": popularity}]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_every_answer_to_a_user_of_the_data_is_a_row(world: Path) -> None:
    with client(world, variants=arms(world), exposures={"items": 4}) as service:
        answers = [service.get(f"/v1/recommendations/{user}").json() for user in (7, 7, 8)]
        assert [one["cached"] for one in answers] == [False, True, False]
        body = {"user_ids": [9, 10], "n": 2, "variant": "b"}
        answers += service.post("/v1/recommendations", json=body).json()["results"]
        page = service.get("/v1/recommendations/8", params={"offset": 3, "n": 2}).json()
        service.get("/v1/recommendations/nobody")  # this data's users are numbers
        ratings = [{"item_id": item} for item in range(1, 8)]
        service.post("/v1/onboarding/ratings", json={"ratings": ratings})  # a temporary user
        service.post("/v1/recommendations", json={"history": [{"item_id": 3}]})  # nobody
        own = {user: service.get(f"/v1/recommendations/{user}").json()["variant"] for user in (9, 10)}
    found = rows(world / "exposures")
    found[3:5] = sorted(found[3:5], key=lambda row: int(row["user_id"]))  # answered side by side
    assert [row["user_id"] for row in found] == [7, 7, 8, 9, 10, 8, 9, 10]
    for row, answer in zip(found, [*answers, page], strict=False):
        assert (row["variant"], row["run_id"]) == (answer["variant"], answer["run_id"])
        assert row["items"] == [item["item_id"] for item in answer["items"]][:4]
    assert [row["assigned"] for row in found] == [True] * 3 + [own[9] == "b", own[10] == "b"] + [True] * 3
    assert all(abs(row["timestamp"] / 1000 - time.time()) < 60 for row in found)


def test_nothing_is_journaled_unasked_and_clicks_are_refused_then(world: Path) -> None:
    with client(world, variants=arms(world)) as service:
        service.get("/v1/recommendations/7")
        event = {"user_id": 7, "item_id": 3}
        sent = {"events": [event, event | {"kind": "clicked"}]}
        answer = service.post("/v1/feedback", json=sent)
        assert answer.status_code == 422 and "serving.exposures" in answer.json()["error"]
        assert service.get("/v1/recommendations/7").json()["user"] == "known"  # and nothing of it was taken
    assert not (world / "exposures").exists() and not (world / "feedback").exists()


def test_clicks_are_outcomes_and_no_interactions(world: Path) -> None:
    with client(world, variants=arms(world), exposures={}) as service:
        before = service.get("/v1/recommendations/7").json()
        clicked = {"user_id": 7, "item_id": before["items"][0]["item_id"], "kind": "clicked", "timestamp": 12}
        answer = service.post("/v1/feedback", json={"events": [clicked]}).json()
        assert answer["accepted"] == 1
        after = service.get("/v1/recommendations/7").json()
        assert after["user"] == "known" and after["items"] == before["items"]
        wrong = service.post("/v1/feedback", json={"events": [clicked | {"rating": 3.0}]})
        assert wrong.status_code == 422 and "has no rating" in wrong.json()["error"]
    assert rows(world / "clicks") == [{key: clicked[key] for key in ("user_id", "item_id", "timestamp")}]
    assert not (world / "feedback").exists()


def config_of(world: Path, **experiment: Any) -> str:
    """A configuration whose output is the world, and whose windows are over soon."""
    serving = {"variants": arms(world), "exposures": {}, "experiment": {"least_users": 20} | experiment}
    config = {
        "name": "experiment",
        "output": str(world),
        "data": {"source": "synthetic"},
        "model": {"name": "ease"},
        "serving": serving,
    }
    path = world / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def test_from_answers_and_feedback_to_the_verdict(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Users of b rate the first two shown items and one that was not shown; those of a click one in four times."""
    answered: Counter[str] = Counter()
    clicks = 0
    with client(world, variants=arms(world), exposures={}) as service:
        for user in range(1, 121):
            answer = service.get(f"/v1/recommendations/{user}", params={"n": 5}).json()
            shown = [item["item_id"] for item in answer["items"]]
            answered[answer["variant"]] += 1
            events: list[dict[str, Any]] = []
            if answer["variant"] == "b":
                liked = [*shown[:2], next(item for item in range(1, 81) if item not in shown)]
                events = [{"user_id": user, "item_id": item, "rating": 5.0} for item in liked]
                events += [{"user_id": user, "item_id": shown[3], "rating": 1.0}]  # not liked
            elif user % 4 == 0:
                events = [{"user_id": user, "item_id": shown[0], "kind": "clicked"}] * 2
                clicks += 1
            if events:
                assert service.post("/v1/feedback", json={"events": events}).status_code == 200
    path = config_of(world, window_hours=5e-4, min_rating=4.0)
    time.sleep(1.8)
    assert main(["ab", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)  # nothing beside the JSON line
    a, b = found["variants"]
    assert (a["users"], b["users"]) == (a["judged"], b["judged"]) == (answered["a"], answered["b"])
    assert (a["shown"]["outcomes"], a["any"]["outcomes"]) == (clicks, clicks)
    assert (b["shown"]["outcomes"], b["any"]["outcomes"]) == (2 * answered["b"], 3 * answered["b"])
    assert b["shown"]["effect"]["difference"] == pytest.approx(2 - clicks / answered["a"])
    assert b["shown"]["effect"]["low"] > 0 and b["verdict"].startswith("b: better than a")
    assert found["warning"] is None and a["shown"]["effect"] is None

    assert main(["ab", path, "serving.experiment.control=b"]) == 0
    table = capsys.readouterr().err
    assert "a: worse than b" in table and table.splitlines()[0].startswith("variant")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "no exposures; set serving.exposures={}"),
        (["serving.variants=[{name: a}]"], "serving.variants has a alone; an experiment needs two"),
        (["serving.experiment.control=c"], "serving.experiment.control=c is none of serving.variants: a, b"),
        (["serving.experiment.since=2026-11-26"], "serving.experiment.since"),
    ],
)
def test_no_experiment_is_one_line(
    world: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    assert main(["ab", config_of(world), *overrides]) == 1
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == ""


def written(world: Path, users: dict[str, list[int]], **columns: Any) -> None:
    """Exposures of these users, by variant, an hour ago."""
    moment = int((time.time() - 3600) * 1000)
    values = [
        {"user_id": user, "timestamp": moment, "variant": variant, "assigned": True, "run_id": "r", "items": [1]}
        | columns
        for variant, listed in users.items()
        for user in listed
    ]
    file = Location.of(world) / "exposures" / f"exposures-{'-'.join(users)}.parquet"
    file.write_parquet(pa.Table.from_pylist(values, schema.exposures(*IDS)))


@pytest.mark.parametrize(
    ("users", "columns", "message"),
    [
        ({"a": [1, 2]}, {}, "nothing to compare: variants with users are a, the control is a"),
        ({"a": [1], "b": [1]}, {}, "variants with users are none, the control is a; left out: 1 users in two"),
        ({"a": [1], "old": [2]}, {}, "old answered, and serving.variants has a, b; set serving.experiment.since"),
        ({"a": [1], "b": [2]}, {"timestamp": 0}, "no exposures since 2026-01-01"),
    ],
)
def test_exposures_of_another_experiment_are_one_line(
    world: Path, capsys: pytest.CaptureFixture[str], users: dict[str, list[int]], columns: Any, message: str
) -> None:
    written(world, users, **columns)
    overrides = ["serving.experiment.since=2026-01-01T00:00:00Z"] if columns else []
    assert main(["ab", config_of(world), *overrides]) == 1
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_feedback_of_another_data_set_is_one_line(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(world, {"a": [1], "b": [2]})
    table = schema.interactions(pa.string(), pa.int64()).empty_table()
    (Location.of(world) / "feedback" / "events-1.parquet").write_parquet(table)
    assert main(["ab", config_of(world)]) == 1
    said = capsys.readouterr().err
    assert "column 'user_id' must be int64, found string" in said and said.count("\n") == 1


# -- the journal ----------------------------------------------------------------------------------------------------


def journal(folder: Path, counts: Counter[str], **settings: Any) -> ExposureJournal:
    def count(outcome: str, number: int) -> None:
        counts[outcome] += number

    return ExposureJournal(folder / "exposures.sqlite", ExposureSettings(**settings), count)


async def ended(made: ExposureJournal, folder: Path) -> None:
    await made.close(lambda: made.export(Location.of(folder), *IDS))


def test_memory_is_bounded_and_what_is_lost_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[str] = Counter()
    made = journal(tmp_path, counts, waiting=3)

    def full(outbox: Outbox, folder: str, listed: list[str]) -> None:
        raise StorageError("disk full")

    def show(*users: int) -> None:
        for user in users:
            made.shown(str(user), "a", True, "r", '["1","2"]')

    async def work() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Outbox, "add", full)
            for _ in range(2):
                show(1, 2)
                with pytest.raises(StorageError):
                    await made.flush()
        assert counts == {"lost": 1}
        await made.flush()
        show(5, 6, 7)
        await ended(made, tmp_path)

    asyncio.run(work())
    assert [row["user_id"] for row in rows(tmp_path / "exposures")] == [1, 2, 1, 5, 6, 7]
    assert counts == {"lost": 1, "written": 6, "foreign": 0}


def test_a_killed_process_loses_nothing_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the file, and between the file and the end of its rows: the next process writes it once."""
    monkeypatch.setattr("recsys_ray.serving.users.outbox.ROWS_PER_FILE", 2)
    folder, place = tmp_path / "state", Location.of(tmp_path / "out")

    def table_of(listed: list[str]) -> pa.Table:
        return pa.table({"row": pa.array(listed, pa.string())})

    def killed(listed: list[str]) -> pa.Table:
        raise KeyboardInterrupt

    first = Outbox(folder / "outbox.sqlite")
    first.add("x", ["1", "2", "3"])
    first.add("y", ["other"])
    with pytest.raises(KeyboardInterrupt):
        first.export("x", place, killed)
    begun = first._named("x")
    assert begun is not None
    (place / begun).write_parquet(table_of(["1", "2"]))  # written, and killed before its rows were let go
    second = Outbox(folder / "outbox.sqlite")
    second.add("x", ["4", "5"])
    assert second.export("x", place, table_of) == 3
    assert sorted(row["row"] for row in rows(tmp_path / "out")) == ["1", "2", "3", "4", "5"]
    assert begun in place.names() and len(place.names()) == 3
    assert first.export("x", place, table_of) == 0
    for outbox in (first, second):
        outbox.close()


@pytest.mark.slow
def test_processes_that_share_an_outbox_write_each_row_into_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_ray.serving.users.outbox.ROWS_PER_FILE", 7)
    place = Location.of(tmp_path / "out")

    def work(name: str) -> None:
        outbox = Outbox(tmp_path / "outbox.sqlite")  # a connection of its own, as a process has
        for number in range(40):
            outbox.add("x", [f"{name}{number}.{part}" for part in range(3)])
            outbox.export("x", place, lambda listed: pa.table({"row": pa.array(listed, pa.string())}))
        outbox.close()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, "abc"))
    expected = [f"{name}{number}.{part}" for name in "abc" for number in range(40) for part in range(3)]
    assert sorted(row["row"] for row in rows(tmp_path / "out")) == sorted(expected)


def test_a_place_that_can_not_be_written_disturbs_no_answer(world: Path) -> None:
    (world / "exposures").write_text("a file where the directory should be")
    with client(world, variants=arms(world), exposures={"roll_seconds": 0.05}) as service:
        for user in range(1, 20):
            assert service.get(f"/v1/recommendations/{user}").status_code == 200
            time.sleep(0.01)
        assert counted(service, "recsys_exposure_rows_total", outcome="lost") == 0
    (world / "exposures").unlink()
    with client(world, variants=arms(world), exposures={}):  # the rows have waited for a better day
        pass
    assert len(rows(world / "exposures")) == 19


def test_files_that_are_not_finished_are_not_seen(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    made = journal(tmp_path, counts)
    made.shown("1", "a", True, "r", '["1"]')
    made.shown("2", "a", True, "r", '["1","x","3"]')
    made.shown("2", "a", True, "r", "[]")
    made.clicked("1", [Event("4", 1.0, 5), Event("x", 1.0, 5)])
    made.shown("new-1", "a", True, "r", '["1"]')
    made.shown("x", "a", True, "r", '["y"]')
    asyncio.run(ended(made, tmp_path))
    assert {path.suffix for path in tmp_path.glob("*/*")} == {".parquet"}
    assert counts == {"written": 4, "foreign": 3}
    assert [row["items"] for row in rows(tmp_path / "exposures")] == [[1], [1, 3], []]
    assert [row["item_id"] for row in rows(tmp_path / "clicks")] == [4]


def test_rows_that_nobody_can_read_do_not_keep_those_behind_them(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    made = journal(tmp_path, counts)
    made.shown("1", "a", True, "r", "[not JSON")
    asyncio.run(made.export(Location.of(tmp_path), *IDS))
    made.shown("2", "a", True, "r", '["1"]')
    asyncio.run(ended(made, tmp_path))
    assert [row["user_id"] for row in rows(tmp_path / "exposures")] == [2]
    assert counts == {"lost": 1, "written": 1, "foreign": 0}


def test_texts_are_ids_one_by_one_and_all_at_once() -> None:
    texts = ["0", "7", "07", "", "-1", "+1", " 1", "1.0", "x", "\u0661", "1" * 18, "1" * 25, "9" * 19]
    texts += [str(2**63 + more) for more in (-2, -1, 0, 1)]
    for kind in IDS[0], pa.string():
        one_by_one = [typed_id(text, kind) for text in texts]
        fits = fitting(pa.array(texts), kind)
        assert fits.to_pylist() == [found is not None for found in one_by_one]
        found = pa.array(texts).filter(fits).cast(kind)
        assert found.to_pylist() == [one[0].as_py() for one in one_by_one if one is not None]


@pytest.mark.parametrize("user", ['a"b', "a\\b", "a\nb", "ü 好 🙂", "x\u0000y", "[1,2]", "'"])
def test_any_text_is_a_user(tmp_path: Path, user: str) -> None:
    made = journal(tmp_path, Counter())
    made.shown(user, user, False, "r", json.dumps([user, "2"]))
    made.clicked(user, [Event(user, 1.0, 5)])
    asyncio.run(made.close(lambda: made.export(Location.of(tmp_path), pa.string(), pa.string())))
    (row,), (click,) = rows(tmp_path / "exposures"), rows(tmp_path / "clicks")
    assert (row["user_id"], row["variant"], row["assigned"], row["items"]) == (user, user, False, [user, "2"])
    assert (click["user_id"], click["item_id"], click["timestamp"]) == (user, user, 5)
