"""Settings of ALS on Gowalla at 64 factors, ours and implicit's, chosen with the same budget on the validation part.

    python benchmarks/tune_als.py search --data ../shared/datasets/gowalla --model ours
    python benchmarks/tune_als.py test --data ... --model ours --set '{"unobserved_weight": 0.01, ...}'

``search`` fits train.txt and scores valid.txt with 24 settings of a library: a grid, then half a step around its best.
``test`` fits both parts and scores test.txt, once. Recall@20 divides by the number of held-out items.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import numba
import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch
from als import read_pairs
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from recsys_ray.base.types import FitContext, Histories, TrainData
from recsys_ray.models.als import ALS

K, DIM, EPOCHS = 20, 64, 10
GRIDS = {
    "ours": {
        "unobserved_weight": [0.03, 0.01, 0.003],
        "regularization": [0.01, 0.003],
        "popularity_power": [0.0, 0.4, 0.8],
    },
    "implicit": {
        "alpha": [10.0, 30.0, 100.0, 300.0],
        "regularization": [3.0, 10.0, 30.0, 100.0],
    },
}
# Around the best of the grid: half a step up and down in each setting alone, or for implicit in both together.
HALF = 10**0.25
NEAR: dict[str, list[dict[str, float]]] = {
    "ours": [
        {"unobserved_weight": HALF},
        {"unobserved_weight": 1 / HALF},
        {"regularization": HALF},
        {"regularization": 1 / HALF},
        {"popularity_power": 1.5},
        {"popularity_power": 0.75},
    ],
    "implicit": [
        {"alpha": alpha, "regularization": regularization}
        for alpha, regularization in itertools.product((1 / HALF, 1.0, HALF), repeat=2)
        if (alpha, regularization) != (1.0, 1.0)
    ],
}
Setting = dict[str, float]


def fit_ours(train: sp.csr_matrix, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    ones, zeros = np.ones(train.nnz, np.float32), np.zeros(train.nnz, np.int64)
    histories = Histories(train.indptr.astype(np.int64), train.indices.astype(np.int32), ones, zeros)
    data = TrainData(histories, pa.table({"item_id": np.arange(train.shape[1])}))
    scorer = ALS(embedding_dim=DIM, epochs=EPOCHS, **setting).fit_scorer(data, FitContext())
    return scorer.users_UD, scorer.items_ID


def fit_implicit(train: sp.csr_matrix, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    threads = numba.get_num_threads()
    model = AlternatingLeastSquares(factors=DIM, iterations=EPOCHS, num_threads=threads, random_state=0, **setting)
    with threadpool_limits(1, "blas"):
        model.fit(train, show_progress=False)
    return model.user_factors, model.item_factors


FITS = {"ours": fit_ours, "implicit": fit_implicit}


def evaluate(users: np.ndarray, items: np.ndarray, seen: sp.csr_matrix, held: sp.csr_matrix) -> tuple[float, float]:
    """Mean (recall@K, NDCG@K) over the users with held-out items, ranking the whole catalogue without what was seen."""
    discounts = 1 / np.log2(np.arange(2, K + 2))
    recalls, ndcgs = [], []
    for start in range(0, len(users), 2048):
        block = slice(start, start + 2048)
        scores = users[block] @ items.T
        scores[seen[block].nonzero()] = -np.inf
        top = torch.topk(torch.from_numpy(scores), K).indices.numpy()
        truth = held[block]
        lengths = np.diff(truth.indptr)
        rows = np.flatnonzero(lengths)
        hits = np.asarray(truth[np.repeat(rows, K), top[rows].ravel()]).reshape(-1, K)
        recalls.append(hits.sum(axis=1) / lengths[rows])
        ndcgs.append(hits @ discounts / np.cumsum(discounts)[np.minimum(lengths[rows], K) - 1])
    return float(np.concatenate(recalls).mean()), float(np.concatenate(ndcgs).mean())


def run(name: str, setting: Setting, seen: sp.csr_matrix, held: sp.csr_matrix) -> dict[str, object]:
    started = time.perf_counter()
    factors = FITS[name](seen, setting)
    seconds = time.perf_counter() - started
    recall, ndcg = evaluate(*factors, seen, held)
    row: dict[str, object] = {"model": name, **setting, "recall": round(recall, 5), "ndcg": round(ndcg, 5)}
    print(json.dumps(row | {"fit_seconds": round(seconds, 1)}), flush=True)
    return row


def search(name: str, seen: sp.csr_matrix, held: sp.csr_matrix) -> None:
    grid = GRIDS[name]
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    rows = [run(name, setting, seen, held) for setting in settings]
    best = max(rows, key=lambda row: row["ndcg"])
    for steps in NEAR[name]:
        near = {key: round(best[key] * steps.get(key, 1.0), 6) for key in grid}
        rows.append(run(name, near, seen, held))
    print("best", json.dumps(max(rows, key=lambda row: row["ndcg"])), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["search", "test"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", choices=list(FITS), required=True)
    parser.add_argument("--set", type=json.loads, default={}, help="JSON with the two settings of the model's grid")
    options = parser.parse_args()
    train, valid, test = (read_pairs([options.data / f"{part}.txt"]) for part in ("train", "valid", "test"))
    if options.what == "search":
        search(options.model, train, valid)
    else:
        run(options.model, options.set, train + valid, test)


if __name__ == "__main__":
    main()
