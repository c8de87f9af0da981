"""What a user sees of a run: lines of ours alone, from whichever process they come."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recsys_ray.base.errors import ConfigError, ModelError
from recsys_ray.cluster.config import ClusterSettings
from recsys_ray.cluster.progress import Inlet, Outlet
from recsys_ray.cluster.session import Session, our_errors
from tests.serving_worlds import prepared_world, publish_run
from tests.soak import free_port
from tests.test_imports import no_heavy_library, watch
from tests.worlds import TINY, World

pytestmark = pytest.mark.ray

CELL = r"[-+]?\d[\d.]*(?: \[[-+\d., ]+\])?"
HEAD = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [0-9a-f]{6} "
LINES = (
    r"(?:prepare|embed|train|refit|evaluate|recommend|publish|popularity|als|ease|item_cf|lightgcn): [ -~]+",
    r"check the run: \d+/\d+[ -~]*",  # on a slow machine
    r"[\d,]+ users, [\d,]+ with held-out items; [ -~]+ intervals",
    r"(?:history|head|tail)?[ -~]{0,40}(?: +@\d+)+",
    rf"  [a-z_]\w*(?:@\d+)?(?: +{CELL})+",
    r"(?:popularity|ease|item_cf) on the same targets, and the difference of the model to it",
    r"where",
    r"  [a-z]\w* +[ -~]+ \((?:higher|lower|says) [ -~]+\)",
)
SUMMARY = r"(?:data|quality|stages|next|user \d+|/[ -~]+/recommendations/[\w-]+|  [ -~]+)"
SHAPES = {"stderr": (*(HEAD + line for line in LINES), SUMMARY), "stdout": (r"\{.*\}",)}


def strange_lines(text: str, *streams: str) -> list[str]:
    """Lines of no shape that these streams may have."""
    shapes = "|".join(shape for stream in streams for shape in SHAPES[stream])
    return [line for line in text.splitlines() if not re.fullmatch(shapes, line)]


def fit_is_reported_before_its_end(said: str, model: str) -> bool:
    """What a worker says comes before the result of its work."""
    return -1 < said.find(f" train: {model} fitted in") < said.find(" train: done in")


def test_every_line_of_a_run_is_of_ours(tmp_path: Path) -> None:
    """Item vectors, whose actors Ray has much to say of, included. And with models that have no network, no process of
    the run imports a library that only networks need.

    The lines of a neural training are looked at where one is killed and run again, in ``test_kill``.
    """
    baselines = {"bootstrap": 20, "baselines": ["popularity", "item_cf", "ease"]}
    model = {"name": "als", "embedding_dim": 8, "epochs": 2}
    data, content = TINY["data"] | {"posters": True}, {"text": None, "image": {"encoder": "palette"}}
    world = World(tmp_path / "world", model=model, evaluation=baselines, data=data, content=content)
    command = [sys.executable, "-m", "recsys_ray.cli", "run", str(world.config)]
    watched, seen = watch(tmp_path)
    variables = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | watched
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and " embed: done in" in done.stderr
    no_heavy_library(seen)
    assert strange_lines(done.stderr, "stderr") == [] == strange_lines(done.stdout, "stdout")
    assert fit_is_reported_before_its_end(done.stderr, "als")


def count_and_fail(outlet: Outlet, count: int, error: str | None) -> int:
    print("not to be seen")
    with outlet.open() as tell:
        for number in range(count):
            tell(f"number {number}")
        if error:
            raise ModelError(error)
    return count


def test_workers_are_heard_in_order_before_their_result(ray_session: Any, capfd: pytest.CaptureFixture[str]) -> None:
    one: list[str] = []
    other: list[str] = []
    numbers = [f"number {number}" for number in range(50)]
    assert Session(ClusterSettings(fit_cpus=1), one.append).run(count_and_fail, 50, None) == 50
    assert one == numbers
    with pytest.raises(ModelError, match=r"^no more numbers$"):
        Session(ClusterSettings(fit_cpus=1), other.append).run(count_and_fail, 20, "no more numbers")
    assert other == numbers[:20] and one == numbers  # each hears its own
    assert capfd.readouterr() == ("", "")


def test_the_service_says_where_it_answers_and_that_it_stops(tmp_path: Path) -> None:
    publish_run(tmp_path, prepared_world(tmp_path), "popularity")
    world = World(tmp_path, output=str(tmp_path), serving={"port": free_port()})
    command = [sys.executable, "-m", "recsys_ray.cli", "serve", str(world.config)]
    variables = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables) as service:
        assert service.stderr is not None and service.stdout is not None
        said = [service.stderr.readline()]
        service.send_signal(signal.SIGINT)
        said += service.stderr.read().splitlines()
        printed = service.stdout.read().splitlines()
    assert re.fullmatch(HEAD + r"serve: http://[\d.:]+ answers from /[ -~]+; Ctrl-C stops it\n", said[0]), said
    assert [line.partition(" serve: ")[2] for line in said[1:]] == ["stopping"] and service.returncode == 0
    assert len(printed) == 1 and json.loads(printed[0])["stage"] == "serve", printed


def refuse(batch: dict[str, Any]) -> dict[str, Any]:
    raise ModelError("no room")


def test_an_error_of_ours_comes_through_ray_data_as_itself(ray_session: Any, capfd: pytest.CaptureFixture[str]) -> None:
    Session(ClusterSettings()).connect()
    refused = ray_session.data.from_items([{"shard": 0}]).map_batches(refuse)
    with pytest.raises(ModelError, match=r"^no room\Z"), our_errors():
        refused.take_all()
    assert capfd.readouterr() == ("", "")


def test_a_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(**options: Any) -> None:
        raise Exception("The current node timed out during startup.\nThis could happen")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", start)
    monkeypatch.setattr("recsys_ray.cluster.environment.VARIABLES", {})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(
        ConfigError, match=r"^Ray can't start on this machine: its node did not come up in 3 tries; is the machine"
    ):
        Session(ClusterSettings()).connect()


def test_work_outlives_the_actor_that_carries_its_messages(ray_session: Any) -> None:
    said: list[str] = []
    inlet = Inlet(said.append)
    ray_session.kill(inlet.outlet.actor)
    done = ray_session.remote(_tells).remote(inlet.outlet)
    inlet.pass_on_until(done)
    assert ray_session.get(done) == 7
    assert said == ["messages of the workers are lost; the work goes on"]

    again = Inlet(said.append)
    done = ray_session.remote(_tells).remote(again.outlet)
    again.pass_on_until(done)
    assert said[1:] == ["at work"]


def _tells(outlet: Outlet) -> int:
    with outlet.open() as tell:
        tell("at work")
    return 7
