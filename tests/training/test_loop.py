"""The training loop, its losses, negatives, checkpoints and workers, on modules small enough to reason about."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn

from recsys_ray.base.errors import ModelError
from recsys_ray.training import LoopConfig, losses
from recsys_ray.training.loop import Task, generator, train
from recsys_ray.training.negatives import NegativeSampler, is_member
from recsys_ray.training.schedule import learning_rate
from recsys_ray.training.worker import LocalWorker
from recsys_ray.training.workers import average_gradients, batch_rows, num_steps, own_rows
from tests.two_processes import leave

ROWS, WIDTH = 24, 3


@dataclass
class KeepingWorker:
    """This process, with its last checkpoint in a directory."""

    directory: Path
    reported: list[dict[str, float]] = field(default_factory=list)
    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    keeps_checkpoints: bool = True

    def latest(self) -> AbstractContextManager[str | None]:
        return nullcontext(str(self.directory) if self.directory.exists() else None)

    def report(self, metrics: dict[str, float], checkpoint: str | None) -> None:
        self.reported.append(metrics)
        if checkpoint is not None:
            shutil.rmtree(self.directory, ignore_errors=True)
            shutil.copytree(checkpoint, self.directory)


def points() -> tuple[Tensor, Tensor]:
    """A linear problem without noise."""
    inputs = torch.randn((ROWS, WIDTH), generator=torch.Generator().manual_seed(1))
    return inputs, inputs @ torch.tensor([1.0, -2.0, 0.5])


def regression(
    config: LoopConfig,
    worker: Any,
    evaluate: Callable[[], float] | None = None,
    poison: int = -1,
    dropout: float = 0.0,
) -> Task:
    """Least squares; the batch numbered ``poison`` holds a NaN."""
    torch.manual_seed(0)
    module = nn.Linear(WIDTH, 1, bias=False)
    inputs, targets = points()

    def batches(epoch: int) -> Iterator[Any]:
        rng = np.random.default_rng(epoch)
        for step, rows in enumerate(batch_rows(rng, ROWS, config.batch_size, worker.world_size)):
            own = torch.from_numpy(own_rows(rows, worker))
            bad = math.nan if epoch * num_steps(ROWS, config.batch_size) + step == poison else 0.0
            yield inputs[own] + bad, targets[own]

    def loss(batch: Any) -> Tensor:
        inputs = nn.functional.dropout(batch[0], dropout, module.training)
        return (module(inputs)[:, 0] - batch[1]).square().mean()

    return Task("regression", module, num_steps(ROWS, config.batch_size), batches, loss, evaluate)


def weights(task: Task) -> list[float]:
    return [float(value) for value in task.module.weight.detach().flatten()]


def test_it_finds_the_minimum() -> None:
    config = LoopConfig(epochs=120, batch_size=8, learning_rate=0.05)
    task = regression(config, LocalWorker())
    progress = train(task, config, LocalWorker(), seed=0)
    assert weights(task) == pytest.approx([1.0, -2.0, 0.5], abs=1e-3)
    assert progress.epochs == 120 and progress.history[-1]["loss"] < 1e-5 < progress.history[0]["loss"]


def test_gradients_do_not_add_up_over_steps() -> None:
    """One batch, no change of the parameters: both steps must see the same gradient."""
    config = LoopConfig(epochs=2, batch_size=ROWS, learning_rate=1e-30)
    task = regression(config, LocalWorker())
    seen: list[Tensor] = []
    task.module.weight.register_post_accumulate_grad_hook(lambda weight: seen.append(weight.grad.clone()))
    train(task, config, LocalWorker(), seed=0)
    assert len(seen) == 2
    torch.testing.assert_close(seen[0], seen[1])


def test_nan_stops_before_the_step_and_names_it() -> None:
    config = LoopConfig(epochs=3, batch_size=8, learning_rate=0.05)
    broken = regression(config, LocalWorker(), poison=4)  # epoch 2, step 2 of 3
    with pytest.raises(ModelError, match=r"^regression: loss nan .* epoch 2, step 2; [^\n]*learning_rate[^\n]*$"):
        train(broken, config, LocalWorker(), seed=0)
    assert all(math.isfinite(value) for value in weights(broken))
    assert weights(broken) != weights(regression(config, LocalWorker()))


def test_out_of_memory_comes_with_advice() -> None:
    config = LoopConfig(epochs=1, batch_size=8)
    task = regression(config, LocalWorker())

    def too_large(batch: Any) -> Tensor:
        return torch.empty(1 << 60).sum()

    greedy = Task(task.name, task.module, task.steps, task.batches, too_large)
    with pytest.raises(ModelError, match=r"out of memory in epoch 1, step 1; lower model\.batch_size \(now 8\)"):
        train(greedy, config, LocalWorker(), seed=0)


def test_other_errors_pass_as_they_are() -> None:
    config = LoopConfig(epochs=1, batch_size=8)
    task = regression(config, LocalWorker())

    def wrong(batch: Any) -> Tensor:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        train(Task(task.name, task.module, task.steps, task.batches, wrong), config, LocalWorker(), seed=0)


def test_early_stopping_keeps_the_best_parameters() -> None:
    config = LoopConfig(epochs=20, batch_size=8, learning_rate=0.05, patience=3)
    values = iter([0.1, 0.5, 0.4, 0.4, 0.5])
    kept: list[list[float]] = []

    def evaluate() -> float:
        kept.append(weights(task))
        return next(values)

    task = regression(config, LocalWorker(), evaluate)
    progress = train(task, config, LocalWorker(), seed=0)
    assert (progress.epochs, progress.best_epoch, progress.best) == (5, 2, 0.5)
    assert weights(task) == kept[1] != kept[4]


def test_clipping_bounds_the_gradient() -> None:
    config = LoopConfig(epochs=1, batch_size=ROWS, gradient_clip=1e-3)
    task = regression(config, LocalWorker())
    train(task, config, LocalWorker(), seed=0)
    assert float(task.module.weight.grad.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_learning_rate_warms_up_and_falls() -> None:
    config = LoopConfig(learning_rate=1.0, warmup_steps=4, schedule="cosine")
    rates = [learning_rate(step, 14, config) for step in range(14)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] == 1.0 and rates[9] == pytest.approx(0.5) and rates[13] == pytest.approx(0.0245, abs=1e-3)
    assert learning_rate(13, 14, config.model_copy(update={"schedule": "constant"})) == 1.0


def test_the_schedule_runs_over_all_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def rate(step: int, total: int, config: LoopConfig) -> float:
        asked.append((step, total))
        return learning_rate(step, total, config)

    monkeypatch.setattr("recsys_ray.training.loop.learning_rate", rate)
    config = LoopConfig(epochs=3, batch_size=8)
    train(regression(config, LocalWorker()), config, LocalWorker(), seed=0)
    assert asked == [(step, 9) for step in range(9)]


class Stopped(Exception):
    """A kill between two epochs."""


def test_a_stopped_training_continues_as_if_it_had_not_been(tmp_path: Path) -> None:
    config = LoopConfig(epochs=6, batch_size=8, learning_rate=0.05, schedule="cosine", patience=10)
    whole = regression(config, LocalWorker(), lambda: 0.0, dropout=0.3)
    expected = train(whole, config, LocalWorker(), seed=3)

    def die_in_epoch_4(batch: Any) -> Tensor:
        if len(worker.reported) == 3:
            raise Stopped
        return first.loss(batch)

    worker = KeepingWorker(tmp_path / "last")
    first = regression(config, worker, lambda: 0.0, dropout=0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys_ray.training.loop.CHECKPOINT_SHARE", 1e9)
        with pytest.raises(Stopped):
            train(
                Task(first.name, first.module, first.steps, first.batches, die_in_epoch_4, first.evaluate),
                config,
                worker,
                seed=3,
            )
    again = regression(config, worker, lambda: 0.0, dropout=0.3)
    progress = train(again, config, worker, seed=3)
    assert [metrics["loss"] for metrics in progress.history] == [metrics["loss"] for metrics in expected.history]
    assert weights(again) == weights(whole)
    assert (progress.best_epoch, progress.stale) == (expected.best_epoch, expected.stale)
    assert {path.suffix for path in worker.directory.iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("name", ["progress.json", "model.safetensors", "optimizer.safetensors"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    config = LoopConfig(epochs=1, batch_size=8)
    worker = KeepingWorker(tmp_path / "last")
    train(regression(config, worker), config, worker, seed=0)
    (worker.directory / name).write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"not a checkpoint of this training \([^\n]*\); remove it[^\n]*$"):
        train(regression(config, worker), config, worker, seed=0)


def test_an_epoch_holds_every_example_in_a_known_number_of_steps() -> None:
    for num_examples, batch_size, world_size in ((10, 4, 1), (7, 7, 1), (1, 8, 1), (9, 100, 1)):
        parts = batch_rows(np.random.default_rng(0), num_examples, batch_size, world_size)
        assert len(parts) == num_steps(num_examples, batch_size)
        assert sorted(np.concatenate(parts).tolist()) == list(range(num_examples))
    assert batch_rows(np.random.default_rng(1), 100, 50, 1)[0].tolist() != list(range(50))


def test_workers_get_disjoint_shares_of_equal_size() -> None:
    parts = batch_rows(np.random.default_rng(0), 11, 4, 2)
    assert len(parts) == num_steps(11, 4) and all(len(part) % 2 == 0 for part in parts)
    shares = [[own_rows(part, LocalWorker(rank=rank, world_size=2)) for part in parts] for rank in (0, 1)]
    assert all(len(left) == len(right) for left, right in zip(*shares, strict=True))
    both = np.concatenate([np.concatenate(share) for share in shares])
    assert len(np.unique(both)) == len(both) >= 8


def in_a_process(rank: int, directory: str) -> None:
    """One of two workers; the first writes what came out."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meet", rank=rank, world_size=2)
    worker = LocalWorker(rank=rank, world_size=2)
    config = LoopConfig(epochs=4, batch_size=8, learning_rate=0.05, gradient_clip=1.0)
    task = regression(config, worker, lambda: 1.0 if rank == 0 else math.nan)
    progress = train(task, config, worker, seed=0)
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([1.0, 2.0]) * (rank + 1)
    average_gradients([parameter], worker)
    assert parameter.grad.tolist() == [1.5, 3.0]  # Adam alone would not notice a wrong scale
    Path(directory, f"{rank}.json").write_text(json.dumps([weights(task), progress.history, progress.best]))
    leave()


@pytest.mark.slow
def test_two_workers_are_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(in_a_process, (str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    config = LoopConfig(epochs=4, batch_size=8, learning_rate=0.05, gradient_clip=1.0)
    alone = regression(config, LocalWorker(), lambda: 1.0)
    progress = train(alone, config, LocalWorker(), seed=0)
    assert first[0] == second[0] == pytest.approx(weights(alone), abs=1e-6)
    for ours, theirs in zip(progress.history, first[1], strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-5)
    assert first[2] == second[2] == 1.0


POSITIVE = torch.tensor([0.3, -1.2])
NEGATIVE = torch.tensor([[0.1, 2.0, -0.5], [0.4, -0.3, 1.0]])


def test_pairwise_and_pointwise_losses_are_their_formulas() -> None:
    sigmoid = torch.sigmoid
    assert float(losses.bpr(POSITIVE, NEGATIVE)) == pytest.approx(
        float(-sigmoid(POSITIVE[:, None] - NEGATIVE).log().mean())
    )
    expected = -(sigmoid(POSITIVE).log() + (1 - sigmoid(NEGATIVE)).log().sum(1)).mean()
    assert float(losses.binary_cross_entropy(POSITIVE, NEGATIVE)) == pytest.approx(float(expected))
    assert float(losses.generalized_bce(POSITIVE, NEGATIVE, 0.1, 0.0)) == pytest.approx(float(expected))
    raised = -((sigmoid(POSITIVE) ** 0.1).log() + (1 - sigmoid(NEGATIVE)).log().sum(1)).mean()
    assert float(losses.generalized_bce(POSITIVE, NEGATIVE, 0.1, 1.0)) == pytest.approx(float(raised))


def test_the_cosine_contrastive_loss_counts_negatives_above_the_margin() -> None:
    positive, negative = torch.tensor([0.9, -0.2]), torch.tensor([[0.5, 0.8, -1.0], [0.4, 0.1, float("-inf")]])
    expected = ((1 - 0.9) + 6 * (0.1 + 0.4) / 3 + (1 + 0.2)) / 2
    assert float(losses.cosine_contrastive(positive, negative, 0.4, 6.0)) == pytest.approx(expected)


def test_sampled_softmax_over_everything_is_the_full_one() -> None:
    scores = torch.randn((4, 6), generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 3, 5, 3])
    hidden = torch.arange(6)[None, :] == targets[:, None]
    sampled = losses.sampled_softmax(scores[torch.arange(4), targets], scores, hidden_BM=hidden)
    torch.testing.assert_close(sampled, torch.nn.functional.cross_entropy(scores, targets))


@pytest.mark.parametrize("strategy", ["uniform", "popularity"])
def test_log_q_makes_the_sampled_loss_that_over_all_items(strategy: Any) -> None:
    counts = torch.tensor([1, 2, 4, 8, 16])
    scores = torch.tensor([[0.3, -0.2, 1.0, 0.1, -0.5]])
    for target in (0, 2, 4):
        targets = torch.tensor([target])
        sample = NegativeSampler(counts, 40_000, strategy).draw(generator("cpu", target), targets)
        same = sample.items[None, :] == target
        sampled = losses.sampled_softmax(scores[:, target], scores[:, sample.items], sample.log_expected, same)
        assert float(sampled) == pytest.approx(float(torch.nn.functional.cross_entropy(scores, targets)), rel=0.03)


def test_info_nce_is_cross_entropy_of_cosines() -> None:
    left, right = (torch.randn((3, 4), generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    cosines = nn.functional.cosine_similarity(left[:, None], right[None], dim=2) / 0.2
    expected = nn.functional.cross_entropy(cosines, torch.arange(3))
    torch.testing.assert_close(losses.info_nce(left, right, 0.2), expected)


COUNTS = torch.tensor([0, 10, 30, 0, 60])


@pytest.mark.parametrize(
    ("strategy", "shares"),
    [
        ("uniform", [0, 1 / 3, 1 / 3, 0, 1 / 3]),
        ("popularity", [0, 0.1, 0.3, 0, 0.6]),
        ("in_batch", [0, 0.5, 0.5, 0, 0]),
        ("mixed", [0, 5 / 12, 5 / 12, 0, 1 / 6]),
    ],
)
def test_negatives_come_as_often_as_they_should(strategy: Any, shares: list[float]) -> None:
    positives = torch.tensor([1, 2])
    for per_row in (False, True):
        sample = NegativeSampler(COUNTS, 30_000, strategy).draw(generator("cpu", 0), positives, per_row=per_row)
        assert sample.items.shape == sample.log_expected.shape == ((2, 30_000) if per_row else (30_000,))
        found = torch.bincount(sample.items.flatten(), minlength=5) / sample.items.numel()
        np.testing.assert_allclose(found, shares, atol=0.02)


def test_expected_counts_are_those_of_the_catalogue_for_every_strategy() -> None:
    """In batches drawn by popularity, an item comes as often as ``log_expected`` says."""
    random = generator("cpu", 5)
    for strategy in ("uniform", "popularity", "in_batch", "mixed"):
        found, expected = torch.zeros(5), torch.zeros(5)
        for _ in range(400):
            positives = torch.multinomial(COUNTS.float(), 64, replacement=True, generator=random)
            sample = NegativeSampler(COUNTS, 50, strategy).draw(random, positives)  # type: ignore[arg-type]
            found += torch.bincount(sample.items, minlength=5)
            expected[sample.items] = torch.exp(sample.log_expected)
        np.testing.assert_allclose(found / 400, expected, rtol=0.1)


def test_hard_negatives_have_the_best_scores() -> None:
    counts = torch.ones(200, dtype=torch.long)
    sampler = NegativeSampler(counts, 2, "hard", candidates=400)
    drawn: list[Tensor] = []

    def score(items: Tensor) -> Tensor:
        drawn.append(items)
        return items.float()

    sample = sampler.draw(generator("cpu", 0), torch.tensor([1, 2, 3]), score, per_row=True)
    torch.testing.assert_close(sample.items, torch.topk(drawn[0], 2, dim=1).values)


def test_equal_streams_draw_the_same() -> None:
    sampler = NegativeSampler(COUNTS, 50, "popularity")
    first, second, other = (sampler.draw(generator("cpu", *key), COUNTS).items for key in ((1, 2), (1, 2), (1, 3)))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_membership() -> None:
    keys = torch.tensor([0 * 5 + 1, 0 * 5 + 4, 2 * 5 + 0])
    found = is_member(torch.tensor([0, 1, 2]), torch.tensor([[1, 2], [1, 4], [0, 4]]), keys, 5)
    assert found.tolist() == [[True, False], [False, False], [True, False]]


def test_checkpoints_cost_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch takes a second, writing a checkpoint three: the first, the last, and one in sixty epochs."""
    clock = [0.0]
    monkeypatch.setattr("recsys_ray.training.loop.time.monotonic", lambda: clock[0])
    written: list[int] = []

    class SlowDisk(KeepingWorker):
        def report(self, metrics: dict[str, float], checkpoint: str | None) -> None:
            if checkpoint is not None:
                written.append(int(metrics["epoch"]))
                clock[0] += 3

    def batches(epoch: int) -> Iterator[Any]:
        clock[0] += 1
        return task.batches(epoch)

    config = LoopConfig(epochs=140, batch_size=ROWS)
    worker = SlowDisk(tmp_path / "last")
    task = regression(config, worker)
    train(Task(task.name, task.module, task.steps, batches, task.loss), config, worker, seed=0)
    assert written == [1, 61, 121, 140]


@pytest.fixture
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints in this process too; the workers set it themselves."""
    monkeypatch.setattr("recsys_ray.training.loop.CHECKPOINT_SHARE", 1e9)


@pytest.mark.ray
def test_ray_workers_end_where_one_process_does(ray_session: Any, tmp_path: Path, every_epoch: None) -> None:
    """A worker that dies in epoch 3 is replaced, and the training goes on from its last checkpoint."""
    from recsys_ray.base.storage import Location
    from recsys_ray.cluster.train import ray_workers
    from recsys_ray.training import WorkerSettings
    from tests.ray_train_case import Case, fit_line

    expected = fit_line(Case(), LocalWorker())
    storage = tmp_path / "storage"
    run = ray_workers(WorkerSettings(count=1, cpus=1), Location.of(storage), "fingerprint")
    found = run(fit_line, Case(die_once=tmp_path / "died"), "line")
    assert (tmp_path / "died").exists()
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)
    assert expected[2] == [0, 1, 2, 3, 4]
    assert found[2] in ([2, 3, 4], [1, 2, 3, 4])  # the last checkpoint may not have been noted yet when a worker dies
    assert [path.name for path in storage.iterdir() if path.is_dir() and not path.name.startswith(".")] == []


@pytest.mark.ray
def test_an_error_of_ours_on_one_of_two_workers_ends_the_training_at_once(ray_session: Any, tmp_path: Path) -> None:
    from recsys_ray.base.storage import Location
    from recsys_ray.cluster.train import ray_workers
    from recsys_ray.training import WorkerSettings
    from tests.ray_train_case import Case, fit_line

    run = ray_workers(WorkerSettings(count=2, cpus=1), Location.of(tmp_path / "storage"), "fingerprint")
    with pytest.raises(ModelError, match=r"^line: loss nan in epoch 3, step 1$"):
        run(fit_line, Case(poisoned=tmp_path / "tries"), "line")
    assert (tmp_path / "tries").read_bytes() == b"."
    progress = [json.loads(path.read_text()) for path in (tmp_path / "storage").rglob("progress.json")]
    assert max(kept["epochs"] for kept in progress) == 2


@pytest.mark.ray
def test_starts_after_lost_workers_are_told_and_counted(ray_session: Any, tmp_path: Path) -> None:
    from recsys_ray.base.storage import Location
    from recsys_ray.cluster.progress import Inlet
    from recsys_ray.cluster.train import ray_workers
    from recsys_ray.training import WorkerSettings
    from tests.ray_train_case import Case, fit_line

    said: list[str] = []
    inlet, storage = Inlet(said.append), Location.of(tmp_path / "storage")
    twice = ray_workers(WorkerSettings(count=1, cpus=1, max_failures=1), storage, "fingerprint", inlet.outlet)
    twice(fit_line, Case(die_once=tmp_path / "died"), "line")
    inlet.pass_on_until(ray_session.put(None))
    assert said.count("train: a worker was lost, starting again (1 of 1)") == 1
    assert [line.partition(",")[0] for line in said[-3:]] == [f"train: epoch {epoch}" for epoch in (3, 4, 5)]
    once = ray_workers(WorkerSettings(count=1, cpus=1, max_failures=0), storage, "fingerprint")
    with pytest.raises(
        ModelError, match=r"^training: workers failed more than training\.workers\.max_failures=0 times; "
    ):
        once(fit_line, Case(die_once=tmp_path / "died again"), "other line")
