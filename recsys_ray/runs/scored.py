"""What an evaluation asks of a model's scores and can't see in its lists."""

from __future__ import annotations

import numpy as np

from recsys_ray.base.types import DoubleArray, ItemLists, Requests
from recsys_ray.data.prepared import Targets
from recsys_ray.evaluation import EvaluationSettings, Partial, metrics, rating_errors
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.recommend.rank import predict, seen_items

BLOCK_BYTES = 64 << 20


def rating_part(bundle: Bundle, requests: Requests, targets: Targets) -> Partial:
    """Squared and absolute errors of the held-out ratings that the model predicts, and how many it does not."""
    predicted_E = predict(bundle, requests, targets.items)
    known_E = ~np.isnan(predicted_E)
    return rating_errors(predicted_E[known_E], targets.ratings_E[known_E], int((~known_E).sum()))


def scored_values(
    bundle: Bundle, requests: Requests, targets: Targets, settings: EvaluationSettings
) -> dict[str, DoubleArray]:
    """By metric, as far as the settings ask for it, (B,) a value a user, NaN for one who does not count."""
    found: dict[str, DoubleArray] = {}
    if settings.liked is not None:
        scores_E, liked_E = predict(bundle, requests, targets.items), targets.ratings_E >= settings.liked
        for k in settings.k:
            found[f"rated_precision@{k}"] = metrics.rated_precision(scores_E, liked_E, targets.items, k)
    if settings.auc:
        found["auc"] = _auc(bundle, requests, targets.items)
    return found


def _auc(bundle: Bundle, requests: Requests, targets: ItemLists) -> DoubleArray:
    """(B,) over all items that the user does not have."""
    scorer, seen, num_items = bundle.scorer, seen_items(requests), bundle.num_items
    values_B = np.full(len(requests), np.nan)
    step = max(1, BLOCK_BYTES // (4 * num_items))
    for start in range(0, len(requests), step):
        block = requests.slice(start, min(start + step, len(requests)))
        # An item or a user that the model has no opinion on ties with all others of the kind.
        scores_BI = np.where(scorer.answers(block)[:, None] & scorer.scorable_I, scorer.score(block), -np.inf)
        for row, scores_I in enumerate(scores_BI, start):
            target_I, candidate_I = np.zeros(num_items, np.bool_), np.ones(num_items, np.bool_)
            target_I[targets.row(row)] = True
            candidate_I[seen.row(row)] = False
            values_B[row] = metrics.auc(scores_I, target_I, candidate_I)
    return values_B
