"""Seconds per epoch of LightGCN: ours against a plain torch implementation of the paper's loop, same batches and loss.

    python benchmarks/lightgcn.py [--data ../shared/datasets/gowalla] [--steps 20] [--repeats 3] [--device cpu]
        [--floor .19 --dim 64 --batch-size 8192]

The plain loop multiplies a coalesced torch.sparse matrix with the embeddings layer by layer under autograd, stacks the
layers, takes their mean, and steps torch's Adam; both train BPR with one uniform negative a pair, L2 on the embeddings
of the batch, three layers, D = 64. The negatives of the plain loop are drawn vectorised too, which its usual form, a
loop over pairs, is not. A few steps of each are timed in turn after a warm-up, and an epoch is so many of the median
step. ratio_step_at_end is ours over ours with ``propagate = end``, softmax with 512 negatives in both. Without --data
the interactions are synthetic, of Gowalla's size and skew. ratio_epoch is plain over ours: above 1 we are faster.
``propagation`` is one product of the adjacency with the embeddings, in milliseconds, by each way.

With --floor (and --data) LightGCN is also trained with ``propagate = end`` on train.txt, until recall@20 of valid.txt,
all items ranked, is at least that, or 30 epochs are over: seconds_to_floor are those of the whole fit up to there (the
start included, the measuring not), null where it was not reached.
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

from recsys_ray.base.types import FitContext, Histories, ItemLists
from recsys_ray.models.lightgcn.fit import LightGCN
from recsys_ray.models.lightgcn.network import LightGCNNetwork
from recsys_ray.models.linalg.graph import Graph, Propagator
from recsys_ray.models.linalg.initial import initial_embeddings
from recsys_ray.models.observed_pairs import PairJob
from recsys_ray.models.scorers.base import with_length_power
from recsys_ray.retrieval import ExactIndex
from recsys_ray.training import LocalWorker
from recsys_ray.training.loop import Task, training_step
from recsys_ray.training.workers import num_steps

DIM, LAYERS, L2 = 64, 3, 1e-4
RATE, EPOCHS = 1e-2, 30  # to the floor


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


def histories_of(pairs: sp.csr_matrix) -> Histories:
    pairs.sort_indices()
    zeros = np.zeros(pairs.nnz, np.int64)
    return Histories(pairs.indptr.astype(np.int64), pairs.indices, np.ones(pairs.nnz, np.float32), zeros)


def ours(pairs: sp.csr_matrix, batch_size: int, device: str) -> Callable[[], None]:
    """One step of our loop."""
    config = LightGCN(
        embedding_dim=DIM, layers=LAYERS, loss="bpr", negatives=1, regularization=L2, batch_size=batch_size
    )
    worker = LocalWorker(device=device)
    model = LightGCNNetwork(
        PairJob(histories_of(pairs), None, pairs.shape[1], initial(sum(pairs.shape)), config, 0), worker
    )
    task = model.task()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    batches = (batch for epoch in range(1000) for batch in task.batches(epoch))
    return lambda: void(training_step(task, optimizer, config, worker, next(batches), (0, 0)))


def at_end(pairs: sp.csr_matrix, batch_size: int, device: str, propagate: str) -> Callable[[], None]:
    """One step on the softmax."""
    model, task = softmax_model(pairs, batch_size, device, propagate, initial(sum(pairs.shape)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    batches = (batch for epoch in range(1000) for batch in task.batches(epoch))
    return lambda: void(training_step(task, optimizer, model.config, model.worker, next(batches), (0, 0)))


def softmax_model(
    pairs: sp.csr_matrix, batch_size: int, device: str, propagate: str, start_ND: np.ndarray
) -> tuple[LightGCNNetwork, Task]:
    config = LightGCN(
        embedding_dim=start_ND.shape[1],
        negatives=512,
        batch_size=batch_size,
        propagate=propagate,  # type: ignore[arg-type]
        learning_rate=RATE,
        length_power=0.3,
    )
    job = PairJob(histories_of(pairs), None, pairs.shape[1], start_ND, config, 0)
    model = LightGCNNetwork(job, LocalWorker(device=device))
    return model, model.task()


def seconds_to_floor(train: sp.csr_matrix, valid: sp.csr_matrix, options: argparse.Namespace) -> dict[str, Any]:
    """The whole training, epoch by epoch, measured after each."""
    context = FitContext()
    started = time.perf_counter()
    config = LightGCN(embedding_dim=options.dim)
    start_ND = initial_embeddings(train, config, context)
    model, task = softmax_model(train, options.batch_size, options.device, "end", start_ND)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0, fused=True)
    spent, best = time.perf_counter() - started, 0.0
    for epoch in range(EPOCHS):
        started = time.perf_counter()
        for step, batch in zip(range(task.steps), task.batches(epoch), strict=False):
            training_step(task, optimizer, model.config, model.worker, batch, (epoch, step))
        spent += time.perf_counter() - started
        found = recall(model, train, valid)
        best = max(best, found)
        print(f"epoch {epoch + 1}: {spent:.0f} s, valid recall@20 {found:.4f}", flush=True)
        if found >= options.floor:
            return {"floor": options.floor, "seconds_to_floor": round(spent, 1), "recall": round(found, 4)}
    return {"floor": options.floor, "seconds_to_floor": None, "recall": round(best, 4)}


def recall(model: LightGCNNetwork, train: sp.csr_matrix, valid: sp.csr_matrix) -> float:
    """Mean recall@20 of the users with held-out items, all items ranked but those of the history."""
    with torch.no_grad():
        final_ND = model.propagation(model.embeddings_ND.detach()).cpu().numpy()
    users_UD, items_ID = np.split(final_ND, [model.num_users])
    watched = np.flatnonzero(np.diff(valid.indptr) > 0)
    index = ExactIndex(with_length_power(items_ID, model.config.length_power))
    seen = train[watched]
    exclude = ItemLists(seen.indptr.astype(np.int64), seen.indices.astype(np.int32))
    best_BK = index.search(np.ascontiguousarray(users_UD[watched]), 20, exclude).rows_BK
    hits_B = np.asarray(valid[np.repeat(watched, 20), best_BK.ravel()]).reshape(len(watched), 20).sum(axis=1)
    return float((hits_B / np.diff(valid.indptr)[watched]).mean())


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
    parser.add_argument("--floor", type=float, help="recall@20 of valid.txt, fit on train.txt; needs --data")
    parser.add_argument("--dim", type=int, default=64, help="with --floor")
    options = parser.parse_args()
    if options.floor is not None and options.data is None:
        parser.error("--floor needs --data")
    if options.data is None:
        pairs = synthetic_pairs(seed=0)
    else:
        pairs = read_pairs([options.data / "train.txt", options.data / "valid.txt"])
    loops = {make.__name__: make(pairs, options.batch_size, options.device) for make in (ours, plain)}
    for way in ("training", "end"):
        loops[way] = at_end(pairs, options.batch_size, options.device, way)
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
        "ratio_step_at_end": round(epoch["training"] / epoch["end"], 2),
        "seconds_epoch_at_end": round(epoch["end"], 2),
    }
    if options.floor is not None:
        parts = (read_pairs([options.data / name]) for name in ("train.txt", "valid.txt"))
        train, valid = parts
        size = (max(train.shape[0], valid.shape[0]), max(train.shape[1], valid.shape[1]))
        train.resize(size), valid.resize(size)
        result |= seconds_to_floor(train, valid, options)
    print(json.dumps(result | propagations(pairs, options.steps)))


if __name__ == "__main__":
    main()
