"""Seconds per epoch of LightGCN: ours against a plain torch implementation of the paper's loop, same batches and loss.

    python benchmarks/lightgcn.py [--data ../shared/datasets/gowalla] [--steps 20] [--repeats 3] [--device cpu]

The plain loop multiplies a coalesced torch.sparse matrix with the embeddings layer by layer under autograd, stacks the
layers, takes their mean, and steps torch's Adam; both train BPR with one uniform negative a pair, L2 on the embeddings
of the batch, three layers, D = 64. The negatives of the plain loop are drawn vectorised too, which its usual form, a
loop over pairs, is not. A few steps of each are timed in turn after a warm-up, and an epoch is so many of the median
step. Without --data the interactions are synthetic, of Gowalla's size and skew. ratio_epoch is plain over ours: above 1
we are faster. ``propagation`` is one product of the adjacency with the embeddings, in milliseconds, by each way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

sys.path.insert(0, str(Path(__file__).parent))
from als import read_pairs, synthetic_pairs

from recsys_ray.base.types import Histories
from recsys_ray.models.lightgcn.fit import LightGCN
from recsys_ray.models.lightgcn.network import LightGCNNetwork
from recsys_ray.models.linalg.graph import Graph, Propagator
from recsys_ray.models.observed_pairs import PairJob
from recsys_ray.training import LocalWorker
from recsys_ray.training.loop import training_step
from recsys_ray.training.workers import num_steps

DIM, LAYERS, L2 = 64, 3, 1e-4


def initial(num_nodes: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((num_nodes, DIM), np.float32) * np.float32(0.1)


def sparse_matrix(graph: Graph, device: str) -> torch.Tensor:
    """The adjacency as torch's coordinate format, as the usual implementations keep it."""
    rows = np.repeat(np.arange(graph.num_nodes), np.diff(graph.offsets_N1))
    places = torch.from_numpy(np.stack([rows, graph.neighbors_E]))
    size = (graph.num_nodes, graph.num_nodes)
    return torch.sparse_coo_tensor(places, torch.from_numpy(graph.values_E), size, device=device).coalesce()


def plain(pairs: sp.csr_matrix, batch_size: int, device: str) -> Callable[[], None]:
    """One step of the paper's loop."""
    graph = Graph.of(pairs)
    matrix, (num_users, num_items) = sparse_matrix(graph, device), pairs.shape
    table = torch.nn.Parameter(torch.from_numpy(initial(graph.num_nodes)).to(device))
    optimizer = torch.optim.Adam([table], lr=1e-3)
    rows = torch.from_numpy(np.repeat(np.arange(num_users), np.diff(pairs.indptr))).to(device)
    columns = torch.from_numpy(pairs.indices.astype(np.int64)).to(device)

    def step() -> None:
        batch = torch.randint(len(rows), (batch_size,), device=device)
        users, positives = rows[batch], columns[batch] + num_users
        negatives = torch.randint(num_items, (batch_size,), device=device) + num_users
        layers = [table]
        for _ in range(LAYERS):
            layers.append(torch.sparse.mm(matrix, layers[-1]))
        final = torch.stack(layers, dim=1).mean(dim=1)
        scores = [(final[users] * final[items]).sum(dim=1) for items in (positives, negatives)]
        penalty = sum(table[part].square().sum() for part in (users, positives, negatives)) / (2 * batch_size)
        loss = torch.nn.functional.softplus(scores[1] - scores[0]).mean() + L2 * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def ours(pairs: sp.csr_matrix, batch_size: int, device: str) -> Callable[[], None]:
    """One step of our loop."""
    pairs.sort_indices()
    zeros = np.zeros(pairs.nnz, np.int64)
    histories = Histories(pairs.indptr.astype(np.int64), pairs.indices, np.ones(pairs.nnz, np.float32), zeros)
    config = LightGCN(
        embedding_dim=DIM, layers=LAYERS, loss="bpr", negatives=1, regularization=L2, batch_size=batch_size
    )
    worker = LocalWorker(device=device)
    model = LightGCNNetwork(PairJob(histories, None, pairs.shape[1], initial(sum(pairs.shape)), config, 0), worker)
    task = model.task()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    batches = (batch for epoch in range(1000) for batch in task.batches(epoch))
    return lambda: void(training_step(task, optimizer, config, worker, next(batches), (0, 0)))


def void(_: Any) -> None:
    """Forget a result."""


def seconds(step: Callable[[], None], steps: int, device: str) -> float:
    """Median of ``steps``."""
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        step()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def propagations(pairs: sp.csr_matrix, steps: int) -> dict[str, float]:
    """Milliseconds of one product on the CPU, by scipy, torch's two formats, and ours."""
    graph = Graph.of(pairs)
    values = initial(graph.num_nodes)
    rows = sp.csr_matrix((graph.values_E, graph.neighbors_E, graph.offsets_N1))
    coordinates = sparse_matrix(graph, "cpu")
    compressed, tensor = coordinates.to_sparse_csr(), torch.from_numpy(values)
    propagate = Propagator(graph, (0.0, 1.0), reuse=True)
    ways: dict[str, Callable[[], Any]] = {
        "scipy": lambda: rows @ values,
        "torch_coo": lambda: torch.sparse.mm(coordinates, tensor),
        "torch_csr": lambda: compressed @ tensor,
        "ours": lambda: propagate(values),
    }
    found = {}
    for name, way in ways.items():
        way()
        found[f"propagation_ms_{name}"] = round(1000 * seconds(lambda way=way: void(way()), steps, "cpu"), 2)  # type: ignore[misc]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="directory with Gowalla's train.txt and valid.txt")
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.data is None:
        pairs = synthetic_pairs(seed=0)
    else:
        pairs = read_pairs([options.data / "train.txt", options.data / "valid.txt"])
    loops = {make.__name__: make(pairs, options.batch_size, options.device) for make in (ours, plain)}
    found: dict[str, list[float]] = {name: [] for name in loops}
    for step in loops.values():
        seconds(step, 3, options.device)
    for _ in range(options.repeats):
        for name, step in loops.items():
            found[name].append(seconds(step, options.steps, options.device))
    epoch = {name: statistics.median(times) * num_steps(pairs.nnz, options.batch_size) for name, times in found.items()}
    result: dict[str, Any] = {
        "benchmark": "lightgcn",
        "data": "synthetic" if options.data is None else "gowalla",
        "device": options.device,
        "threads": torch.get_num_threads(),
        "batch_size": options.batch_size,
        "ratio_epoch": round(epoch["plain"] / epoch["ours"], 2),
        "seconds_epoch_ours": round(epoch["ours"], 2),
        "seconds_epoch_plain": round(epoch["plain"], 2),
    }
    print(json.dumps(result | propagations(pairs, options.steps)))


if __name__ == "__main__":
    main()
