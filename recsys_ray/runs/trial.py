"""A model tried on the validation part: fitted on the training part and measured as a run would be, in memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import FitContext
from recsys_ray.data.genres import item_genres
from recsys_ray.data.prepared import Prepared
from recsys_ray.evaluation import EvaluationSettings, ItemCounts, Partial, Report, evaluate_part
from recsys_ray.models import ColdItemSettings, Model, check_size, extend_to_cold_items
from recsys_ray.recommend.bundle import bundle_in_memory
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.recommend.options import read_options
from recsys_ray.recommend.rank import recommend, seen_items
from recsys_ray.runs.fit import with_content

TRAIN, VALID = ("train",), "valid"


@dataclass(frozen=True, slots=True)
class TrialData:
    """What trials of one configuration have in common; small, and the same for every worker."""

    prepared: Location
    evaluation: EvaluationSettings
    recommend: RecommendSettings
    embeddings: Location | None = None
    """A finished table of item vectors, where models ask for it."""
    cold_items: ColdItemSettings | None = None

    def check(self) -> None:
        """DataError when there is nothing to choose settings on."""
        if not Prepared.open(self.prepared).counts((VALID,)).num_interactions:
            raise DataError("there is no validation part to choose settings on; set data.split.valid_ratio above 0")


@dataclass(frozen=True, slots=True)
class Tried:
    """What a trial found."""

    report: Report
    fit_seconds: float
    rank_seconds: float


def try_model(data: TrialData, model: Model, context: FitContext, memory_limit: int | None = None) -> Tried:
    """Fit on the training part, rank for everyone with held-out items, measure on the validation part.

    Raises:
        SizeError: the fit is predicted to need more than ``memory_limit`` bytes. ModelError: the model can't be fitted.
    """
    prepared = Prepared.open(data.prepared)
    if memory_limit is not None:
        check_size(model, prepared.counts(TRAIN), memory_limit)
    started = time.perf_counter()
    train = prepared.train_data(TRAIN)
    if data.embeddings is not None and (model.needs_content or data.cold_items is not None):
        train = with_content(train, data.embeddings, model)
    scorer = model.fit_scorer(train, context)
    if data.cold_items is not None:
        scorer = extend_to_cold_items(scorer, train, data.cold_items)
    fitted = time.perf_counter()
    facts: dict[str, Any] = {"model": model.key, "predicts_ratings": model.predicts_ratings}
    counts_I = train.item_counts()
    bundle = bundle_in_memory(scorer, prepared, TRAIN, facts, counts_I)
    rows = min(max(data.recommend.n, data.evaluation.max_k), bundle.num_items)
    plain = {"n": rows, "layout": "long", "reasons": False, "index": type(data.recommend.index)(), "ranker": None}
    plain |= {"fallback": data.recommend.fallback_of_all, "stages": [], "time_of_day": None}
    options = read_options(bundle, data.recommend.model_copy(update=plain))
    items = ItemCounts(bundle.item_ids, counts_I, *item_genres(prepared.items))
    total = Partial()
    for shard in range(prepared.num_shards):
        requests, targets = bundle.requests(shard), prepared.targets(shard, VALID)
        lists = recommend(bundle, requests, options)
        lengths_B = requests.histories.lengths_B
        total = total.merge(
            evaluate_part(
                lists, requests.user_ids, targets.items, lengths_B, items, data.evaluation, shard,
                ratings_E=targets.ratings_E, seen=seen_items(requests) if options.filter_seen else None,
            )
        )  # fmt: skip
    return Tried(total.finish(data.evaluation), fitted - started, time.perf_counter() - fitted)
