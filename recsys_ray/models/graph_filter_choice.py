"""Settings of a Chebyshev graph filter by what they do for held-out events.

Every set of powers is another graph, with vectors of its own. On each, the polynomial and the low-pass term of the
watched histories are worked out once, and all weights and numbers of vectors are tried on them by adding up. Then, for
data in order, the weight of the last events, on the graph that was best: a filter is linear, so histories and last
events are filtered once.

J are the watched users of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys_ray.base.types import DoubleArray, FitContext, FloatArray, Histories, ItemLists, TrainData
from recsys_ray.evaluation import metrics
from recsys_ray.models.holdout import TOP, hold_out
from recsys_ray.models.linalg.graph import WIDTH
from recsys_ray.models.linalg.pooling import EventWeights, Recent
from recsys_ray.models.linalg.spectrum import Spectrum

if TYPE_CHECKING:
    from recsys_ray.models.graph_filter import GraphFilter

POWERS = ((0.5, 0.5, 0.4), (0.4, 0.5, 0.3), (0.3, 0.4, 0.3), (0.3, 0.4, 0.2))
LOW_PASS = (0.0, 0.1, 0.2, 0.4, 0.8)
"""Weights of the ideal low-pass."""
RECENT = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Weights of the last events."""
WATCHED = 1024
"""Users whose events are held out, at most; twice as many for data in order."""


def chosen(model: GraphFilter, data: TrainData, context: FitContext) -> GraphFilter:
    """The model with settings that rank held-out events best by NDCG@20; for data in order, by its geometric mean over
    events held out at random and the newest ones."""
    share = min(1.0, WATCHED / max(1, data.num_users))
    left, held_out = hold_out(data.histories, share, context.rng(1), last=False)
    parts = [held_out]
    if model.choose == "both":
        left, newest = hold_out(left, share, context.rng(3), last=False, newest=True)
        parts.append(newest)
    watched = [_Watched.of(left, part) for part in parts if part is not None]
    plain = model.model_copy(update={"choose": None})
    if len(watched) < len(parts):
        context.progress("graph_filter: too few users with three events to choose settings on; taken as they are")
        return plain
    matrix = left.matrix(data.num_items)
    tried: list[tuple[float, dict[str, Any], Spectrum]] = []
    for powers in POWERS:
        spectrum = Spectrum.of(matrix, powers, model.low_pass_dim, context)
        quality, update = _best_low_pass(plain, spectrum, watched)
        names = dict(zip(("user_power", "item_power", "degree_power"), powers, strict=True))
        tried.append((quality, names | update, spectrum))
    quality, update, spectrum = max(tried, key=lambda each: each[0])
    if model.choose == "both":
        found = plain.model_copy(update=update)
        quality, update["recent_weight"] = _best_recent(found, spectrum, watched)
    shown = ", ".join(f"{name} {value:g}" for name, value in update.items())
    context.progress(f"graph_filter: {shown}; NDCG@{TOP} of held-out events {quality:.4f}")
    return plain.model_copy(update=update)


class _Watched:
    """Users whose events are held out: what is left of their histories, and what is to be found."""

    def __init__(self, histories: Histories, targets: ItemLists) -> None:
        self.histories, self.targets = histories, targets

    @classmethod
    def of(cls, histories: Histories, held_out: ItemLists) -> _Watched:
        users = np.flatnonzero(held_out.lengths_B > 0)
        return cls(histories.take(users), held_out.take(users))

    def __len__(self) -> int:
        return len(self.targets)

    def blocks(self) -> list[_Watched]:
        """As many as are filtered at a time."""
        return [
            _Watched(self.histories.slice(start, stop), self.targets.slice(start, stop))
            for start, stop in ((start, min(start + WIDTH, len(self))) for start in range(0, len(self), WIDTH))
        ]


def _best_low_pass(model: GraphFilter, spectrum: Spectrum, watched: Sequence[_Watched]) -> tuple[float, dict[str, Any]]:
    """(quality, settings) of the best weight and number of vectors beside the polynomial."""
    scorer = model.model_copy(update={"low_pass_weight": 0.0}).scorer_of(spectrum)
    all_of_them = spectrum.vectors_ID.shape[1]
    dims = sorted({max(1, all_of_them // 4), all_of_them}, reverse=True)
    choices = [(0.0, dims[0]), *((weight, dim) for dim in dims for weight in LOW_PASS if weight)]
    found = np.zeros((len(watched), len(choices)))
    for part, each in enumerate(watched):
        for block in each.blocks():
            signals_IJ = scorer.signals(block.histories, EventWeights())
            filtered_IJ = scorer.filtered(signals_IJ)
            coordinates_DJ: FloatArray = spectrum.vectors_ID.T @ signals_IJ
            ideal: dict[int, FloatArray] = {dim: spectrum.vectors_ID[:, :dim] @ coordinates_DJ[:dim] for dim in dims}
            for place, (weight, dim) in enumerate(choices):
                scores_IJ: FloatArray = filtered_IJ + np.float32(weight) * ideal[dim]
                found[part, place] += _ndcg(scores_IJ, spectrum, block) / len(each)
    quality = _together(found)
    best = int(np.argmax(quality))
    return float(quality[best]), dict(zip(("low_pass_weight", "low_pass_dim"), choices[best], strict=True))


def _best_recent(model: GraphFilter, spectrum: Spectrum, watched: Sequence[_Watched]) -> tuple[float, float]:
    """(quality, weight of the last events) of the best."""
    scorer = model.scorer_of(spectrum)
    found = np.zeros((len(watched), len(RECENT)))
    for part, each in enumerate(watched):
        for block in each.blocks():
            whole_IJ = scorer.signals(block.histories, EventWeights())
            with_last_IJ = scorer.signals(block.histories, EventWeights(recent=Recent(1.0, model.recent_power)))
            filtered_IJ, last_IJ = scorer.filtered(whole_IJ), scorer.filtered(with_last_IJ - whole_IJ)
            for place, weight in enumerate(RECENT):
                found[part, place] += _ndcg(filtered_IJ + np.float32(weight) * last_IJ, spectrum, block) / len(each)
    quality = _together(found)
    best = int(np.argmax(quality))
    return float(quality[best]), RECENT[best]


def _together(found: DoubleArray) -> DoubleArray:
    """(choices,) the geometric mean over the parts."""
    return np.asarray(np.exp(np.log(np.maximum(found, 1e-12)).mean(axis=0)))


def _ndcg(scores_IJ: FloatArray, spectrum: Spectrum, block: _Watched) -> float:
    """The sum over the block's users."""
    from recsys_ray.retrieval import top_k_scores

    scores_JI = np.ascontiguousarray((scores_IJ * spectrum.scales_I[:, None]).T)
    seen = ItemLists(block.histories.offsets_B1, block.histories.items_E)
    rows_JK = top_k_scores(scores_JI, TOP, seen, spectrum.trained_I).rows_BK
    targets = [np.unique(block.targets.row(user)) for user in range(len(block))]
    hits_JK = np.stack([np.isin(rows_JK[user], targets[user]) for user in range(len(block))])
    return float(metrics.ndcg(hits_JK, np.array([len(each) for each in targets]), TOP).sum())
