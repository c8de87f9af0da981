"""Seconds per iteration and loss reached: our ALS against implicit's, on the same data, threads and objective.

    python benchmarks/als.py [--data ../shared/datasets/gowalla] [--repeats 5] [--iterations 6]

Without --data the interactions are synthetic, of Gowalla's size and skew. Implicit minimizes, with c the confidence
``alpha``,

    sum over observed c (1 - s)^2 + sum over unobserved s^2 + r (|X|^2 + |Y|^2)

which is our objective with frequency_power = 0 under c = (1 + a) / a, r = lambda (1 + a) / a and factors times (1 +
a)^-1/2, where a is our unobserved_weight. Both losses below are our objective. Both start from random factors and run
the same number of iterations; repetitions are interleaved, numbers are medians. ratio_* is implicit's seconds over
ours: above 1 we are faster. A fit of ours ends with two exact half steps, which these iterations and this loss do
without; seconds_end_* is how long they take.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

import numba
import numpy as np
import scipy.sparse as sp
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from recsys_ray.base.types import FitContext
from recsys_ray.models.als import ALS, INIT_STD, half_step, loss, sides

USERS, ITEMS, PAIRS = 29_858, 40_981, 810_128  # Gowalla's training part


def read_pairs(paths: Iterable[Path]) -> sp.csr_matrix:
    """(U, I) binary, from files of lines ``user item item ...``."""
    rows: list[int] = []
    columns: list[int] = []
    for path in paths:
        for line in path.read_text().splitlines():
            user, *items = map(int, line.split())
            rows += [user] * len(items)
            columns += items
    return sp.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(USERS, ITEMS))


def synthetic_pairs(seed: int) -> sp.csr_matrix:
    """(U, I) binary, with log-normal activity and popularity."""
    rng = np.random.default_rng(seed)
    activity, popularity = (rng.lognormal(sigma=1.0, size=size) for size in (USERS, ITEMS))
    rows = rng.choice(USERS, 2 * PAIRS, p=activity / activity.sum())
    columns = rng.choice(ITEMS, 2 * PAIRS, p=popularity / popularity.sum())
    pairs = np.unique(rows * ITEMS + columns)
    pairs = rng.choice(pairs, min(PAIRS, len(pairs)), replace=False)
    ones = np.ones(len(pairs), np.float32)
    return sp.csr_matrix((ones, (pairs // ITEMS, pairs % ITEMS)), shape=(USERS, ITEMS))


def run_ours(users_items: sp.csr_matrix, config: ALS, seed: int) -> tuple[list[float], float, float]:
    """(seconds of every iteration, loss at the end, seconds of the exact half steps after it)."""
    context = FitContext(seed=seed)
    user_side, item_side = sides(users_items, config)
    shape = (users_items.shape[1], config.embedding_dim)
    items = context.rng().standard_normal(shape, np.float32) * np.float32(INIT_STD / np.sqrt(config.embedding_dim))
    users = np.zeros((users_items.shape[0], config.embedding_dim), np.float32)
    seconds = []
    for _ in range(config.epochs):
        started = time.perf_counter()
        users, items, _ = half_step(user_side, items, config, context, start_RD=users)
        items, users, _ = half_step(item_side, users, config, context, start_RD=items)
        seconds.append(time.perf_counter() - started)
    reached = loss(user_side, users, items, config)
    started = time.perf_counter()
    items = half_step(item_side, users, config, context)[0]
    half_step(user_side, items, config, context)
    return seconds, reached, time.perf_counter() - started


def run_implicit(users_items: sp.csr_matrix, config: ALS, seed: int) -> tuple[list[float], float, float]:
    """(seconds of every iteration, loss at the end, 0)."""
    seconds: list[float] = []
    scale = (1 + config.unobserved_weight) / config.unobserved_weight
    model = AlternatingLeastSquares(
        factors=config.embedding_dim,
        regularization=config.regularization * scale,
        alpha=scale,
        iterations=config.epochs,
        num_threads=numba.get_num_threads(),
        random_state=seed,
    )
    with threadpool_limits(1, "blas"):  # as implicit asks for: it brings its own threads
        model.fit(users_items, show_progress=False, callback=lambda _, elapsed, __: seconds.append(elapsed))
    shrink = np.float32((1 + config.unobserved_weight) ** -0.5)
    user_side, _ = sides(users_items, config)
    return seconds, loss(user_side, model.user_factors * shrink, model.item_factors * shrink, config), 0.0


def compare(users_items: sp.csr_matrix, dim: int, repeats: int, iterations: int) -> dict[str, float]:
    config = ALS(embedding_dim=dim, epochs=iterations, unobserved_weight=0.1, regularization=1.0, frequency_power=0.0)
    run_ours(users_items, config.model_copy(update={"epochs": 1}), seed=0)  # compiles
    seconds: dict[str, list[float]] = {"ours": [], "implicit": []}
    losses: dict[str, float] = {}
    ends: dict[str, list[float]] = {"ours": [], "implicit": []}
    for repeat in range(repeats):
        for name, run in (("ours", run_ours), ("implicit", run_implicit)):
            times, losses[name], end = run(users_items, config, repeat)
            seconds[name] += times
            ends[name].append(end)
            print(f"D={dim} {name:8} {statistics.median(times):.3f} s/iteration, loss {losses[name]:.0f}", flush=True)
    ours, peer = (statistics.median(seconds[name]) for name in ("ours", "implicit"))
    return {
        f"ratio_als_{dim}": round(peer / ours, 3),
        f"seconds_ours_{dim}": round(ours, 4),
        f"seconds_implicit_{dim}": round(peer, 4),
        f"seconds_end_{dim}": round(statistics.median(ends["ours"]), 4),
        f"loss_ours_{dim}": round(losses["ours"], 1),
        f"loss_implicit_{dim}": round(losses["implicit"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="directory with Gowalla's train.txt and valid.txt")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=6)
    options = parser.parse_args()
    if options.data is None:
        users_items = synthetic_pairs(seed=0)
    else:
        users_items = read_pairs([options.data / "train.txt", options.data / "valid.txt"])
    result: dict[str, float | str] = {
        "benchmark": "als",
        "data": "synthetic" if options.data is None else "gowalla",
        "threads": numba.get_num_threads(),
    }
    for dim in (64, 128):
        result |= compare(users_items, dim, options.repeats, options.iterations)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
