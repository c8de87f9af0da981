"""A worse model after a good one stays unpublished, its cure is let in, and both are compared by the command."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from recsys_ray.cli import main
from tests.worlds import World

pytestmark = pytest.mark.ray


def compared(*arguments: str) -> tuple[int, str, str]:
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        status = main(["compare", *arguments])
    return status, output.getvalue(), errors.getvalue()


def test_a_worse_model_is_not_published_and_its_cure_is(tmp_path: Path, ray_session: Any) -> None:
    world = World(tmp_path, evaluation={"bootstrap": 100})
    world.run()
    good = world.latest()
    refused = world.command("run", "model.name=random")
    (line,) = [line for line in refused.errors.splitlines() if line.startswith("error: ")]
    assert refused.status == 1 and world.latest() == good
    assert "worse than popularity in ndcg@20: 0." in line and "worse than the published run in ndcg@20: 0." in line
    assert "LATEST stays as it was" in line and "runs.accuracy.override=true" in line

    world.run("model.name=random", "runs.accuracy.override=true")
    bad = world.latest()
    assert bad != good and json.loads((bad / "_manifest.json").read_text())["checks"]["accuracy_override"] == 1

    # The lists of the cure are others: min_overlap, which holds back odd runs, does not hold it back.
    world.run("model.name=ease", "runs.gate.min_overlap=0.99")
    cure = world.latest()
    assert cure not in (good, bad)
    assert "accuracy_override" not in json.loads((cure / "_manifest.json").read_text())["checks"]

    status, output, errors = compared(str(tmp_path / "out"), str(bad))
    found = json.loads(output.splitlines()[-1])["comparisons"]
    overall = {one["metric"]: one for one in found if one["segment"] == "all"}
    assert status == 0 and set(overall) == {"recall@20", "ndcg@20"}
    assert overall["ndcg@20"]["low"] > 0 and overall["ndcg@20"]["p_value"] < 0.01 and "better" in errors
    assert "better" not in "".join(compared(str(bad), str(bad))[1:])


def test_what_can_not_be_compared_is_one_line(tmp_path: Path, ray_session: Any) -> None:
    one, other = World(tmp_path / "one"), World(tmp_path / "other", seed=1)
    for world in (one, other):
        world.run()
    status, _, errors = compared(str(one.latest()), str(other.latest()))
    assert status == 1 and "can't compare runs on different targets" in errors and errors.count("\n") == 1
    status, _, errors = compared(
        str(one.latest()),
        str(one.latest()),
    )
    assert status == 0
    status, _, errors = compared(str(one.latest()), str(tmp_path / "nowhere"))
    assert status == 1 and "neither an evaluation, nor a published run" in errors
    one.run("data.split={kind: none}")
    status, _, errors = compared(str(one.folder / "out"), str(one.folder / "out"))
    assert status == 1 and "was published without an evaluation; set data.split.kind" in errors
