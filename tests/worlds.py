"""Small worlds for tests that go through the command: a configuration file, a way to run it, the rows it published."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from recsys_ray.cli import main

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "source": "synthetic",
        "users": 300,
        "items": 120,
        "interactions_per_user": 12,
        "shards": 3,
        "split": {"kind": "leave_last_out"},
    },
    "model": {"name": "item_cf"},
    "recommend": {"n": 20},
    "evaluation": {"bootstrap": 20},
}


@dataclass
class Outcome:
    """What one command left: its exit status, its JSON line, and everything it said."""

    status: int
    result: dict[str, Any]
    output: str
    errors: str


class World:
    """A configuration in a folder of its own; output goes beside it."""

    def __init__(self, folder: Path, **sections: Any) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "world.yaml"
        tree = {**TINY, "output": str(folder / "out"), **sections}
        self.config.write_text(yaml.safe_dump(tree))

    def command(self, stage: str, *overrides: str) -> Outcome:
        """Run a stage in this process; a stage of two words is written with the blank between them."""
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = main([*stage.split(), str(self.config), *overrides])
        lines = output.getvalue().strip().splitlines()
        result = json.loads(lines[-1]) if status == 0 else {}
        return Outcome(status, result, output.getvalue(), errors.getvalue())

    def process(self, stage: str, *overrides: str, variables: dict[str, str] | None = None) -> dict[str, Any]:
        """Run a stage as a user would, in a process of its own that starts its own Ray; its JSON line."""
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | (variables or {})
        command = [sys.executable, "-m", "recsys_ray.cli", stage, str(self.config), *overrides]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return result

    def run(self, *overrides: str, stage: str = "run") -> dict[str, Any]:
        """Run a stage that must succeed; its JSON line."""
        outcome = self.command(stage, *overrides)
        assert outcome.status == 0, outcome.errors
        return outcome.result

    @property
    def recommendations(self) -> Path:
        return self.folder / "out" / "recommendations"

    def latest(self) -> Path:
        return self.recommendations / (self.recommendations / "LATEST").read_text().strip()

    def published(self) -> pa.Table:
        return pa.concat_tables([pq.read_table(part) for part in sorted(self.latest().glob("part-*.parquet"))])


def write_csv(path: Path, rows: list[str], header: str = "user_id,item_id,rating,timestamp") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path
