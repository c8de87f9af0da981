"""Test results by seed: measured from configurations, kept as JSON, and set side by side on one page.

    python benchmarks/leaderboard.py measure configs/beauty-transitions.yaml [data.path=FILE ...] [--seeds 5]
    python benchmarks/leaderboard.py page        writes docs/leaderboard.md from docs/results/*.json

``measure`` evaluates a configuration on its held-out part once for each seed 0, 1, ..., and stores every metric of
every seed, the bootstrap replicates of two of them, the command, the commit and the settings. Results on the same
held-out interactions (``targets``, a digest) stand in one table, whichever machine they are from. Their differences
have paired intervals: replicates of the users, averaged over seeds, under the same draws on both sides. The spread
over seeds stands beside it. ``looks`` counts how many different settings of a result's name were ever measured on the
test part; ``--earlier`` adds those from before it was kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsys_ray.base.provenance import fingerprint
from recsys_ray.base.storage import Location
from recsys_ray.base.types import map_blocks_here
from recsys_ray.config import load_config
from recsys_ray.data.prepared import Prepared
from recsys_ray.evaluation import Report
from recsys_ray.runs.compare import find_evaluation

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "docs" / "results", ROOT / "docs" / "leaderboard.md"
KEPT = ("hit_rate", "recall", "ndcg", "mrr", "coverage")
HEAD = """# Leaderboard

Made by `python benchmarks/leaderboard.py page` from `docs/results/`; do not edit. Full ranking of the whole catalogue,
test part, settings from the validation part. Means over seeds, ± the standard deviation over seeds; a model without
chance in it has one. Brackets: the difference to the first of the table with its 95 % interval, paired over users.
Looks: how many different settings of that name were ever measured on the test part.
"""


def store(
    name: str,
    reports: Sequence[Report],
    *,
    title: str,
    targets: str,
    metrics: Sequence[str],
    command: str,
    settings: Any,
    earlier: int = 0,
    folder: Path = RESULTS,
    **facts: Any,
) -> Path:
    """Write one result, its seeds in order; settings that were not measured before count as a look."""
    file = folder / f"{name}.json"
    before = json.loads(file.read_text()) if file.exists() else {"looks": [], "earlier": earlier}
    key = fingerprint(settings)[:12]
    result = {
        "name": name,
        "title": title,
        "targets": targets,
        "users": reports[0].counts["users_with_targets"],
        "seeds": len(reports),
        "earlier": max(earlier, before["earlier"]),
        "looks": [*before["looks"], *([] if key in before["looks"] else [key])],
        "command": command,
        "commit": commit(),
        "settings": settings,
        **facts,
        "headline": list(metrics),
        "metrics": {
            metric: [round(report.metrics[metric], 6) for report in reports]
            for metric in reports[0].metrics
            if metric.partition("@")[0] in KEPT
        },
        "replicates": {
            metric: np.mean([report.replicates[metric] for report in reports], axis=0).round(5).tolist()
            for metric in metrics
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in result.items())
    file.write_text(f"{{\n{lines}\n}}\n")
    return file


def commit() -> str:
    """The commit that is checked out, with + behind it where files of the package have changed since."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "status", "--porcelain", "recsys_ray"], capture_output=True, text=True)
    return found.stdout.strip() + ("+" if changed.stdout.strip() else "") if not found.returncode else "unknown"


def targets_digest(prepared: Prepared, part: str) -> str:
    """Of who is asked and what is held out, by their own ids and in the order that the bootstrap draws in."""
    digest = hashlib.sha256()
    item_ids = prepared.items.column("item_id").combine_chunks()
    for shard in range(prepared.num_shards):
        targets = prepared.targets(shard, part)
        held = [item_ids.take(targets.items.items_E).to_pylist(), targets.items.offsets_B1.tolist()]
        digest.update(json.dumps([targets.user_ids.to_pylist(), held]).encode())
    return digest.hexdigest()[:12]


def measure(parsed: argparse.Namespace) -> None:
    """Every seed of one configuration."""
    config = load_config(parsed.config, parsed.overrides)
    top = max(config.evaluation.k) if parsed.top is None else parsed.top
    metrics = [f"{'hit_rate' if parsed.one else 'recall'}@{top}", f"ndcg@{top}"]
    shown = [parsed.config, *(word for word in parsed.overrides if not word.startswith("data.path="))]
    reports, seconds, facts = [], [], {}
    with tempfile.TemporaryDirectory(dir=parsed.work) as folder:
        for seed in range(parsed.seeds):
            command = [sys.executable, "-m", "recsys_ray.cli", "evaluate", parsed.config, *parsed.overrides]
            command += [f"training.seed={seed}", f"output={folder}/out", "evaluation.baselines=[]"]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            evaluated = find_evaluation(Location(found["path"]))
            reports.append(evaluated.report(evaluated.settings, map_blocks_here))
            seconds.append(round(found["seconds"], 1))
            facts["targets"] = targets_digest(Prepared.open(evaluated.prepared), evaluated.settings.on)
    split = config.data.split.kind
    path = Path(str(getattr(config.data, "path", config.data.source))).name
    written = store(
        parsed.name or config.name,
        reports,
        title=parsed.title or f"{path}, {split}",
        metrics=metrics,
        command=f"python benchmarks/leaderboard.py measure {' '.join(shown)} --seeds {parsed.seeds}",
        settings={"model": config.model.model_dump(mode="json"), "training": config.training.model_dump(mode="json")},
        earlier=parsed.earlier,
        seconds=seconds,
        **facts,
    )
    result = json.loads(written.read_text())
    print(json.dumps({"file": str(written), **{name: result["metrics"][name] for name in metrics}}))


def page(folder: Path = RESULTS) -> str:
    """All results, a table for each set of held-out interactions, the best first."""
    tables: dict[tuple[str, tuple[str, ...]], list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("*.json")):
        result = json.loads(file.read_text())
        tables.setdefault((result["targets"], tuple(result["headline"])), []).append(result)
    parts = [HEAD]
    for (_, metrics), results in sorted(tables.items(), key=lambda table: table[1][0]["title"]):
        results.sort(key=lambda result: (-statistics.mean(result["metrics"][metrics[-1]]), result["name"]))
        first, users = results[0], results[0]["users"]
        parts += [f"## {first['title']}", "", f"{users:,} users with held-out items.", ""]
        parts.append(f"| model | {' | '.join(metrics)} | seeds | looks | seconds | commit |")
        parts.append("|---" * (len(metrics) + 5) + "|")
        for result in results:
            cells = [_cell(result, metric, None if result is first else first) for metric in metrics]
            spent = f"{statistics.mean(result['seconds']):.0f}" if result.get("seconds") else ""
            looks = result["earlier"] + len(result["looks"])
            parts.append(
                f"| {result['name']} | {' | '.join(cells)} | {result['seeds']} | {looks} | {spent} "
                f"| {result['commit']} |"
            )
        parts += ["", *(f"- {result['name']}: `{result['command']}`" for result in results), ""]
    return "\n".join(parts).rstrip() + "\n"


def _cell(result: dict[str, Any], metric: str, first: dict[str, Any] | None) -> str:
    """A mean with its spread over seeds, and the paired difference to the first of the table."""
    values = result["metrics"][metric]
    cell = f"{statistics.mean(values):.4f}"
    if len(values) > 1:
        cell += f" ± {statistics.stdev(values):.4f}"
    if first is not None:
        value, low, high = difference(result, first, metric)
        cell += f" ({value:+.4f} [{low:+.4f}, {high:+.4f}])"
    return cell


def difference(mine: dict[str, Any], theirs: dict[str, Any], metric: str) -> tuple[float, float, float]:
    """Mine less theirs, and the 95 % interval of the paired replicates."""
    value = statistics.mean(mine["metrics"][metric]) - statistics.mean(theirs["metrics"][metric])
    drawn = np.array(mine["replicates"][metric]) - np.array(theirs["replicates"][metric])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return value, float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True)
    one = stages.add_parser("measure", help="evaluate a configuration with several seeds and store it")
    one.add_argument("config")
    one.add_argument("overrides", nargs="*", metavar="key=value")
    one.add_argument("--seeds", type=int, default=1)
    one.add_argument("--name", help="of the result; by default the configuration's")
    one.add_argument("--title", help="of its table; by default the file and the split")
    one.add_argument("--top", type=int, help="k of the two metrics shown; by default the largest")
    one.add_argument("--one", action="store_true", help="one item is held out of each user: hit rate instead of recall")
    one.add_argument("--earlier", type=int, default=0, help="looks at the test part from before results were kept")
    one.add_argument("--work", help="where runs are made and removed")
    stages.add_parser("page", help="write docs/leaderboard.md")
    parsed = parser.parse_args()
    if parsed.stage == "measure":
        measure(parsed)
    else:
        PAGE.write_text(page())
        print(json.dumps({"page": str(PAGE)}))


if __name__ == "__main__":
    main()
