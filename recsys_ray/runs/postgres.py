"""The lists of a published run in Postgres, behind a view.

    <name>                a view of the table below, which readers use
    <name>_<run>          user_id, rank, item_id, score, source[, reason]; primary key (user_id, rank)

A run gets a table of its own: made, filled by COPY and indexed in one transaction, so that a table is whole or not
there. Then the view is put over it in another, and tables of other runs are dropped. A load that was killed leaves what
was there; the same command goes on behind what was committed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv

from recsys_ray.base.errors import ConfigError, PublishError
from recsys_ray.base.optional import require
from recsys_ray.base.progress import Step
from recsys_ray.base.secrets import mask
from recsys_ray.base.storage_errors import first_line
from recsys_ray.runs.published_lists import PublishedLists

ROWS = 50_000
"""Of one piece that is sent."""
CONNECT_SECONDS = 10
LOCK_SECONDS, TRIES = 5, 6
"""The view is switched between the queries of others: so long one try waits for them, and so many there are. While it
waits new queries wait behind it."""
NAME = re.compile(r"(?:[a-z_][a-z0-9_]*\.)?[a-z_][a-z0-9_]*")
LONGEST = 63
"""Bytes of a name; Postgres cuts off what is longer."""
RUN_ID = r"\d{8}t\d{6}_[0-9a-f]+"

Say = Callable[[str], None]


def load_postgres(lists: PublishedLists, where: str, name: str, progress: Say = lambda message: None) -> dict[str, Any]:
    """Fill a table, switch the view, drop the tables of other runs; what was done. A table that is there is left as it
    is, but for the rows of users who asked to be forgotten since.

    Args:
        where: ``postgresql://user@host/database`` or ``host=... dbname=...``; what it does not say is taken from
            PGHOST, PGUSER, PGPASSWORD, PGDATABASE and the password file, as for psql.
        name: of the view, ``view`` or ``schema.view``; the schema must be there.

    Raises:
        ConfigError: the name is none, or psycopg is not installed. PublishError: Postgres can't be reached or refuses
            something; the view stays what it was.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"--name: {name!r} is no view; small letters, digits and '_' make one, with its schema or not"
        )
    schema, _, view = name.rpartition(".")
    table = f"{view}_{lists.run.name.lower().replace('-', '_')}"
    if len(table) > LONGEST:
        raise ConfigError(f"--name: {view} is too long, the table {table} would have more than {LONGEST} characters")
    psycopg = require("psycopg", extra="postgres", what="export postgres")
    with _open(psycopg, where) as connection:
        load = _Load(psycopg, connection, lists, schema, view, table, progress)
        load.wait_for_others()
        is_there = load.is_there()
        if is_there:
            progress(f"export: {table} is there already")
            load.forget()
        else:
            load.fill()
        load.switch()
        return load.facts() | {"view": name, "skipped": is_there, "dropped": load.drop_others()}


@dataclass(frozen=True, slots=True)
class _Load:
    """One run on its way into a database."""

    psycopg: Any
    connection: Any
    lists: PublishedLists
    schema: str
    view: str
    table: str
    progress: Say

    def run(self, statement: str, values: Any = None, **names: str) -> Any:
        """One statement; ``{name}`` in it is an identifier, those of this schema among them."""
        sql = self.psycopg.sql
        known = {"view": self.view, "table": self.table} | names
        schema = [self.schema] if self.schema else []
        quoted = {key: sql.Identifier(*schema, name) for key, name in known.items()}
        return self.connection.execute(sql.SQL(statement).format(**quoted), values)

    def wait_for_others(self) -> None:
        """Hold what one load of this view at a time holds, to the end of the connection."""
        key = (f"recsys_ray {self.schema}.{self.view}",)
        if not self.run("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", key).fetchone()[0]:
            self.progress(f"export: another load works on {self.view}; waiting for it")
            self.run("SELECT pg_advisory_lock(hashtextextended(%s, 0))", key)

    def is_there(self) -> bool:
        return self.table in self.tables()

    def tables(self) -> list[str]:
        """Tables of runs of this view."""
        found = self.run(
            "SELECT tablename FROM pg_tables WHERE schemaname = coalesce(nullif(%s, ''), current_schema()) "
            "AND tablename ~ %s",
            (self.schema, f"^{self.view}_{RUN_ID}$"),
        )
        return [name for (name,) in found]

    def fill(self) -> None:
        parts = self.lists.parts()
        with self.connection.transaction():
            self.run(f"CREATE TABLE {{table}} ({', '.join(_columns(self.lists.first().schema))})")
            with self.connection.cursor() as cursor:
                table = self.psycopg.sql.Identifier(*filter(None, (self.schema, self.table)))
                statement = self.psycopg.sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(table)
                with cursor.copy(statement) as copy:
                    for done, part in enumerate(parts, start=1):
                        for block in self.lists.long(part).to_batches(max_chunksize=ROWS):
                            copy.write(as_csv(block))
                        self.progress(Step("export: postgres", done, len(parts)))
            self.run("ALTER TABLE {table} ADD PRIMARY KEY (user_id, rank)")
        self.run("ANALYZE {table}")

    def forget(self) -> None:
        """The rows of forgotten users go from a table that was filled before."""
        if self.lists.forgotten:
            users = sorted(self.lists.forgotten)
            self.run("DELETE FROM {table} WHERE user_id::text = ANY(%s)", (users,))

    def switch(self) -> None:
        """The view is one of this table, in one transaction, from which on new queries read it."""
        for left in reversed(range(TRIES)):
            try:
                with self.connection.transaction():
                    self.run(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
                    try:
                        with self.connection.transaction():
                            self.run("CREATE OR REPLACE VIEW {view} AS SELECT * FROM {table}")
                    except self.psycopg.errors.InvalidTableDefinition:  # other columns, or other ids
                        self.run("DROP VIEW {view}")
                        self.run("CREATE VIEW {view} AS SELECT * FROM {table}")
                return
            except self.psycopg.errors.LockNotAvailable:
                if not left:
                    raise
                self.progress(f"export: {self.view} is being read; trying again to switch it")

    def drop_others(self) -> list[str]:
        """Tables of other runs go, but those that are read just now or that something else stands on."""
        errors, dropped = self.psycopg.errors, []
        for other in self.tables():
            if other != self.table:
                try:
                    with self.connection.transaction():
                        self.run(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
                        self.run("DROP TABLE {other}", other=other)
                    dropped.append(other)
                except (errors.LockNotAvailable, errors.DependentObjectsStillExist) as error:
                    self.progress(f"export: {other} stays ({first_line(error)}); the next load drops it")
        return dropped

    def facts(self) -> dict[str, Any]:
        rows, users = self.run("SELECT count(*), count(DISTINCT user_id) FROM {table}").fetchone()
        info = self.connection.info
        server = f"postgresql://{info.host}:{info.port}/{info.dbname}"
        return {"server": server, "table": self.table, "run_id": self.lists.run.name, "rows": rows, "users": users}


def _columns(schema: pa.Schema) -> Iterator[str]:
    kinds = {pa.int64(): "bigint", pa.int32(): "integer", pa.float32(): "real"}
    for field in schema:
        yield f"{field.name} {kinds.get(field.type, 'text')}"


def as_csv(block: pa.RecordBatch) -> bytes:
    """Rows as COPY reads them: text in quotes, what is null without."""
    sink = io.BytesIO()
    csv.write_csv(block, sink, csv.WriteOptions(include_header=False))
    return sink.getvalue()


@contextmanager
def _open(psycopg: Any, where: str) -> Iterator[Any]:
    """A connection; whatever goes wrong between here and the server is one line."""
    try:
        with psycopg.connect(
            where, autocommit=True, connect_timeout=CONNECT_SECONDS, client_encoding="utf8", prepare_threshold=None
        ) as connection:
            yield connection
    except psycopg.ProgrammingError as error:
        if error.sqlstate is None:  # of the address, before any server was asked
            raise ConfigError(f"--to: {mask(first_line(error))}; write postgresql://user@host/database") from error
        raise _refused(error) from error
    except psycopg.Error as error:
        raise _refused(error) from error


def _refused(error: Exception) -> PublishError:
    said = mask(first_line(error))
    return PublishError(f"Postgres can't be used ({said}); start it, grant what is missing, or set --to or --name")
