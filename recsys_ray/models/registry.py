"""The models by name, the scorers by kind, and the size check before a fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recsys_ray.base.errors import BundleError, SizeError
from recsys_ray.base.types import Counts, FitContext, Scorer, ScorerState, Settings, TrainData
from recsys_ray.models.als import ALSConfig, als_memory, fit_als
from recsys_ray.models.base import MemoryEstimate
from recsys_ray.models.content import ContentConfig, ContentScorer, content_memory, fit_content
from recsys_ray.models.ease import EASEConfig, ease_memory, fit_ease
from recsys_ray.models.graph_filter import GraphFilterConfig, fit_graph_filter, graph_filter_memory
from recsys_ray.models.item_cf import ItemCFConfig, fit_item_cf, item_cf_memory
from recsys_ray.models.lightgcn.fit import LightGCNConfig, fit_lightgcn, lightgcn_memory
from recsys_ray.models.ncf.fit import NCFConfig, fit_ncf, ncf_memory
from recsys_ray.models.ncf.scorer import PairScorer
from recsys_ray.models.popularity import PopularityConfig, fit_popularity, popularity_memory
from recsys_ray.models.pure_svd import PureSVDConfig, fit_pure_svd, pure_svd_memory
from recsys_ray.models.random import RandomConfig, RandomScorer, fit_random, random_memory
from recsys_ray.models.scorers.cold_items import BASES, ColdItemScorer
from recsys_ray.models.sequence.bert4rec import BERT4RecConfig, bert4rec_memory, fit_bert4rec
from recsys_ray.models.sequence.sasrec import SASRecConfig, fit_sasrec, sasrec_memory
from recsys_ray.models.svd import SVDConfig, fit_svd, svd_memory
from recsys_ray.models.two_tower.fit import TwoTowerConfig, fit_two_tower, two_tower_memory
from recsys_ray.models.two_tower.scorer import TowerScorer


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One algorithm: its settings, its fit, what the fit needs, and what its scores mean."""

    config: type[Settings]
    fit: Callable[[TrainData, Any, FitContext], Scorer]
    memory: Callable[[Counts, Any], MemoryEstimate]
    predicts_ratings: bool = False
    """Scores are in rating units: RMSE and MAE make sense, and the fit needs ratings that differ."""
    personal: bool = True
    """Different histories get different scores."""
    needs_content: Callable[[Any], bool] = lambda config: False
    """Whether the fit, with these settings, takes vectors of the items' texts and posters."""
    ordered: bool = False
    """The order of a history matters, not only which items it holds."""


MODELS: dict[str, ModelEntry] = {
    "random": ModelEntry(RandomConfig, fit_random, random_memory, personal=False),
    "popularity": ModelEntry(PopularityConfig, fit_popularity, popularity_memory, personal=False),
    "item_cf": ModelEntry(ItemCFConfig, fit_item_cf, item_cf_memory),
    "ease": ModelEntry(EASEConfig, fit_ease, ease_memory),
    "graph_filter": ModelEntry(GraphFilterConfig, fit_graph_filter, graph_filter_memory),
    "als": ModelEntry(ALSConfig, fit_als, als_memory),
    "svd": ModelEntry(SVDConfig, fit_svd, svd_memory, predicts_ratings=True),
    "pure_svd": ModelEntry(PureSVDConfig, fit_pure_svd, pure_svd_memory),
    "content": ModelEntry(ContentConfig, fit_content, content_memory, needs_content=lambda config: True, ordered=True),
    "lightgcn": ModelEntry(LightGCNConfig, fit_lightgcn, lightgcn_memory),
    "ncf": ModelEntry(NCFConfig, fit_ncf, ncf_memory),
    "sasrec": ModelEntry(SASRecConfig, fit_sasrec, sasrec_memory, ordered=True),
    "bert4rec": ModelEntry(BERT4RecConfig, fit_bert4rec, bert4rec_memory, ordered=True),
    "two_tower": ModelEntry(
        TwoTowerConfig, fit_two_tower, two_tower_memory, needs_content=lambda config: config.use_content
    ),
}

SCORERS: dict[str, type[Scorer]] = {
    **BASES,
    "random": RandomScorer,
    "content": ContentScorer,
    "cold": ColdItemScorer,
    "pair": PairScorer,
    "towers": TowerScorer,
}


def scorer_kind(scorer: Scorer) -> str:
    """The name under which ``load_scorer`` rebuilds this kind of scorer."""
    return next(kind for kind, scorer_class in SCORERS.items() if type(scorer) is scorer_class)


def load_scorer(kind: str, state: ScorerState) -> Scorer:
    """A scorer from its saved state; arrays may be read-only memory maps and are used where they lie.

    Raises:
        BundleError: no scorer of this kind, or arrays or settings are missing.
    """
    if kind not in SCORERS:
        raise BundleError(f"unknown scorer kind {kind!r}; this version knows {', '.join(SCORERS)}")
    try:
        return SCORERS[kind].from_state(state)
    except (KeyError, TypeError) as error:
        raise BundleError(f"scorer {kind!r}: saved state is incomplete or of another version ({error})") from error


def check_size(name: str, config: Settings, counts: Counts, limit_bytes: int) -> MemoryEstimate:
    """The predicted memory of a fit.

    Raises:
        SizeError: it is above ``limit_bytes``.
    """
    estimate = MODELS[name].memory(counts, config)
    if estimate.bytes > limit_bytes:
        raise SizeError(
            f"{name}: {counts.num_users} users x {counts.num_items} items with {counts.num_interactions} interactions "
            f"need about {estimate.bytes / 2**30:.1f} GiB, above the limit of {limit_bytes / 2**30:.1f} GiB; "
            f"{estimate.advice}"
        )
    return estimate
