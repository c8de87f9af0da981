"""Next item on MovieLens 100K: ours beside implicit, RecTools and LensKit, on one split, tuned alike.

    python benchmarks/peers.py --data ../shared/datasets/ml-100k [--trials 40] [--seeds 5] [--environments DIRECTORY]

Every rating is an event. Each user's last is the test part, the one before the validation part. Every library gets
the same number of trials, dealt out evenly to its models: the first of a model is the library's own defaults, the
others are drawn from the ranges below. The model and settings with the best NDCG@10 on the validation part are fitted
once more with the validation part, for each of ``--seeds`` seeds where it draws at random, and only these are
measured on the test part. All lists are measured by our evaluation; results go where leaderboard.py keeps them.

Peers are installed from the package index into environments of their own, kept under ``--environments``. A file
``ratings.csv`` with user_id, movie_id, rating, unix_timestamp in another directory does as well.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from leaderboard import store, targets_digest

import recsys_ray as rr

REQUIREMENTS = {
    "implicit": ["implicit==0.7.3"],
    "rectools": ["rectools[torch]==0.19.0"],
    "lenskit": ["lenskit==2025.8.1"],
}
K, METRICS = 10, ("hit_rate@10", "ndcg@10")
DEPTH = 10
Range = list[Any] | tuple[float, float]
"""One of a list, or a number between two, even in its logarithm."""
BM25: dict[str, Range] = {"K": [20, 50, 100, 200, 400], "K1": (0.1, 3.0), "B": (0.1, 1.0)}
ALS: dict[str, Range] = {
    "factors": [16, 32, 64, 128],
    "regularization": (0.001, 30.0),
    "alpha": (0.3, 100.0),
    "iterations": [10, 20],
}
SPACES: dict[str, dict[str, dict[str, Range]]] = {
    "ours": {
        "transitions": {"gap_decay": (0.5, 1.0), "target_power": (0.02, 0.5), "source_power": (0.05, 0.6)},
        "graph_filter": {
            "filter": ["chebyshev"],
            "recent_weight": (0.1, 10.0),
            "recent_power": [1.0, 2.0],
            "vectors": [32, 64, 128],
        },
        "ease": {"regularization": (10.0, 2000.0), "dropout": [0.0, 0.3, 0.5], "kept_share": [0.0, 0.5, 0.8]},
        "item_cf": {"similarity": ["cosine", "bm25"], "neighbors": [20, 50, 100, 200, 400]},
        "sasrec": {
            "embedding_dim": [64, 128],
            "dropout": [0.2, 0.3, 0.5],
            "max_length": [50, 100, 200],
            "epochs": [5, 10, 20],
            "batch_size": [64, 128],
        },
    },
    "implicit": {
        "als": ALS,
        "bpr": {"factors": [16, 32, 64, 128], "learning_rate": (0.003, 0.1), "regularization": (0.001, 0.1),
                "iterations": [50, 100, 200]},
        "bm25": BM25,
        "cosine": {"K": [20, 50, 100, 200, 400]},
    },
    "rectools": {
        "ease": {"regularization": (10.0, 2000.0)},
        "pure_svd": {"factors": [8, 16, 32, 64, 128]},
        "bm25": BM25,
        "als": ALS,
        "sasrec": {
            "n_factors": [64, 128],
            "dropout_rate": [0.2, 0.3, 0.5],
            "session_max_len": [50, 100, 200],
            "epochs": [5, 10, 20],
            "batch_size": [64, 128],
        },
    },
    "lenskit": {
        "als": {"embedding_size": [16, 32, 64, 128], "regularization": (0.001, 30.0), "weight": (0.3, 100.0),
                "epochs": [10, 20]},
        "item_knn": {"max_nbrs": [10, 20, 50, 100], "save_nbrs": [50, 200, 1000], "min_sim": (1e-6, 0.1)},
        "ease": {"regularization": (10.0, 2000.0)},
        "slim": {"l1_reg": (0.1, 10.0), "l2_reg": (1.0, 300.0)},
    },
}  # fmt: skip
RANDOM = {"als", "bpr", "sasrec", "pure_svd"}
"""Models that draw at random."""


def trials(library: str, count: int) -> list[tuple[str, dict[str, Any]]]:
    """(model, settings), a model's defaults first; no setting twice."""
    found: list[tuple[str, dict[str, Any]]] = []
    for number, (model, space) in enumerate(SPACES[library].items()):
        rng = np.random.default_rng([number, 7])
        mine: list[dict[str, Any]] = [{}]
        for _ in range(50 * count):
            if len(mine) == count // len(SPACES[library]):
                break
            drawn = {name: _draw(rng, values) for name, values in space.items()}
            if drawn not in mine:
                mine.append(drawn)
        found += [(model, settings) for settings in mine]
    return found


def _draw(rng: np.random.Generator, values: Range) -> Any:
    if isinstance(values, tuple):
        return float(f"{np.exp(rng.uniform(*np.log(values))):.3g}")
    return values[int(rng.integers(len(values)))]


def python_of(library: str, environments: Path) -> str:
    """The interpreter that has a library; its environment is made where there is none."""
    if library == "ours":
        return sys.executable
    folder = environments / library
    if not (folder / ".installed").exists():
        print(f"{library}: environment at {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        command = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *REQUIREMENTS[library]]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        (folder / ".installed").touch()
    return str(folder / "bin" / "python")


class Library:
    """One library at work in its own process."""

    def __init__(self, name: str, python: str, log: Path) -> None:
        worker = Path(__file__).with_name("peer_models.py")
        self.log = log.open("w")
        self.process = subprocess.Popen(
            [python, str(worker), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )

    def lists(self, **job: Any) -> tuple[np.ndarray, float] | str:
        """(U, k) lists and seconds, or what went wrong."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"it ended with {self.process.wait()}; see {self.log.name}"}
        return str(answer["error"]) if "error" in answer else (np.load(job["out"]), float(answer["seconds"]))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


def read(folder: Path) -> tuple[rr.Dataset, ...]:
    """(train, valid, test)."""
    columns = {"item_id": "movie_id", "timestamp": "unix_timestamp"}
    ratings = pd.read_csv(folder / "ratings.csv")
    return rr.Dataset(ratings, columns=columns).split("leave_last_out", valid=True)


def write(parts: list[rr.Dataset], file: Path) -> np.ndarray:
    """Lines ``user item place`` for the workers; the users, ascending."""
    events = pd.concat([part.interactions() for part in parts]).sort_values("user_id", kind="stable")
    events["place"] = events.groupby("user_id").cumcount()
    np.savetxt(file, events[["user_id", "item_id", "place"]].to_numpy(), "%d")
    return np.unique(events["user_id"])


def measured(lists_UK: np.ndarray, users_U: np.ndarray, part: rr.Dataset, **settings: Any) -> Any:
    """The report of these lists on a part."""
    rows_R, ranks_R = np.nonzero(lists_UK >= 0)
    frame = pd.DataFrame({"user_id": users_U[rows_R], "rank": ranks_R + 1, "item_id": lists_UK[rows_R, ranks_R]})
    return rr.evaluate(frame.assign(score=-frame["rank"].astype(float), source="model"), part, k=[5, K], **settings)


def search(library: str, peer: Library, count: int, valid: rr.Dataset, train: Path, users_U: np.ndarray) -> Any:
    """The best (quality, model, settings) on the validation part, and every trial."""
    done = []
    for number, (model, settings) in enumerate(trials(library, count)):
        out = str(train.with_name(f"{library}-{number}.npy"))
        found = peer.lists(train=str(train), model=model, settings=settings, seed=0, k=DEPTH, out=out)
        row = {"model": model, "settings": settings}
        if isinstance(found, str):
            done.append(row | {"error": found})
        else:
            quality = measured(found[0], users_U, valid, bootstrap=0).metrics["ndcg@10"]
            done.append(row | {"ndcg@10": round(quality, 5), "seconds": found[1]})
        print(library, json.dumps(done[-1]), file=sys.stderr, flush=True)
    return max((row for row in done if "ndcg@10" in row), key=lambda row: row["ndcg@10"]), done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=40, help="of every library, over all of its models")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--libraries", nargs="+", default=list(SPACES), choices=list(SPACES))
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "recsys-ray-peers")
    parser.add_argument("--title", default="MovieLens 100K, next item, against other libraries")
    parser.add_argument("--valid-only", action="store_true", help="no look at the test part")
    parsed = parser.parse_args()
    parsed.environments.mkdir(parents=True, exist_ok=True)
    pythons = {library: python_of(library, parsed.environments) for library in parsed.libraries}
    train, valid, test = read(parsed.data)
    with tempfile.TemporaryDirectory() as folder:
        before, whole = Path(folder, "train.txt"), Path(folder, "train-valid.txt")
        users_U, all_U = write([train], before), write([train, valid], whole)
        for library, python in pythons.items():
            peer = Library(library, python, parsed.environments / f"{library}.log")
            best, done = search(library, peer, parsed.trials, valid, before, users_U)
            print(json.dumps({"library": library, "trials": len(done), "best": best}), flush=True)
            if not parsed.valid_only:
                _test(library, peer, best, parsed, (all_U, whole, test))
            peer.close()


def _test(library: str, peer: Library, best: dict[str, Any], parsed: argparse.Namespace, data: Any) -> None:
    """The one look at the test part of one library."""
    users_U, train, test = data
    reports, seconds = [], []
    for seed in range(parsed.seeds if best["model"] in RANDOM else 1):
        out = str(train.with_name(f"{library}-test.npy"))
        job = {"train": str(train), "model": best["model"], "settings": best["settings"], "seed": seed}
        found = peer.lists(**job, k=DEPTH, out=out)
        if isinstance(found, str):
            raise SystemExit(f"{library}: {found}")
        reports.append(measured(found[0], users_U, test))
        seconds.append(found[1])
    file = store(
        f"peers-{library}",
        reports,
        title=parsed.title,
        targets=targets_digest(test.prepared, "test"),
        metrics=METRICS,
        command=f"python benchmarks/peers.py --data {parsed.data.name} --trials {parsed.trials} --seeds {parsed.seeds}",
        settings={"model": best["model"], "settings": best["settings"], "valid ndcg@10": best["ndcg@10"]},
        seconds=seconds,
    )
    print(json.dumps({"library": library, "file": str(file)}), flush=True)


if __name__ == "__main__":
    main()
