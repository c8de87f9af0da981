"""Exact top-20 with seen items left out, for all users: ExactIndex against faiss and implicit, in one run.

    python benchmarks/batch_topn.py --threads 2 --repetitions 5 --large-users 20000

All contenders get the same vectors, histories and number of threads; they take turns, and a median of the repetitions
is compared. Three shapes: "gowalla" (29,858 users x 40,981 items x 64) and "large" (200,000 x 50,000 x 128) with
item lengths that fall like a power law, as trained factors do, and "even", the first with lengths all alike, where
nothing can be cut short. ``--histories`` takes real histories in the one-line-per-user format for the first and last.

- faiss_filtered: IndexFlatIP asked for a few more than 20, seen items taken out by compiled code, and the users left
  with fewer than 20 asked again for 20 plus their history. Exact, and faster than an IDSelector per user.
- faiss_plain: IndexFlatIP asked for 20, nothing left out: the floor of what faiss can do.
- implicit: ``recommend(filter_already_liked_items=True)``, on ``--implicit-users`` of the users, scaled up.

Prints one line a contender and, last, one line of JSON; ratio = seconds of the peer / seconds of ours.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numba
import numpy as np
import scipy.sparse as sp
import torch
from batch_job import SHAPES, measure_all
from implicit.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from recsys_ray.base.ragged import offsets
from recsys_ray.base.types import FloatArray, IntArray, ItemLists, LongArray
from recsys_ray.retrieval import ExactIndex, TopK

N = 20
FIRST_ASK = 32
MEAN_HISTORY = 27
FLOAT_ROUNDING = 1e-5  # of the best score of a list: more is not rounding but a wrong list
FIRST_RANKS = 10.0  # the power law starts behind these, so that no single item has all the length


@dataclass(frozen=True)
class World:
    """Shape suffixes: U users, I items, D dimension."""

    name: str
    users_UD: FloatArray
    items_ID: FloatArray
    seen: ItemLists

    def first_users(self, count: int) -> World:
        return World(self.name, self.users_UD[:count], self.items_ID, self.seen.slice(0, min(count, len(self.seen))))


@dataclass(frozen=True)
class Contender:
    """``lists`` is how many users one call of ``run`` answers."""

    name: str
    run: Callable[[], TopK]
    lists: int


def synthetic_histories(rng: np.random.Generator, num_users: int, num_items: int) -> ItemLists:
    """Lengths with a long tail around the mean of Gowalla; items by popularity, a Zipf law."""
    lengths = np.maximum(8, rng.lognormal(np.log(MEAN_HISTORY) - 0.4, 0.9, num_users)).astype(np.int64)
    popularity = 1.0 / (np.arange(num_items) + FIRST_RANKS)
    items = rng.choice(num_items, int(lengths.sum()), p=popularity / popularity.sum()).astype(np.int32)
    return ItemLists(offsets(lengths), items)


def read_histories(path: Path) -> ItemLists:
    return ItemLists.from_lists([[int(item) for item in line.split()[1:]] for line in path.open()])


def make_world(
    name: str, num_users: int, num_items: int, dim: int, exponent: float, histories: Path | None, seed: int
) -> World:
    """Gaussian directions; the item of popularity rank r has length (r + 10)^-exponent."""
    rng = np.random.default_rng(seed)
    if histories is None:
        seen = synthetic_histories(rng, num_users, num_items)
    else:
        seen = read_histories(histories)
        num_users = len(seen)
    rank_I = np.empty(num_items)
    rank_I[np.argsort(-np.bincount(seen.items_E, minlength=num_items), kind="stable")] = np.arange(num_items)
    users_UD = rng.standard_normal((num_users, dim), dtype=np.float32)
    items_ID = rng.standard_normal((num_items, dim), dtype=np.float32)
    items_ID *= ((rank_I + FIRST_RANKS) ** -exponent).astype(np.float32)[:, None]
    return World(name, users_UD, items_ID, seen)


@numba.njit(cache=True, nogil=True)
def keep_unseen(
    ids_BK: LongArray, scores_BK: FloatArray, offsets_B1: LongArray, seen_E: IntArray, rows_BN: Any, found_BN: Any
) -> Any:
    """Copy the first N unseen of every row; how many each row has. ``seen_E`` ascends within a row."""
    counts = np.zeros(len(ids_BK), np.int64)
    for row in range(len(ids_BK)):
        seen = seen_E[offsets_B1[row] : offsets_B1[row + 1]]
        for column in range(ids_BK.shape[1]):
            item = ids_BK[row, column]
            place = np.searchsorted(seen, item)
            if item < 0 or (place < len(seen) and seen[place] == item):
                continue
            rows_BN[row, counts[row]] = item
            found_BN[row, counts[row]] = scores_BK[row, column]
            counts[row] += 1
            if counts[row] == rows_BN.shape[1]:
                break
    return counts


def faiss_filtered(index: faiss.IndexFlatIP, world: World, seen_csr: sp.csr_matrix) -> TopK:
    """Ask for a few more than N; whoever is left with fewer is asked again, in groups of like history length."""
    top = TopK.nothing(len(world.users_UD), N)
    offsets_B1, seen_E = seen_csr.indptr.astype(np.int64), seen_csr.indices
    scores, ids = index.search(world.users_UD, FIRST_ASK)
    short = np.flatnonzero(keep_unseen(ids, scores, offsets_B1, seen_E, top.rows_BK, top.scores_BK) < N)
    lengths = np.diff(offsets_B1)[short]
    short = short[np.argsort(lengths, kind="stable")]
    for users in np.array_split(short, max(1, len(short) // 1024)):
        if not len(users):
            continue
        part = seen_csr[users]
        scores, ids = index.search(world.users_UD[users], min(N + int(np.diff(part.indptr).max()), index.ntotal))
        again = TopK.nothing(len(users), N)
        keep_unseen(ids, scores, part.indptr.astype(np.int64), part.indices, again.rows_BK, again.scores_BK)
        top.rows_BK[users], top.scores_BK[users] = again.rows_BK, again.scores_BK
    return top


def faiss_plain(index: faiss.IndexFlatIP, world: World) -> TopK:
    scores, ids = index.search(world.users_UD, N)
    return TopK(ids.astype(np.int32), scores)


def implicit_lists(model: AlternatingLeastSquares, seen_csr: sp.csr_matrix) -> TopK:
    with threadpool_limits(1, "blas"):  # as its documentation asks: it spreads over users itself
        ids, scores = model.recommend(np.arange(seen_csr.shape[0]), seen_csr, N=N)
    return TopK(ids.astype(np.int32), scores)


def contenders(world: World, threads: int, implicit_users: int) -> list[Contender]:
    """Everything that is built once is built here, outside the clock, for all alike."""
    num_items, dim = world.items_ID.shape
    num_users = len(world.users_UD)
    ones = np.ones(len(world.seen.items_E), np.float32)
    # A copy: sum_duplicates sorts in place.
    seen_csr = sp.csr_matrix((ones, world.seen.items_E, world.seen.offsets_B1), (num_users, num_items), copy=True)
    seen_csr.sum_duplicates()
    ours, flat = ExactIndex(world.items_ID), faiss.IndexFlatIP(dim)
    flat.add(world.items_ID)
    model = AlternatingLeastSquares(factors=dim, use_gpu=False, num_threads=threads)
    some = min(implicit_users, num_users)
    model.user_factors, model.item_factors = world.users_UD[:some], world.items_ID
    return [
        Contender("ours", partial(ours.search, world.users_UD, N, world.seen), num_users),
        Contender("faiss_filtered", partial(faiss_filtered, flat, world, seen_csr), num_users),
        Contender("faiss_plain", partial(faiss_plain, flat, world), num_users),
        Contender("implicit", partial(implicit_lists, model, seen_csr[:some]), some),
    ]


def agreement(ours: TopK, theirs: TopK) -> tuple[float, float]:
    """Fraction of identical lists; and over the others, the largest relative score difference at equal rank."""
    rows = len(theirs)
    same = (ours.rows_BK[:rows] == theirs.rows_BK).all(axis=1)
    mine, other = ours.scores_BK[:rows][~same], theirs.scores_BK[~same]
    if not len(mine):
        return 1.0, 0.0
    return float(same.mean()), float((np.abs(mine - other).max(axis=1) / np.abs(mine).max(axis=1)).max())


def compare(world: World, threads: int, repetitions: int, implicit_users: int) -> dict[str, float]:
    """Seconds for all users of the world, ratios and agreement, by name."""
    runs = contenders(world, threads, implicit_users)
    warm = contenders(world.first_users(256), threads, 256)
    lists = {run.name: run.run() for run in warm}
    taken: dict[str, list[float]] = {run.name: [] for run in runs}
    for _ in range(repetitions):
        for run in runs:
            start = time.perf_counter()
            lists[run.name] = run.run()
            taken[run.name].append((time.perf_counter() - start) * len(world.users_UD) / run.lists)
    result: dict[str, float] = {}
    for run in runs:
        seconds = float(np.median(taken[run.name]))
        result[f"seconds_{world.name}_{run.name}"] = round(seconds, 4)
        low, high, rate = min(taken[run.name]), max(taken[run.name]), len(world.users_UD) / seconds
        print(f"{world.name:8} {run.name:15} {seconds:8.3f} s ({low:.3f} to {high:.3f}), {rate:9,.0f} users/s")
    ours = result[f"seconds_{world.name}_ours"]
    for peer, name in (("faiss", "faiss_filtered"), ("faiss_plain", "faiss_plain"), ("implicit", "implicit")):
        result[f"ratio_{world.name}_{peer}"] = round(result[f"seconds_{world.name}_{name}"] / ours, 3)
    for peer, name in (("faiss", "faiss_filtered"), ("implicit", "implicit")):
        same, difference = agreement(lists["ours"], lists[name])
        result[f"identical_{world.name}_{peer}"] = round(same, 6)
        result[f"difference_{world.name}_{peer}"] = float(f"{difference:.2g}")
        if difference > FLOAT_ROUNDING:
            raise SystemExit(f"{world.name}: lists differ from those of {peer} by {difference:.1e} of the score")
        print(f"{world.name:8} {peer}: {same:.4%} of lists identical, others within {difference:.1e} of the score")
    return result


def search_shapes(options: argparse.Namespace) -> dict[str, float]:
    """The three shapes, one after the other."""
    histories = options.histories if options.histories and options.histories.exists() else None
    result: dict[str, float] = {}
    for name, num_users, num_items, dim, exponent, path in (
        ("gowalla", 29_858, 40_981, 64, options.exponent, histories),
        ("even", 29_858, 40_981, 64, 0.0, histories),
        ("large", 200_000, 50_000, 128, options.exponent, None),
    ):
        if name not in options.shapes:
            continue
        users = min(num_users, options.large_users) if name == "large" else num_users
        world = make_world(name, users, num_items, dim, exponent, path, options.seed)
        result[f"users_{name}"] = len(world.users_UD)
        result |= compare(world, options.threads, options.repetitions, options.implicit_users)
    return result


def whole_job(options: argparse.Namespace) -> dict[str, float]:
    """The batch job, Parquet in and Parquet out, against scoring alone, at the sizes asked for (see ``batch_job``)."""
    return measure_all([shape for shape in options.shapes if shape in SHAPES], options.repetitions)


# Each takes the options and returns figures by name; all of them go into the one line of JSON.
MEASUREMENTS: list[Callable[[argparse.Namespace], dict[str, float]]] = [search_shapes, whole_job]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--large-users", type=int, default=200_000, help="users of the large shape")
    parser.add_argument("--implicit-users", type=int, default=4096, help="users implicit is measured on, then scaled")
    parser.add_argument("--exponent", type=float, default=0.25, help="of the power law of item lengths")
    parser.add_argument("--histories", type=Path, default=Path("../shared/datasets/gowalla/train.txt"))
    parser.add_argument("--shapes", nargs="+", default=["gowalla", "even", "large"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    numba.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    figures: dict[str, float] = {"threads": options.threads}
    for measure in MEASUREMENTS:
        figures |= measure(options)
    print(json.dumps(figures))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
