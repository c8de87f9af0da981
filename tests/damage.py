"""Every file of every stage is damaged, and the same command is run again.

    python tests/damage.py [--times 200] [--seed 0]

A file is cut, emptied, removed, one bit of it is flipped, or it is replaced by JSON of another shape or by another file
of its kind. Then the same command must heal it, or refuse in one line and heal it when it is run once more. It never
publishes a wrong row and never leaves one published. ``test_damage`` holds the short form. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

sys.path.insert(0, str(Path(__file__).parent.parent))

from recsys_ray.cli import main
from tests.here import without_ray

WORLD: dict[str, Any] = {
    "name": "damage",
    "data": {
        "source": "synthetic",
        "users": 60,
        "items": 40,
        "interactions_per_user": 10,
        "shards": 2,
        "posters": True,
        "split": {"kind": "leave_last_out"},
    },
    "content": {"text": None, "image": {"encoder": "palette"}, "items_per_shard": 20},
    "model": {"name": "als", "embedding_dim": 8, "epochs": 2},
    "recommend": {"n": 5, "fallback": ["content", "popularity"], "index": {"kind": "flat", "min_recall": 0.5}},
    "evaluation": {"bootstrap": 20, "k": [5]},
    "runs": {"accuracy": {"override": True}},
}
KINDS = ("bit", "cut", "empty", "gone", "json", "other")
GOOD = ("healed", "refused, then healed", "of no effect")


@dataclass(frozen=True)
class Damage:
    """What was done to a file, and what came of it."""

    file: str
    kind: str
    outcome: str

    @property
    def stage(self) -> str:
        return self.file.partition("/")[0]


@dataclass(frozen=True)
class World:
    """A run that is whole, and copies of it to be damaged."""

    folder: Path
    rows: pa.Table

    @classmethod
    def made_in(cls, folder: Path) -> World:
        """Two runs, so that there is an older one: yesterday's with other settings."""
        config = folder / "world.yaml"
        config.write_text(yaml.safe_dump(WORLD | {"output": str(folder / "out")}))
        with without_ray():
            for overrides in (["recommend.n=4"], []):
                status, errors = command(config, overrides)
                assert status == 0, errors
        shutil.copytree(folder / "out", folder / "whole")
        return cls(folder, published_rows(folder / "out"))

    @property
    def files(self) -> list[str]:
        whole = self.folder / "whole"
        return sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file())

    def try_damage(self, name: str, kind: str, dice: random.Random, *, unpublished: bool = False) -> Damage:
        """Damage one file of a copy, run the command; ``unpublished``: as if it had stopped before the gate."""
        out = self.folder / "out"
        shutil.rmtree(out)
        shutil.copytree(self.folder / "whole", out)
        if unpublished:
            latest = out / "recommendations" / (out / "recommendations" / "LATEST").read_text().strip()
            (latest / "_manifest.json").unlink(missing_ok=True)
        if not (out / name).exists() or not damage(out / name, kind, dice):
            return Damage(name, kind, "of no effect")
        return Damage(name, kind, self._outcome())

    def _outcome(self) -> str:
        with without_ray():
            status, errors = command(self.folder / "world.yaml")
            refused = status != 0
            if refused:
                if not is_one_line(status, errors):
                    return f"no single line: {errors[-1:]}"
                if not self._published_is_right():
                    return "refused, but wrong rows are published"
                status, errors = command(self.folder / "world.yaml")
        if status != 0:
            return f"stays broken: {errors[-1:]}"
        if not self._published_is_right(whole=True):
            return "wrong rows are published"
        return "refused, then healed" if refused else "healed"

    def _published_is_right(self, *, whole: bool = False) -> bool:
        """Whether what LATEST names has the right rows; while it is not healed, parts may be gone."""
        try:
            rows = published_rows(self.folder / "out")
        except (OSError, ValueError, pa.ArrowException):
            return not whole
        expected = set(map(str, self.rows.to_pylist()))
        found = set(map(str, rows.to_pylist()))
        return found == expected if whole else True


def command(config: Path, overrides: list[str] | None = None) -> tuple[int, list[str]]:
    """The exit status of ``recsys-ray run``, and what it said."""
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        status = main(["run", str(config), *(overrides or [])])
    return status, errors.getvalue().strip().splitlines()


def is_one_line(status: int, errors: list[str]) -> bool:
    return status == 1 and errors[-1].startswith("error: ") and sum(e.startswith("error:") for e in errors) == 1


def published_rows(out: Path) -> pa.Table:
    root = out / "recommendations"
    run = root / (root / "LATEST").read_text().strip()
    return pa.concat_tables([pq.read_table(part) for part in sorted(run.glob("part-*.parquet"))])


def damage(file: Path, kind: str, dice: random.Random) -> bool:
    """Change a file; whether that could be done."""
    data = file.read_bytes()
    if kind == "gone":
        file.unlink()
        return True
    if kind == "other":
        others = [path for path in file.parent.iterdir() if path.suffix == file.suffix and path.is_file()]
        others = [path for path in others if path.read_bytes() != data]
        if not others:
            return False
        file.write_bytes(dice.choice(others).read_bytes())
        return True
    if not data:
        return False
    flipped = bytearray(data)
    flipped[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    shapes = [b"[]", b"{}", b"null", b'{"format": 2}', b'{"files": [1]}', b"\xff\xfe"]
    made = {"bit": bytes(flipped), "cut": data[: dice.randrange(len(data))], "empty": b"", "json": dice.choice(shapes)}
    file.write_bytes(made[kind])
    return True


def tried(world: World, times: int, seed: int) -> list[Damage]:
    """``times`` damages: every file in turn, every kind in turn, at random places."""
    dice, files, found = random.Random(seed), world.files, []
    for number in range(times):
        name = files[number % len(files)]
        kind = KINDS[(number // len(files) + number) % len(KINDS)]
        # Parts of the newest run are also damaged before they were checked and published.
        found.append(world.try_damage(name, kind, dice, unpublished=number % 3 == 0))
    return found


def table(found: list[Damage]) -> str:
    """Stages down, outcomes across."""
    stages, outcomes = sorted({one.stage for one in found}), sorted({one.outcome for one in found})
    counts = Counter((one.stage, one.outcome) for one in found)
    lines = [f"{'':18}" + "".join(f"{outcome[:24]:>26}" for outcome in outcomes)]
    lines += [f"{stage:18}" + "".join(f"{counts[stage, outcome]:>26}" for outcome in outcomes) for stage in stages]
    return "\n".join(lines)


def main_of_script() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = World.made_in(Path(folder))
        found = tried(world, parsed.times, parsed.seed)
        bad = [one for one in found if one.outcome not in GOOD]
        for one in bad:
            print(f"{one.kind:6} {one.file}: {one.outcome}")
        print(table(found))
        files = len(world.files)
    print(json.dumps({"damages": len(found), "files": files, "not_healed": len(bad), "seed": parsed.seed}))
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main_of_script())
