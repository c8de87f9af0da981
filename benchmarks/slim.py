"""Seconds of SLIM's columns: ours against scikit-learn's elastic net, column by column, on the same data.

    python benchmarks/slim.py [--data ../shared/datasets/ml-latest-small] [--columns 100] [--repeats 3]

Without --data the interactions are synthetic. Both solve the same columns of the same problem (non-negative, the same
penalties) on as many threads as they take; ours includes the Gram matrix of all items. Repetitions are interleaved,
seconds are medians. ``difference`` is the largest between two weights. ratio_slim is scikit-learn's seconds over ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet

from recsys_ray.base.types import FitContext
from recsys_ray.models.linalg.similarity import ItemProduct, multiply, scaled
from recsys_ray.models.slim import SLIM, _Problem, solve_columns

USERS, ITEMS, PAIRS = 6_040, 3_700, 600_000  # of MovieLens 1M, ratings of 4 and 5
TOLERANCE = 1e-5


def read_pairs(folder: Path) -> sp.csr_matrix:
    """(U, I) binary: ratings of 3.5 and more."""
    ratings = pd.read_csv(folder / "ratings.csv")
    liked = ratings[ratings["rating"] >= 3.5]
    users, items = (liked[name].astype("category").cat.codes for name in ("userId", "movieId"))
    return sp.csr_matrix((np.ones(len(liked), np.float32), (users, items)))


def synthetic_pairs(seed: int) -> sp.csr_matrix:
    """(U, I) binary, with log-normal activity and popularity."""
    rng = np.random.default_rng(seed)
    activity, popularity = (rng.lognormal(sigma=1.2, size=size) for size in (USERS, ITEMS))
    rows = rng.choice(USERS, PAIRS, p=activity / activity.sum())
    columns = rng.choice(ITEMS, PAIRS, p=popularity / popularity.sum())
    matrix = sp.csr_matrix((np.ones(PAIRS, np.float32), (rows, columns)), shape=(USERS, ITEMS))
    matrix.data[:] = 1.0
    return matrix


def run_ours(users_items: sp.csr_matrix, model: SLIM, columns: int) -> tuple[float, np.ndarray]:
    """(seconds, (columns, I) weights)."""
    started = time.perf_counter()
    product = ItemProduct(scaled(users_items.T.tocsr()), scaled(users_items), keep_diagonal=True)
    gram = multiply(product, users_items.shape[1], FitContext(), "")
    counts, items, values = solve_columns((0, columns), _Problem.of(gram, model))
    seconds = time.perf_counter() - started
    weights = sp.csr_matrix((values, items, np.append(0, np.cumsum(counts))), shape=(columns, users_items.shape[1]))
    return seconds, weights.toarray()


def run_theirs(users_items: sp.csr_matrix, model: SLIM, columns: int) -> tuple[float, np.ndarray]:
    """The same with one ElasticNet a column, its own item's entries set to 0."""
    number = users_items.shape[0]
    net = ElasticNet(
        alpha=(model.l1 + model.l2) / number, l1_ratio=model.l1 / (model.l1 + model.l2), fit_intercept=False,
        positive=True, tol=TOLERANCE, max_iter=1000, copy_X=False,
    )  # fmt: skip
    weights = np.zeros((columns, users_items.shape[1]))
    started = time.perf_counter()
    others = users_items.tocsc().astype(np.float64)
    for column in range(columns):
        span = slice(others.indptr[column], others.indptr[column + 1])
        target = others[:, column].toarray().ravel()
        kept = others.data[span].copy()
        others.data[span] = 0
        weights[column] = net.fit(others, target).coef_
        others.data[span] = kept
    return time.perf_counter() - started, weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    matrix = synthetic_pairs(arguments.seed) if arguments.data is None else read_pairs(arguments.data)
    # Random columns come first: popular and rare items as they come.
    matrix = matrix[:, np.random.default_rng(arguments.seed).permutation(matrix.shape[1])].tocsr()
    matrix.sort_indices()
    model = SLIM(tolerance=TOLERANCE, max_epochs=5000, neighbors=matrix.shape[1])
    run_ours(matrix, model, 2)  # compiled before the clock starts
    ours, theirs, difference = [], [], 0.0
    for _ in range(arguments.repeats):
        seconds, mine = run_ours(matrix, model, arguments.columns)
        ours.append(seconds)
        seconds, other = run_theirs(matrix, model, arguments.columns)
        theirs.append(seconds)
        difference = max(difference, float(np.abs(mine - other).max()))
    ours_s, theirs_s = statistics.median(ours), statistics.median(theirs)
    shape = {"users": matrix.shape[0], "items": matrix.shape[1], "pairs": int(matrix.nnz), "columns": arguments.columns}
    seconds = {"seconds": round(ours_s, 3), "seconds_sklearn": round(theirs_s, 3), "difference": difference}
    print(json.dumps(shape | seconds | {"ratio_slim": round(theirs_s / ours_s, 2)}))


if __name__ == "__main__":
    main()
