"""Lints deploy/Dockerfile and runs its steps one by one in a fresh directory: ``python tests/dockerfile.py [--dry]``.

No image is built: COPY and RUN of the first stage happen below the fresh directory, which stands for ``/``. The
second stage, which needs root, is named and left out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "deploy" / "Dockerfile"
WORDS = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "CMD"}
Step = tuple[str, str]


def steps(text: str) -> list[Step]:
    """Instructions and their words, comments left out and continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [(word.upper(), rest.strip()) for word, _, rest in pairs]


def problems(found: list[Step], root: Path = ROOT) -> list[str]:
    """What is wrong with a Dockerfile, a line each."""
    wrong = [f"unknown instruction {word}" for word, _ in found if word not in WORDS]
    starts = [index for index, (word, _) in enumerate(found) if word == "FROM"]
    if len(starts) < 2:
        return [*wrong, "one stage: the tools of the build stay in the image"]
    last = found[starts[-1] :]
    stages = [rest.split()[-1] for word, rest in found if word == "FROM" and " AS " in rest]
    users = [rest for word, rest in last if word == "USER"]
    if not users or users[-1].split(":")[0] in ("root", "0"):
        wrong.append("the last USER is root")
    for word, rest in found:
        wrong += _problems_of(word, rest, stages, root)
    if last[-1][0] != "CMD" or not last[-1][1].startswith("["):
        wrong.append("the last instruction is no CMD as a list")
    return wrong


def _problems_of(word: str, rest: str, stages: list[str], root: Path) -> list[str]:
    wrong: list[str] = []
    if word == "FROM" and (":" not in rest or ":latest" in rest):
        wrong.append(f"FROM {rest}: no version")
    if word == "RUN" and "pip install" in rest and ("--no-cache-dir" not in rest or "-c " not in rest):
        wrong.append("pip install without --no-cache-dir or without constraints")
    if (
        word == "RUN"
        and "apt-get install" in rest
        and not ("--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists" in rest)
    ):
        wrong.append("apt-get install leaves its lists or takes recommendations")
    if word == "COPY" and (stage := re.match(r"--from=(\S+)", rest)):
        if stage[1] not in stages:
            wrong.append(f"COPY from {stage[1]}, which is no stage")
    elif word == "COPY":
        wrong += [f"COPY {name}: not there" for name in rest.split()[:-1] if not (root / name).exists()]
    return wrong


def run_steps(found: list[Step], fresh: Path) -> None:
    """COPY and RUN of the first stage, with ``fresh`` as the root directory."""
    variables = dict(os.environ)
    place = fresh
    stages = 0
    for word, rest in found:
        stages += word == "FROM"
        print(f"{word} {rest}", flush=True)
        if word == "ARG" and "=" in rest:
            name, _, value = rest.partition("=")
            variables.setdefault(name, value)
        elif stages > 1:
            print("  left out: the second stage copies the environment and needs root")
        elif word == "WORKDIR":
            place = fresh / rest.lstrip("/")
            place.mkdir(parents=True)
        elif word == "COPY":
            *names, to = rest.split()
            for name in names:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, place / to, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, place / to)
        elif word == "RUN":
            command = rest.replace("/opt/", f"{fresh}/opt/")
            subprocess.run(["sh", "-c", command], cwd=place, env=variables, check=True)
    subprocess.run([fresh / "opt/recsys/bin/recsys-ray", "--help"], cwd=fresh, check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="lint only, and name the steps")
    dry = parser.parse_args().dry
    found = steps(FILE.read_text())
    wrong = problems(found)
    print("\n".join(wrong) if wrong else "lint: nothing wrong")
    if wrong:
        return 1
    if dry:
        print("\n".join(f"{word} {rest}" for word, rest in found))
        return 0
    with tempfile.TemporaryDirectory() as fresh:
        run_steps(found, Path(fresh))
    return 0


if __name__ == "__main__":
    sys.exit(main())
