"""Is what is published whole, and is it what the service answers? One line per check, good or bad."""

from __future__ import annotations

import ipaddress
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pyarrow.compute as pc

from recsys_ray.base.errors import ConfigError, PublishError, RecsysError
from recsys_ray.base.provenance import Stamp
from recsys_ray.base.storage import Location
from recsys_ray.base.types import MapBlocks
from recsys_ray.recommend.bundle import Bundle, open_bundle
from recsys_ray.recommend.moments import at_of
from recsys_ray.runs import publish
from recsys_ray.runs.delta import check_table, is_table
from recsys_ray.runs.gate import check_run
from recsys_ray.runs.gate_part import flat
from recsys_ray.runs.publish import RECOMMENDATIONS, bundle_of
from recsys_ray.runs.published import PublishedRun, part_stamps, read_run

KEY_VARIABLE = "RECSYS_RAY_KEY"
"""Environment variable with the API key, where the service asks for one."""
USERS = 20
MOST_ROWS = 1000
TOLERANCE = 1e-5
SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, what was found, and whether that is as it should be."""

    check: str
    found: str
    good: bool

    def __str__(self) -> str:
        return f"{'ok' if self.good else 'FAILED'}: {self.check}: {self.found}"


def verify(output: Location, map_blocks: MapBlocks, url: str | None = None) -> tuple[Location, list[Finding]]:
    """The published run of an output directory and what was found, the service at ``url`` included when it is given.

    A check that fails does not keep the others from being made.

    Raises:
        PublishError: nothing is published, or the record of the run can't be read.
    """
    run = publish.latest_run(output / RECOMMENDATIONS)
    if run is None:
        raise PublishError(f"{output}: nothing is published, so there is nothing to verify; run recsys-ray run first")
    published = read_run(run)
    location = bundle_of(output, published.model)
    checks: list[tuple[str, Callable[[], str]]] = [
        ("parts", lambda: _parts(run, published.parts, map_blocks)),
        ("bundle", lambda: _whole(location)),
        ("lists", lambda: _lists(open_bundle(location), ranker, run, published, map_blocks)),
    ]
    ranker = None if published.ranker is None else bundle_of(output, published.ranker)
    if ranker is not None:
        checks.insert(2, ("ranker", lambda: _whole(ranker)))
    if is_table(run.parent):
        checks.append(("Delta table", lambda: check_table(run.parent, run)))
    if url is not None:
        service = _Service(url.rstrip("/"))
        checks += [
            ("service", service.ready),
            ("service runs", lambda: service.runs(run.name)),
            ("service lists", lambda: service.lists(run, run.name, at_of(published.recommend))),
        ]
    return run, [_made(name, check) for name, check in checks]


def _made(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, check(), True)
    except RecsysError as error:
        return Finding(name, str(error), False)


def _parts(run: Location, expected: dict[str, Stamp], map_blocks: MapBlocks) -> str:
    """Format 0 knows only sizes: what a stamp does not hold is not compared."""
    found = part_stamps(run, [name for name in run.names() if publish.is_part(name)], map_blocks)
    wrong = sorted(
        name
        for name in found.keys() | expected.keys()
        if name not in found or name not in expected or expected[name].items() - found[name].items()
    )
    if wrong:
        raise PublishError(f"{len(wrong)} parts are not those that were published, the first {wrong[0]}")
    what = "sizes and checksums" if all("sha256" in stamp for stamp in expected.values()) else "sizes"
    return f"{len(found)} files of the published {what} in {run}"


def _whole(location: Location) -> str:
    bundle = open_bundle(location, verify=True)
    return f"{bundle.manifest['model']}, {bundle.num_items:,} items, every checksum right in {location}"


def _lists(
    bundle: Bundle, ranker: Location | None, run: Location, published: PublishedRun, map_blocks: MapBlocks
) -> str:
    facts = check_run(bundle, run, published.recommend, published.gate, None, map_blocks, ranker).facts
    for name in ("users", "rows", "coverage", "fallback_share"):
        before = published.checks.get(name)
        if before is not None and not np.isclose(facts[name] or 0, before):
            raise PublishError(f"{name} was {before} when the run was published, is {facts[name]}")
    return f"{facts['users']:,} users with {facts['rows']:,} rows pass the gate"


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine itself.

    Raises:
        ConfigError: it is no address of a service.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        good = parts.scheme in ("http", "https") and bool(host) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"--url {url}: not the address of a service, such as http://127.0.0.1:8000")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class _Service:
    """A running service; every method raises PublishError with what is wrong."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._variant = ""
        proxies = [urllib.request.ProxyHandler({})] if is_loopback(url) else []  # no proxy knows this machine's own
        self._opener = urllib.request.build_opener(*proxies)

    def ready(self) -> str:
        return f"{self._url} is {self._get('/health/ready')['status']}"

    def runs(self, run_id: str) -> str:
        """Every replica answers with the run, for one variant at least."""
        info = self._get("/info")
        replicas = [info, *info["others"]]
        for replica in replicas:
            answering = {one["variant"]: one["run_id"] for one in replica["variants"]}
            named = [name for name, found in answering.items() if found == run_id]
            if not named:
                found = ", ".join(sorted(set(answering.values()))) or "none"
                raise PublishError(f"replica {replica['replica']} answers with run {found}, LATEST is {run_id}")
            self._variant = named[0]
        return f"{len(replicas)} replicas answer with {run_id}, variant {self._variant}"

    def lists(self, run: Location, run_id: str, at: int | None) -> str:
        """Some users are asked for, at the moment of the run where it has one; those who have sent feedback since get
        other lists, and are only counted."""
        if not self._variant:
            raise PublishError("not asked for, no variant answers with the published run")
        equal = newer = 0
        for user, rows in islice(_sample(run), USERS):
            query = f"n={len(rows)}&variant={quote(self._variant)}" + ("" if at is None else f"&at={at}")
            answer = self._get(f"/v1/recommendations/{quote(str(user), safe='')}?{query}")
            if answer["run_id"] != run_id:
                raise PublishError(f"user {user!r} was answered with run {answer['run_id']}, not {run_id}")
            if answer["user"] == "updated":
                newer += 1
                continue
            found = answer["items"]
            same = [item["item_id"] for item in found] == [row["item_id"] for row in rows]
            scores, expected = ([one["score"] for one in some] for some in (found, rows))
            if not same or not np.allclose(scores, expected, rtol=TOLERANCE, atol=TOLERANCE):
                raise PublishError(f"user {user!r} gets another list than the published one")
            equal += 1
        return f"{equal} users get the published lists, {newer} have sent feedback since"

    def _get(self, path: str) -> Any:
        key = os.environ.get(KEY_VARIABLE)
        request = urllib.request.Request(self._url + path, headers={"X-API-Key": key} if key else {})
        try:
            with self._opener.open(request, timeout=SECONDS) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                hint = f"; set {KEY_VARIABLE} to an API key" if error.code in (401, 403) else ""
                raise PublishError(f"{self._url}{path} answered {error.code}{hint}") from error
        except (OSError, ValueError) as error:
            raise PublishError(f"{self._url}{path} can't be asked ({error})") from error


def _sample(run: Location) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    """Users with their rows, from all over the run."""
    names = [name for name in run.names() if publish.is_part(name)]
    names = names[:: max(1, len(names) // USERS)]
    each = -(-USERS // max(1, len(names)))
    for name in names:
        table = flat((run / name).read_parquet())
        users = table.column("user_id")
        for user in users.unique().slice(0, each).to_pylist():
            rows = table.filter(pc.equal(users, user)).slice(0, MOST_ROWS)
            yield user, rows.select(["item_id", "score"]).to_pylist()
