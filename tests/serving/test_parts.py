"""Parts of the service on their own, and what they do together under load and while models change."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from pydantic import ValidationError

from recsys_ray.base.errors import StorageError
from recsys_ray.base.relative import beside
from recsys_ray.base.storage import Location
from recsys_ray.content.config import ImageSettings
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.runs import publish
from recsys_ray.runs.history import activated
from recsys_ray.runs.published import RunFacts, UsedModel
from recsys_ray.serving.answers import poster_images
from recsys_ray.serving.answers.cache import OVERHEAD, AnswerCache
from recsys_ray.serving.answers.item_catalogue import ItemCatalogue, poster_path
from recsys_ray.serving.answers.live_run import open_run
from recsys_ray.serving.answers.params import RecommendParams
from recsys_ray.serving.answers.variants import Assignment
from recsys_ray.serving.config import ServingSettings, VariantSettings
from recsys_ray.serving.http.app import Application
from recsys_ray.serving.http.messages import decoded
from recsys_ray.serving.http.request_models import Interaction
from recsys_ray.serving.service import Service
from recsys_ray.serving.users.cold_start import onboarding_rows
from recsys_ray.serving.users.events import Event
from recsys_ray.serving.users.histories import typed_id
from recsys_ray.serving.users.journal import NAMED, Journal
from tests.serving_worlds import client, counted, prepared_world, publish_run, published_rows, run_ids, two_runs


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two published runs of one data set: item-CF, then popularity as the latest."""
    return two_runs(tmp_path_factory.mktemp("world"))


def test_the_cache_keeps_to_its_bytes_and_drops_what_was_unused_longest() -> None:
    cache = AnswerCache(3 * (10 + OVERHEAD), ttl_seconds=60)
    for key in "abc":
        cache.put(key, b"x" * 10)
    assert cache.get("a") is not None
    cache.put("d", b"x" * 10)
    assert cache.get("b") is None and cache.get("a") is not None and len(cache) == 3
    cache.put("huge", b"x" * 4 * OVERHEAD)
    assert cache.get("huge") is None and cache.bytes == 3 * (10 + OVERHEAD)
    cache.put("a", b"y" * 5)
    assert cache.get("a") == b"y" * 5 and cache.bytes == 3 * OVERHEAD + 25
    assert (cache.hits, cache.misses) == (3, 2)


def test_cached_answers_die_of_age() -> None:
    cache = AnswerCache(10_000, ttl_seconds=0.02)
    cache.put("a", b"x")
    assert cache.get("a") == b"x"
    time.sleep(0.03)
    assert cache.get("a") is None and cache.bytes == 0


def test_old_answers_go_though_nobody_asks_for_them_again() -> None:
    cache = AnswerCache(10_000, ttl_seconds=0.02)
    for key in "abc":
        cache.put(key, b"x")
    time.sleep(0.03)
    cache.put("d", b"x")
    assert len(cache) == 1 and cache.bytes == 1 + OVERHEAD


def test_the_cache_takes_no_more_memory_than_it_counts_whatever_was_asked() -> None:
    cache = AnswerCache(1 << 18, ttl_seconds=60)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for user in range(1000):
            allow = tuple(f"{user}-{place}" for place in range(200))
            cache.put((user, RecommendParams(allow=allow)), b"x" * (user % 7))
        del allow
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 < after - before <= cache.bytes <= cache.max_bytes and len(cache) < 1000


def test_what_users_sent_is_no_more_than_a_day_ahead() -> None:
    now, hour = int(time.time() * 1000), 3_600_000
    assert Interaction(item_id=1, timestamp=now + 23 * hour).timestamp == now + 23 * hour
    for ahead in (now + 25 * hour, 10**14 - 1, 10**14):
        with pytest.raises(ValidationError):
            Interaction(item_id=1, timestamp=ahead)


def test_users_stay_in_their_variant_and_shares_follow_the_weights() -> None:
    arms = [
        VariantSettings(name="a", weight=3),
        VariantSettings(name="b", weight=1),
        VariantSettings(name="c", weight=0),
    ]
    users = [str(user) for user in range(8000)]
    first = [Assignment(arms, "salt").variant_of(user) for user in users]
    assert first == [Assignment(arms, "salt").variant_of(user) for user in users]
    assert first.count("a") == pytest.approx(6000, abs=160) and first.count("c") == 0  # four standard deviations
    other = [Assignment(arms, "other").variant_of(user) for user in users]
    assert sum(one != two for one, two in zip(first, other, strict=True)) == pytest.approx(3000, abs=200)


def test_ids_are_read_as_the_data_writes_them() -> None:
    assert typed_id("42", pa.int64()) == pa.array([42])
    for text in ("042", "+42", "4.0", " 42", "-1", "٤٢", "", "99999999999999999999"):
        assert typed_id(text, pa.int64()) is None
    assert typed_id("042", pa.string()) == pa.array(["042"])


def test_onboarding_items_are_popular_and_differ() -> None:
    items = pa.table(
        {
            "item_id": list("abcdef"),
            "genres": [["War"], ["War"], ["War"], ["Comedy"], ["Comedy"], ["Drama"]],
            "year": pa.array([1994, 1995, 1996, 1997, 1984, 1975], pa.int32()),
            "count": pa.array([60, 50, 40, 30, 20, 10], pa.int32()),
        }
    )
    # The most popular; then the drama of another decade (1/6 + 1 + 1) loses to the older comedy (2/6 + 1 + 1).
    assert onboarding_rows(ItemCatalogue(items), 3, pool=6) == [0, 4, 5]
    assert sorted(onboarding_rows(ItemCatalogue(items), 20, pool=6)) == list(range(6))


def test_search_finds_words_without_accents_and_case() -> None:
    items = pa.table(
        {
            "item_id": [1, 2, 3],
            "title": ["Amélie in Paris", "Paris", None],
            "count": pa.array([1, 5, 9], pa.int32()),
        }
    )
    catalogue = ItemCatalogue(items)
    assert catalogue.search("PARIS", 10) == [1, 0]
    assert catalogue.search("amelie paris", 10) == [0]
    assert catalogue.search("3", 10) == [2] and catalogue.search("rome", 10) == []
    assert catalogue.search("", 2, 1) == [1, 0]


PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def test_posters_are_images_of_the_catalogue_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(PNG)
    (tmp_path / "secret.txt").write_bytes(b"password")
    (tmp_path / "huge.png").write_bytes(PNG + b"\0" * (2 << 20))
    inside = ImageSettings(root=str(tmp_path), max_mib=1)
    inline = "data:image/png;base64," + base64.b64encode(PNG).decode()
    for place in ("good.png", f"file://{tmp_path}/good.png", inline):
        assert poster_images.poster_image(place, "1", inside) == (PNG, b"image/png")
    nothing = [None, "secret.txt", "huge.png", "none.png", "nofs://x/y", "a\0b", "~nobody/x"]
    script = "data:text/html,<script>alert(1)</script>"
    for place in (*nothing, script, "data:image/png;base64,@@", "https://elsewhere.example/poster.png"):
        assert poster_images.poster_image(place, "1", inside) is None


def test_posters_are_read_below_their_roots_alone_and_from_plain_files(tmp_path: Path) -> None:
    """Whatever a catalogue says: no other file of the machine, no device, pipe, loop, chain of filesystems, no host."""
    root, outside = tmp_path / "posters", tmp_path / "outside.png"
    root.mkdir()
    (root / "inside.png").write_bytes(PNG)
    outside.write_bytes(PNG)
    (root / "way-out.png").symlink_to(outside)
    (root / "way-in.png").symlink_to(root / "inside.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe.png")
    settings = ImageSettings(root=str(root))
    for name in ("inside.png", "way-in.png", "../posters/inside.png"):
        assert poster_images.poster_image(name, "1", settings) is not None, name
    refused = ["way-out.png", "loop.png", "zero.png", "pipe.png", "../outside.png", str(outside), f"file://{outside}"]
    refused += ["/dev/zero", "ftp://127.0.0.1/x.png", "github://a:b@c/x.png", "memory://x.png"]
    refused += [
        f"simplecache::file://{root}/inside.png",
        f"filecache::{root}/inside.png",
        "zip://x.png::http://a/b.zip",
    ]
    for name in refused:
        assert poster_images.poster_image(name, "1", settings) is None, name
    assert poster_images.poster_image(str(root / "inside.png"), "1", ImageSettings()) is None  # no root was named
    by_item = ImageSettings(directory=str(root))
    assert poster_images.poster_image(None, "inside", by_item) is not None
    assert poster_images.poster_image(None, "../outside", by_item) is None


def test_the_address_of_a_poster_leads_back_to_its_item() -> None:
    for name in ("a/b", "%2F", "x/poster", "søren ☃", 7):
        path = poster_path(name)
        assert decoded(path.removeprefix("/v1/items/").removesuffix("/poster"), 100) == str(name)
        assert path.count("/") == 4


def journal(folder: Path) -> Journal:
    return Journal(folder / "state.sqlite")


def test_what_was_taken_is_there_for_another_process_and_exported_exactly_once(tmp_path: Path) -> None:
    one, two = journal(tmp_path), journal(tmp_path)

    async def work() -> None:
        sent = [one.add("7", [Event(str(item), 2.0, item)], 1, durable=True) for item in range(50)]
        await asyncio.gather(*sent, two.add("7", [Event("99", 5.0, 99)], 1, durable=True))
        assert [event.item for event in await two.events("7")] == [*map(str, range(50)), "99"]
        assert await two.version("7") == await one.version("7") > 0 == await one.version("8")

    asyncio.run(work())
    folder = Location.of(tmp_path) / "feedback"
    files = one.export(folder, pa.int64(), pa.int64()) + two.export(folder, pa.int64(), pa.int64())
    rows = pa.concat_tables([file.read_parquet() for file in files]).to_pylist()
    assert sorted(row["item_id"] for row in rows) == [*range(50), 99]
    assert one.export(folder, pa.int64(), pa.int64()) == []
    one.close(), two.close()


def test_an_export_that_died_is_finished_by_the_next_one_under_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = journal(tmp_path)
    asyncio.run(kept.add("7", [Event("1", 2.0, 3)], 1, durable=True))
    folder = Location.of(tmp_path) / "feedback"
    whole = Location.write_parquet

    def written_then_killed(*args: Any, **options: Any) -> None:
        whole(*args, **options)
        raise StorageError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(Location, "write_parquet", written_then_killed)
        with pytest.raises(StorageError):
            kept.export(folder, pa.int64(), pa.int64())
    assert kept._db.execute("SELECT step FROM events").fetchall() == [(NAMED,)]
    kept.close()
    after = journal(tmp_path)
    after.export(folder, pa.int64(), pa.int64())
    assert [folder / name for name in folder.names()] == [
        folder / after._db.execute("SELECT file FROM events").fetchone()[0]
    ]
    assert (folder / folder.names()[0]).read_parquet().num_rows == 1
    after.close()


def test_a_changed_history_is_the_old_one_with_the_new_events_in_time(world: Path) -> None:
    run = open_run(Location.of(world), run_ids(world)[0], 1 << 20)
    run.min_rating = 3.0
    known = next(
        user for user in (run.users.find(str(n)) for n in range(1, 200)) if user and len(user.histories.items_E) > 4
    )
    old = known.histories.items_E.tolist()
    name, last = run.catalogue.ids, int(known.histories.timestamps_E[-1])
    fresh, low = [row for row in range(80) if row not in old][:2]
    events = [
        Event(str(name[old[1]]), 4.0, last + 5),  # rated again: it moves to the end
        Event(str(name[fresh]), 5.0, last + 3),
        Event(str(name[low]), 1.0, last + 4),  # disliked: only seen
        Event(str(name[old[2]]), 1.0, 0),  # older than what is known: nothing new
        Event("unheard of", 5.0, last + 6),
    ]
    request, unknown = run.request(known, events)
    assert unknown == 1 and request.users_B.tolist() == [-1]
    assert request.histories.items_E.tolist() == [old[0], *old[2:], fresh, old[1]]
    assert request.histories.ratings_E.tolist()[-2:] == [5.0, 4.0]
    assert set(request.seen.items_E.tolist()) == {*known.seen.items_E.tolist(), low}
    only_seen, _ = run.request(known, events[2:4])
    assert only_seen.users_B.tolist() == known.users_B.tolist() and only_seen.histories.items_E.tolist() == old


def test_user_shards_are_kept_within_their_bytes(world: Path) -> None:
    run = open_run(Location.of(world), run_ids(world)[0], 1)
    for user in range(1, 201):
        found = run.users.find(str(user))
        assert found is not None and found.user_ids.to_pylist() == [user]
        assert len(run.users._shards) == 1
    assert run.users.find("201") is None and run.users.find("x") is None


@pytest.mark.slow
def test_requests_of_the_same_moment_share_a_scoring_call(world: Path, tmp_path: Path) -> None:
    with client(world, state=str(tmp_path), cache={"mib": 0}, batching={"max_wait_ms": 1000.0}) as service:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda user: service.get(f"/v1/recommendations/{user}"), range(1, 9)))
        assert counted(service, "recsys_batch_rows_sum") == 8 and counted(service, "recsys_batch_rows_count") <= 2


@pytest.mark.slow
def test_questions_of_the_same_moment_keep_their_own_terms(world: Path, tmp_path: Path) -> None:
    genre = open_run(Location.of(world), run_ids(world)[0], 1 << 20).catalogue.genres[0][0]
    queries = [
        {"n": 3},
        {"n": 7},
        {"n": 7, "offset": 2},
        {"n": 5, "genre": genre},
        {"n": 50, "exclude_seen": False},
    ]
    with client(world, state=str(tmp_path), cache={"mib": 0}, batching={"max_wait_ms": 100.0}) as service:

        def request(params: dict[str, Any]) -> Any:
            return service.get("/v1/recommendations/5", params=params).json()["items"]

        alone = [request(params) for params in queries]
        with ThreadPoolExecutor(5) as pool:
            assert list(pool.map(request, queries)) == alone
    assert [len(items) for items in alone[:3]] == [3, 7, 7]


@pytest.mark.slow
def test_too_many_requests_at_once_are_turned_away_and_health_still_answers(world: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"cache": {"mib": 0}, "limits": {"in_flight": 2}, "batching": {"max_wait_ms": 1500.0}}
    with client(world, state=str(tmp_path), **settings) as service, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(service.get, f"/v1/recommendations/{user}") for user in range(1, 9)]
        time.sleep(0.1)
        assert service.get("/health/ready").status_code == 200
        done = [answer.result() for answer in answers]
        refused = [answer for answer in done if answer.status_code == 503]
        assert len(refused) == 6 and all(answer.headers["retry-after"] == "1" for answer in refused)
        assert counted(service, "recsys_overloads_total") == 6


def test_two_variants_answer_side_by_side_and_exposures_are_counted(world: Path, tmp_path: Path) -> None:
    item_cf, popularity = run_ids(world)
    arms = [{"name": "a", "run": item_cf, "weight": 1.0}, {"name": "b", "run": popularity, "weight": 1.0}]
    with client(world, state=str(tmp_path), variants=arms) as service:
        answers = [service.get(f"/v1/recommendations/{user}").json() for user in range(1, 101)]
        assert {(one["variant"], one["run_id"], one["model"]) for one in answers} == {
            ("a", item_cf, "item_cf"),
            ("b", popularity, "popularity"),
        }
        shown = sum(one["variant"] == "a" for one in answers)
        assert counted(service, "recsys_answers_total", model="item_cf", source="model", variant="a") == shown
        answer = service.get("/v1/recommendations/1", params={"variant": "b"}).json()
        assert answer["model"] == "popularity"


ADMIN = "an admin's key"
KEYS = [{"name": "ops", "role": "admin", "sha256": hashlib.sha256(ADMIN.encode()).hexdigest()}]
AS_ADMIN = {"X-API-Key": ADMIN}


def test_a_run_is_activated_rolled_back_and_remembered(tmp_path: Path) -> None:
    prepared = prepared_world(tmp_path)
    first, second = (publish_run(tmp_path, prepared, model, tag=model[0]).name for model in ("item_cf", "popularity"))

    def switch(body: dict[str, Any], status: int = 200) -> Any:
        answer = service.post("/v1/models/activate", json=body, headers=AS_ADMIN)
        assert answer.status_code == status, answer.text
        return answer.json()

    def answering() -> str:
        return str(service.get("/v1/recommendations/5", headers=AS_ADMIN).json()["run_id"])

    with client(tmp_path, keys=KEYS) as service:
        assert answering() == second
        assert switch({"run_id": first})["variants"][0]["previous_run_id"] == second
        assert answering() == first
        for wrong in ("no-such-run", "../prepared", "a/b", "."):
            assert "not a published run" in switch({"run_id": wrong}, 409)["error"]
        assert answering() == first
    assert activated(Location.of(tmp_path)) == {first, second}  # the other one to roll back to
    with client(tmp_path, keys=KEYS) as service:  # the choice outlives the process
        assert answering() == first
        switch({})
        assert answering() == second
        assert list((tmp_path / "serving").glob("SERVES-*.json"))
        assert activated(Location.of(tmp_path)) == {first, second}  # the replica holds both, for a roll-back
        switch({"roll_back": True})
        assert answering() == first
        switch({})
    assert activated(Location.of(tmp_path)) == set()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"run_id": 3}'])
def test_a_choice_that_can_not_be_read_stops_neither_the_service_nor_the_night(tmp_path: Path, content: bytes) -> None:
    run = publish_run(tmp_path, prepared_world(tmp_path)).name
    (tmp_path / "serving").mkdir(exist_ok=True)
    (tmp_path / "serving" / "ACTIVE-default.json").write_bytes(content)
    with client(tmp_path) as service:
        assert service.get("/v1/recommendations/5").json()["run_id"] == run
        try:
            assert activated(Location.of(tmp_path)) == {run}
        except StorageError as error:
            assert "ACTIVE-default.json" in str(error)  # then nothing is deleted


def test_the_metrics_name_the_run_that_answers_and_no_other(world: Path, tmp_path: Path) -> None:
    arms = [{"name": name, "output": str(world)} for name in "ab"]
    settings = {"state": str(tmp_path / "state"), "keys": KEYS, "variants": arms, "follow_latest": False}
    with client(world, **settings) as service:
        service.headers.update(AS_ADMIN)
        for run_id in [*run_ids(world), *run_ids(world)]:
            body = {"run_id": run_id, "variant": "a"}
            assert service.post("/v1/models/activate", json=body).status_code == 200
            assert counted(service, "recsys_run", variant="a", run_id=run_id) == 1
            assert counted(service, "recsys_run", variant="a") == counted(service, "recsys_run", variant="b") == 1
    for name in "ab":
        (world / "serving" / f"ACTIVE-{name}.json").unlink()


def until(condition: Callable[[], Any]) -> Any:
    """The first true value, which a loaded machine may take its time to give."""
    deadline = time.monotonic() + 20
    while not (value := condition()):
        assert time.monotonic() < deadline, "never became true"
        time.sleep(0.02)
    return value


def test_a_newly_published_run_is_followed_and_a_broken_one_is_not(tmp_path: Path) -> None:
    prepared, root = prepared_world(tmp_path), Location.of(tmp_path) / "recommendations"
    first = publish_run(tmp_path, prepared, "item_cf", tag="a").name
    with client(tmp_path, poll_seconds=0.05) as service:

        def answering() -> str:
            return str(service.get("/v1/recommendations/5").json()["run_id"])

        assert answering() == first
        second = publish_run(tmp_path, prepared, "popularity", tag="b").name
        until(lambda: answering() == second)
        facts = RunFacts(model=UsedModel("gone", "popularity"), recommend=RecommendSettings(), parts={})
        publish.publish(root, publish.start_run(root, "c" * 10, {}), facts)
        problem = until(lambda: service.get("/v1/models").json()["variants"][0]["problem"])
        assert "not a bundle" in problem and answering() == second


def test_nothing_published_is_unready_until_something_is(tmp_path: Path) -> None:
    with client(tmp_path, poll_seconds=0.05) as service:
        assert service.get("/health/live").status_code == 200
        for path in ("/health/ready", "/v1/recommendations/5"):
            answer = service.get(path)
            assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        publish_run(tmp_path, prepared_world(tmp_path))
        until(lambda: service.get("/health/ready").status_code == 200)


@pytest.mark.slow
def test_no_request_fails_and_no_answer_is_mixed_while_runs_change(world: Path, tmp_path: Path) -> None:
    names = run_ids(world)
    root = Location.of(world) / "recommendations"
    published = {name: published_rows(root / name) for name in names}
    stop, answers = threading.Event(), []

    def request(start: int) -> None:
        user = start
        while not stop.is_set():
            user = user % 200 + 1
            answers.append((user, service.get(f"/v1/recommendations/{user}", headers=AS_ADMIN)))

    with client(world, state=str(tmp_path), keys=KEYS, cache={"mib": 1}) as service, ThreadPoolExecutor(4) as pool:
        for start in (0, 50, 100, 150):
            pool.submit(request, start)
        for turn in range(6):
            body = {"run_id": names[turn % 2]}
            assert service.post("/v1/models/activate", json=body, headers=AS_ADMIN).status_code == 200
            time.sleep(0.15)
        stop.set()
    (world / "serving" / "ACTIVE-default.json").unlink()
    assert len(answers) > 100 and {answer.status_code for _, answer in answers} == {200}
    seen = set()
    for user, answer in answers:
        body = answer.json()
        seen.add(body["run_id"])
        expected = published[body["run_id"]][user]
        assert [item["item_id"] for item in body["items"]] == [row["item_id"] for row in expected]
        np.testing.assert_allclose([i["score"] for i in body["items"]], [r["score"] for r in expected], atol=1e-5)
    assert seen == set(names)


@pytest.mark.slow
def test_memory_stays_where_it_is_under_load(world: Path, tmp_path: Path) -> None:
    """A short form of the soak: answers made and dropped, users read and forgotten, feedback taken and written."""
    settings: dict[str, Any] = {"cache": {"mib": 1}, "feedback": {"roll_seconds": 0.2}, "user_cache_mib": 1}
    process = psutil.Process()

    async def work(application: Any) -> list[int]:
        used = []
        for turn in range(6):
            for number in range(700):
                path = f"/v1/recommendations/{number % 260}"
                assert await status_of(application, path, f"n={1 + number % 7}") == 200
            await application.service.add_events(str(turn), [Event("1", 1.0, turn)])
            used.append(process.memory_info().rss)
        return used

    async def soak() -> list[int]:
        application = Application(
            Service(ServingSettings.model_validate(settings | {"state": str(tmp_path)}), Location.of(world))
        )
        await application.service.start()
        used = await work(application)
        await application.service.stop()
        return used

    used = asyncio.run(soak())
    assert max(used[3:]) <= 1.05 * used[2]


async def status_of(application: Application, path: str, query: str) -> int:
    """One GET without a socket."""
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query.encode()}
    messages: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    await application(scope | {"headers": [(b"host", b"localhost")], "root_path": ""}, receive, send)
    return int(messages[0]["status"])


def test_a_poster_beside_the_catalogue_is_shown(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "7.png").write_bytes(PNG)
    place = beside(Location.of(tmp_path / "items.csv"), "p/7.png")
    items = pa.table({"item_id": [7], "title": ["A"], "text": ["a"], "poster": [place], "genres": [["x"]], "year": [1]})
    catalogue = ItemCatalogue(items.append_column("count", pa.array([1])))
    assert poster_images.poster_image(catalogue.posters[0], "7", ImageSettings()) == (PNG, b"image/png")
    assert catalogue.describe(0)["poster"] == "/v1/items/7/poster"
