"""Published lists in Redis and Postgres, both really started; skipped where their servers are not installed."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recsys_ray.base.errors import ConfigError, PublishError, StorageError
from recsys_ray.base.storage import Location
from recsys_ray.data.forgotten import add_forgotten
from recsys_ray.runs import postgres, publish, redis
from recsys_ray.runs.published_lists import PublishedLists
from tests.here import without_ray
from tests.redis_server import RedisServer
from tests.runs.test_publish import facts
from tests.worlds import World

ODD = ["plain", 'quo"te', "com,ma", "new\nline", "", "é:ü", "back\\slash", "\\N"]
"""Ids that a format might take apart."""


def published(root: Location, letter: str, *parts: pa.Table) -> Location:
    run = publish.start_run(root, letter * 64, {})
    for number, table in enumerate(parts):
        (run / f"part-{number:05}.parquet").write_parquet(table)
    publish.publish(root, run, facts(*(run / name for name in run.names() if publish.is_part(name))))
    return run


def part(users: list[Any], n: int = 2, shift: int = 0, reasons: bool = False) -> pa.Table:
    """Lists in the long layout: the items of a user are numbered, scores fall."""
    rows = [(user, rank) for user in users for rank in range(1, n + 1)]
    columns = {
        "user_id": pa.array([user for user, _ in rows]),
        "rank": pa.array([rank for _, rank in rows], pa.int32()),
        "item_id": pa.array([ODD[(place + rank + shift) % len(ODD)] for place, (_, rank) in enumerate(rows)]),
        "score": pa.array([0.1 / rank for _, rank in rows], pa.float32()),
        "source": pa.array(["model" if rank == 1 else "fallback:popularity" for _, rank in rows]),
    }
    if reasons:
        columns["reason"] = pa.array([None if rank == 1 else f"because, of {rank}" for _, rank in rows], pa.string())
    return pa.table(columns)


def lists_of(run: Location) -> dict[str, dict[str, list[Any]]]:
    """What Parquet says: user as text -> lists in the order of the ranks."""
    found: dict[str, dict[str, list[Any]]] = {}
    for name in run.names():
        if publish.is_part(name):
            for row in (run / name).read_parquet().to_pylist():
                one = found.setdefault(str(row["user_id"]), {})
                for column in ("item_id", "score", "source", "reason"):
                    if column in row:
                        one.setdefault(f"{column}s", []).append(row[column])
    return found


def as_read(lists: dict[str, dict[str, list[Any]]]) -> dict[str, dict[str, list[Any]]]:
    """The same with scores as float32, which is what is kept."""
    return {
        user: {
            name: pa.array(values, pa.float32()).to_pylist() if name == "scores" else values
            for name, values in one.items()
        }
        for user, one in lists.items()
    }


# -- Redis ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    import redis as library

    with library.Redis.from_url(redis_server.url) as opened:
        opened.flushall()
        yield opened


def in_redis(client: Any, name: str = "recs") -> dict[str, dict[str, list[Any]]]:
    """What a reader finds: the pointer, then the keys of its run."""
    run = client.get(f"{name}:current").decode()
    start = f"{name}:{run}:"
    keys = [key.decode() for key in client.keys(f"{start}*")]
    return as_read({key.removeprefix(start): json.loads(client.get(key)) for key in keys})


def test_redis_holds_the_lists_of_the_parquet(tmp_path: Path, redis_server: RedisServer, client: Any) -> None:
    root = Location.of(tmp_path)
    users = [user for user in ODD if user]
    run = published(root, "a", part(users[:3], reasons=True), part(users[3:], n=1, reasons=True))
    found = redis.load_redis(PublishedLists(run), redis_server.url, "recs")
    redis.load_redis(PublishedLists(run), redis_server.url, "shop:home")
    assert in_redis(client) == in_redis(client, "shop:home") == lists_of(run) and found["users"] == len(users)
    assert client.ttl(f"recs:{run.name}:plain") == -1 and not client.exists("recs:loading")
    value = client.get(f"recs:{run.name}:plain").decode()
    assert '"scores":[0.1,0.05]' in value  # the shortest number that is the same float32


def test_redis_switches_at_the_end_and_takes_the_run_before_away(
    tmp_path: Path, redis_server: RedisServer, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Location.of(tmp_path)
    first, second = published(root, "a", part([1, 2, 3])), published(root, "b", part([2, 3, 4]))
    client.set("recs:other", "theirs")
    client.set("recs:x:key", "theirs")
    redis.load_redis(PublishedLists(first), redis_server.url, "recs")
    seen = []
    values_of = redis.values_of

    def watched(block: Any) -> Iterator[tuple[str, str]]:
        seen.append((client.get("recs:current").decode(), sorted(in_redis(client))))
        yield from values_of(block)

    monkeypatch.setattr(redis, "values_of", watched)
    found = redis.load_redis(PublishedLists(second), redis_server.url, "recs")
    assert seen == [(first.name, ["1", "2", "3"])]
    assert found["before"] == first.name and found["retired"] == 3 and sorted(in_redis(client)) == ["2", "3", "4"]
    left = client.ttl(f"recs:{first.name}:1")
    assert 0 < left <= redis.GRACE_SECONDS and client.ttl(f"recs:{second.name}:2") == -1
    assert client.get("recs:other") == client.get("recs:x:key") == b"theirs"


@pytest.mark.parametrize("goes_on_with", ["a", "c"])
def test_a_load_into_redis_that_was_killed_leaves_readers_alone_and_nothing_behind(
    tmp_path: Path, redis_server: RedisServer, client: Any, monkeypatch: pytest.MonkeyPatch, goes_on_with: str
) -> None:
    root = Location.of(tmp_path)
    old = published(root, "0", part([1]))
    redis.load_redis(PublishedLists(old), redis_server.url, "recs")
    run = published(root, "a", part([1, 2]), part([3, 4]))
    with monkeypatch.context() as patch:
        patch.setattr(PublishedLists, "nested", broken_after(1, PublishedLists.nested))
        with pytest.raises(StorageError):
            redis.load_redis(PublishedLists(run), redis_server.url, "recs")
    assert sorted(in_redis(client)) == ["1"] and client.exists(f"recs:{run.name}:2")
    again = run if goes_on_with == "a" else published(root, "c", part([9]))
    redis.load_redis(PublishedLists(again), redis_server.url, "recs")
    assert in_redis(client) == lists_of(again)
    stays = {key.decode().split(":")[1] for key in client.keys("recs:*") if client.ttl(key) == -1}
    assert stays == {"current", again.name}


def broken_after(parts: int, read: Any) -> Any:
    done: list[str] = []

    def reading(self: PublishedLists, name: str) -> pa.Table:
        done.append(name)
        if len(done) > parts:
            raise StorageError("the disk is gone")
        return read(self, name)

    return reading


def test_lists_in_redis_expire_and_a_second_load_begins_that_anew(
    tmp_path: Path, redis_server: RedisServer, client: Any
) -> None:
    run = published(Location.of(tmp_path), "a", part([1, 2]))
    key = f"recs:{run.name}:1"
    for hours, lowest, highest in ((1.0, 3590, 3600), (0.01, 30, 36), (None, -1, -1)):
        redis.load_redis(PublishedLists(run), redis_server.url, "recs", hours)
        assert lowest <= client.ttl(key) <= highest


def test_two_loads_into_redis_do_not_mix(
    tmp_path: Path, redis_server: RedisServer, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = published(Location.of(tmp_path), "a", part([1]))
    monkeypatch.setattr(redis, "HELD_SECONDS", 0.3)
    client.set("recs:loading", "another", px=300)
    said: list[str] = []
    redis.load_redis(PublishedLists(run), redis_server.url, "recs", progress=said.append)
    assert "another load works on recs" in said[0] and sorted(in_redis(client)) == ["1"]


def test_what_is_wrong_with_redis_is_one_line(tmp_path: Path, redis_server: RedisServer, client: Any) -> None:
    lists = PublishedLists(published(Location.of(tmp_path), "a", part([1])))
    for where, name, told in (
        ("redis://:secret@127.0.0.1:9/0", "recs", r"127\.0\.0\.1:9/0: Redis can't be used"),
        ("http://127.0.0.1", "recs", "--to: .*write redis://host:port/0"),
        (redis_server.url, "a*b", "--name: 'a\\*b' is no name of keys"),
    ):
        with pytest.raises((ConfigError, PublishError), match=told) as failure:
            redis.load_redis(lists, where, name)
        assert "\n" not in str(failure.value) and "secret" not in str(failure.value)
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(PublishError, match="maxmemory"):
            redis.load_redis(lists, redis_server.url, "recs")
    finally:
        client.config_set("maxmemory", "0")
    assert not client.exists("recs:current")


# -- Postgres ------------------------------------------------------------------------------------------------------


class Database:
    """A Postgres of its own on a free port, without durability; never as root, who may not start one."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self._as = {"user": "postgres"} if os.geteuid() == 0 else {}
        self._binaries, self.data = binaries, folder / "data"
        if self._as:
            shutil.chown(folder, "postgres")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"postgresql://{self.user}@127.0.0.1:{self.port}/postgres"
        self._call("initdb", "-D", str(self.data), "-A", "trust", "-U", self.user, "-E", "UTF8", "--locale=C", "-N")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._call("pg_ctl", "-D", str(self.data), "-w", "-o", options, "-l", str(folder / "log"), "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", str(self.data), "-m", "immediate", "stop")

    def _call(self, program: str, *words: str) -> None:
        command = [str(self._binaries / program), *words]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, **self._as)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout + done.stderr


def binaries() -> Path | None:
    """Of the newest Postgres that is installed; Debian keeps initdb away from PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    pytest.importorskip("psycopg")
    place = binaries()
    if place is None:
        pytest.skip("no Postgres here")
    import tempfile

    with tempfile.TemporaryDirectory(prefix="pg") as folder:  # in /tmp, for its user to reach
        server = Database(Path(folder), place)
        yield server
        server.stop()


@pytest.fixture
def sql(database: Database) -> Iterator[Any]:
    import psycopg

    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        yield connection


def in_postgres(sql: Any, view: str = "recs") -> dict[str, dict[str, list[Any]]]:
    cursor = sql.execute(f"SELECT * FROM {view} ORDER BY user_id, rank")
    names = [column.name for column in cursor.description]
    found: dict[str, dict[str, list[Any]]] = {}
    for row in cursor:
        values = dict(zip(names, row, strict=True))
        one = found.setdefault(str(values["user_id"]), {})
        for column in names[2:]:
            one.setdefault(f"{column}s", []).append(values[column])
    return as_read(found)


def tables(sql: Any) -> list[str]:
    return [name for (name,) in sql.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")]


def test_postgres_holds_the_rows_of_the_parquet(tmp_path: Path, database: Database, sql: Any) -> None:
    run = published(Location.of(tmp_path), "a", part(ODD[:4], reasons=True), part(ODD[4:], n=1, reasons=True))
    found = postgres.load_postgres(PublishedLists(run), database.url, "recs")
    assert in_postgres(sql) == lists_of(run)
    assert (found["rows"], found["users"]) == (12, 8) and database.url.rpartition("@")[2] in found["server"]
    kinds = dict(sql.execute("SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'recs'"))
    assert kinds == {
        "user_id": "text",
        "rank": "integer",
        "item_id": "text",
        "score": "real",
        "source": "text",
        "reason": "text",
    }
    sql.execute("SET enable_seqscan = off")
    plan = sql.execute("EXPLAIN SELECT * FROM recs WHERE user_id = 'plain'").fetchall()
    assert "Index" in str(plan)


def test_postgres_switches_at_once_and_drops_the_table_before(tmp_path: Path, database: Database, sql: Any) -> None:
    root = Location.of(tmp_path)
    first, second = published(root, "a", part([1, 2, 3])), published(root, "b", part([2, 3, 4]))
    sql.execute("CREATE TABLE recs_other (a int)")
    postgres.load_postgres(PublishedLists(first), database.url, "recs")
    sql.execute(
        "DROP ROLE IF EXISTS reader; CREATE ROLE reader; GRANT USAGE ON SCHEMA public TO reader;"
        "GRANT SELECT ON recs TO reader"
    )
    found = postgres.load_postgres(PublishedLists(second), database.url, "recs")
    assert found["dropped"] == [table_of(first)] and tables(sql) == [table_of(second), "recs_other"]
    assert in_postgres(sql) == lists_of(second)
    sql.execute("SET ROLE reader")
    assert in_postgres(sql) == lists_of(second)  # who could read the view still can
    sql.execute("RESET ROLE")
    third = published(root, "c", part(["x"], reasons=True))  # ids of another type, a column more
    postgres.load_postgres(PublishedLists(third), database.url, "recs")
    assert in_postgres(sql) == lists_of(third)


def table_of(run: Location) -> str:
    return f"recs_{run.name.lower().replace('-', '_')}"


def test_a_load_into_postgres_that_was_killed_leaves_nothing_and_one_behind_the_copy_goes_on(
    tmp_path: Path, database: Database, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Location.of(tmp_path)
    old, run = published(root, "0", part([1])), published(root, "a", part([1, 2]), part([3, 4]))
    postgres.load_postgres(PublishedLists(old), database.url, "recs")
    with monkeypatch.context() as patch:
        patch.setattr(PublishedLists, "long", broken_after(2, PublishedLists.long))  # the first look, and one part
        with pytest.raises(StorageError):
            postgres.load_postgres(PublishedLists(run), database.url, "recs")
    assert in_postgres(sql) == lists_of(old) and tables(sql) == [table_of(old)]

    def killed(load: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(postgres._Load, "switch", killed)
        with pytest.raises(KeyboardInterrupt):
            postgres.load_postgres(PublishedLists(run), database.url, "recs")
    assert in_postgres(sql) == lists_of(old)
    found = postgres.load_postgres(PublishedLists(run), database.url, "recs")
    assert found["skipped"] and in_postgres(sql) == lists_of(run) and tables(sql) == [table_of(run)]


def test_a_table_that_is_read_stays_and_a_view_that_is_read_is_waited_for(
    tmp_path: Path, database: Database, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    root = Location.of(tmp_path)
    first, second = published(root, "a", part([1])), published(root, "b", part([2]))
    postgres.load_postgres(PublishedLists(first), database.url, "recs")
    monkeypatch.setattr(postgres, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(postgres, "TRIES", 2)
    said: list[str] = []
    with psycopg.connect(database.url) as reader:
        reader.execute("SELECT * FROM recs")
        with pytest.raises(PublishError, match="lock timeout"):
            postgres.load_postgres(PublishedLists(second), database.url, "recs", said.append)
        assert any("recs is being read" in line for line in said)
    with psycopg.connect(database.url) as reader:
        reader.execute(f"SELECT * FROM {table_of(first)}")
        found = postgres.load_postgres(PublishedLists(second), database.url, "recs", said.append)
        assert found["dropped"] == [] and "stays" in said[-1] and in_postgres(sql) == lists_of(second)
    assert postgres.load_postgres(PublishedLists(second), database.url, "recs")["dropped"] == [table_of(first)]


def test_what_is_wrong_with_postgres_is_one_line(tmp_path: Path, database: Database, sql: Any) -> None:
    lists = PublishedLists(published(Location.of(tmp_path), "a", part([1])))
    sql.execute("CREATE TABLE mine (a int); CREATE SCHEMA IF NOT EXISTS shop")
    for where, name, told in (
        ("postgresql://me:secret@127.0.0.1:9/x", "recs", "Postgres can't be used .*refused"),
        ("postgresql://127.0.0.1/x?nothing=1", "recs", "--to: .*write postgresql://"),
        ("no address", "recs", "--to: .*write postgresql://"),
        (database.url, "Recs; DROP", "--name: 'Recs; DROP' is no view"),
        (database.url, "r" * 40, "too long"),
        (database.url, "mine", '"mine" is not a view'),
        (database.url, "nowhere.recs", 'schema "nowhere" does not exist'),
    ):
        with pytest.raises((ConfigError, PublishError), match=told) as failure:
            postgres.load_postgres(lists, where, name)
        assert "\n" not in str(failure.value) and "secret" not in str(failure.value)
    postgres.load_postgres(lists, database.url, "shop.recs")
    assert in_postgres(sql, "shop.recs") == lists_of(lists.run)
    with pytest.raises(PublishError, match="0x00"):
        run = published(Location.of(tmp_path), "b", part(["nu\0l"]))
        postgres.load_postgres(PublishedLists(run), database.url, "recs")


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["long", "nested"])
def test_the_command_leaves_out_who_asked_to_be_forgotten(
    tmp_path: Path, redis_server: RedisServer, client: Any, database: Database, sql: Any, layout: str
) -> None:
    world = World(
        tmp_path / "world",
        recommend={"n": 3, "layout": layout, "reasons": True},
        evaluation={"bootstrap": 0, "baselines": []},
    )
    to = {"redis": ("--to", redis_server.url), "postgres": ("--to", database.url)}
    with without_ray():
        for what, told in (("redis", "nothing is published"), ("postgres", "nothing is published")):
            refused = world.command(f"export {what}", *to[what])
            assert refused.status == 1 and told in refused.errors
        world.run()
        add_forgotten(Location.of(world.folder / "out"), ["7"])
        for what in to:
            world.run(*to[what], "--name", "recs", stage=f"export {what}")
        lists = [in_redis(client), in_postgres(sql)]
        assert len(lists[0]) == 299 and "7" not in lists[0]
        assert lists[0] == lists[1] and set(lists[0]["8"]) == {"item_ids", "scores", "sources", "reasons"}
        add_forgotten(Location.of(world.folder / "out"), ["8", "nobody"])
        for what in to:
            world.run(*to[what], "--name", "recs", stage=f"export {what}")
        assert in_redis(client) == in_postgres(sql) == {user: one for user, one in lists[0].items() if user != "8"}


def test_the_command_says_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path / "world")
    with without_ray():
        for words, told in (
            (("export postgres", "--expire-hours", "3"), "--expire-hours: only lists in Redis expire"),
            (("export embeddings", "--name", "x"), "--name: embeddings have none"),
        ):
            refused = world.command(*words)
            assert refused.status == 1 and told in refused.errors
        published(Location.of(world.recommendations), "a", part([1]))
        for library in ("redis", "psycopg"):
            monkeypatch.setitem(sys.modules, library, None)
        for what, library in (("redis", "redis"), ("postgres", "psycopg")):
            refused = world.command(f"export {what}")
            assert f'needs {library}, which is not installed: pip install "recsys_ray[{what}]"' in refused.errors
