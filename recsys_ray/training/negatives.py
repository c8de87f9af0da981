"""Negative sampling: five strategies as one component, drawn for whole batches on the device.

Draws depend on the generator alone; with one generator per (seed, epoch, step) nothing has to be saved for a resume,
and all workers draw the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from recsys_ray.training.losses import log_expected

Strategy = Literal["uniform", "popularity", "in_batch", "mixed", "hard"]


@dataclass(frozen=True, slots=True)
class Sample:
    """Negatives of a batch: (M,) shared by all rows, or (B, M) for each its own."""

    items: Tensor
    log_expected: Tensor
    """How often each was to be expected in the sample (log), of the same shape: the logQ correction."""


class NegativeSampler:
    """Draws items that are taken for negatives.

    uniform     every item alike
    popularity  in proportion to count ^ power
    in_batch    the positives of the other rows, which is popularity by construction
    mixed       half in_batch, half uniform (Yang et al., "Mixed Negative Sampling", WWW 2020)
    hard        of K uniform candidates, the M with the best scores for the row (Zhang et al., "Optimizing Top-N
                Collaborative Filtering via Dynamic Negative Item Sampling", SIGIR 2013)

    Hard negatives of rows with candidates of their own are chosen here; where all rows share the K candidates they are
    all drawn, and the loss chooses those of each row (``losses.hardest``).

    Args:
        counts_I: training interactions per item; items without any are never drawn.
        count: M. strategy: see above. power: of the counts under "popularity". candidates: K under "hard".
    """

    def __init__(
        self, counts_I: Tensor, count: int, strategy: Strategy, *, power: float = 1.0, candidates: int = 0
    ) -> None:
        assert count >= 1 and (strategy != "hard" or candidates >= count)
        self.count, self.strategy, self.candidates = count, strategy, candidates
        self.known = torch.nonzero(counts_I > 0)[:, 0]
        weights = counts_I[self.known].double()
        self.popularity_I = counts_I.double() / weights.sum()
        self.cumulative = torch.cumsum(weights**power, dim=0)
        self.cumulative /= self.cumulative[-1].clone()
        self.drawn_I = torch.zeros(len(counts_I), dtype=torch.float64, device=counts_I.device)
        self.drawn_I[self.known] = weights**power / (weights**power).sum()

    def draw(
        self,
        generator: torch.Generator,
        positives_B: Tensor,
        score: Callable[[Tensor], Tensor] | None = None,
        per_row: bool = False,
    ) -> Sample:
        """Negatives for the rows with these positives.

        ``per_row`` draws (B, M) instead of (M,), or (K,) for "hard". ``score`` gives (B, K) scores of (B, K) items, for
        "hard" per row only.
        """
        if self.strategy == "hard" and not per_row:
            return self._uniform(generator, (self.candidates,))
        shape = (len(positives_B), self.count) if per_row else (self.count,)
        if self.strategy == "uniform":
            return self._uniform(generator, shape)
        if self.strategy == "popularity":
            return self._popular(generator, shape)
        if self.strategy == "in_batch":
            return self._in_batch(generator, positives_B, shape)
        if self.strategy == "mixed":
            half = (*shape[:-1], max(1, self.count // 2))
            rest = (*shape[:-1], max(1, self.count - half[-1]))
            return self._mixed(self._in_batch(generator, positives_B, half), self._uniform(generator, rest))
        assert score is not None
        wide = self._uniform(generator, (len(positives_B), self.candidates))
        with torch.no_grad():
            best_BM = torch.topk(score(wide.items), self.count, dim=1).indices
        return Sample(wide.items.gather(1, best_BM), wide.log_expected.gather(1, best_BM))

    def _uniform(self, generator: torch.Generator, shape: tuple[int, ...]) -> Sample:
        places = torch.randint(len(self.known), shape, generator=generator, device=self.known.device)
        expected = torch.full(shape, shape[-1] / len(self.known), device=self.known.device)
        return Sample(self.known[places], torch.log(expected))

    def _popular(self, generator: torch.Generator, shape: tuple[int, ...]) -> Sample:
        uniform = torch.rand(shape, generator=generator, device=self.known.device, dtype=torch.float64)
        places = torch.searchsorted(self.cumulative, uniform).clamp_max(len(self.known) - 1)
        items = self.known[places]
        return Sample(items, log_expected(self.drawn_I[items], shape[-1]).float())

    def _in_batch(self, generator: torch.Generator, positives_B: Tensor, shape: tuple[int, ...]) -> Sample:
        places = torch.randint(len(positives_B), shape, generator=generator, device=self.known.device)
        items = positives_B[places]
        return Sample(items, log_expected(self.popularity_I[items], shape[-1]).float())

    def _mixed(self, first: Sample, second: Sample) -> Sample:
        """Both, each item with what is expected of it from the two sources together."""
        items = torch.cat([first.items, second.items], dim=-1)
        popular, uniform = first.items.shape[-1], second.items.shape[-1]
        expected = popular * self.popularity_I[items] + uniform / len(self.known)
        return Sample(items, torch.log(expected).float())


def is_member(rows_B: Tensor, items_BM: Tensor, keys_E: Tensor, num_items: int) -> Tensor:
    """(B, M) whether user ``rows_B[b]`` has item ``items_BM[b, n]``; ``keys_E`` are all user * I + item, sorted."""
    wanted = rows_B[:, None].long() * num_items + items_BM
    places = torch.searchsorted(keys_E, wanted).clamp_max(len(keys_E) - 1)
    return keys_E[places] == wanted
