"""How to answer: the section ``recommend`` with its files read, its indexes opened and its second models loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_ray import retrieval
from recsys_ray.base import schema
from recsys_ray.base.errors import ConfigError, DataError, ModelError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import (
    BoolArray,
    FloatArray,
    IntArray,
    Requests,
    Scorer,
    ScoresPairs,
    by_inner_product,
)
from recsys_ray.data.item_list import read_item_list
from recsys_ray.recommend.bundle import Bundle, open_bundle
from recsys_ray.recommend.config import (
    COUNTED,
    GENRES,
    POPULARITY,
    TRENDING,
    RecommendSettings,
    StageSettings,
    fallback_names,
)
from recsys_ray.recommend.context import context_mask
from recsys_ray.recommend.explain import explain_texts
from recsys_ray.recommend.hidden import HiddenLists, read_hidden
from recsys_ray.recommend.item_lists import listed_rows
from recsys_ray.recommend.learned import TimeOfDay, Trending, read_time_of_day, read_trending
from recsys_ray.recommend.moments import Moment, at_of, moment_of
from recsys_ray.retrieval import Index, Reranker, RerankSettings, pair_scores

Explainer = Callable[[Bundle, Requests, IntArray, npt.NDArray[np.int8]], list[str]]
"""(bundle, B requests, (B, K) item rows, -1 for none, (B, K) places in ``Bundle.sources``) -> a text for each item that
is there, row by row."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to answer: ``RecommendSettings`` with its files read."""

    n: int = 10
    filter_seen: bool = True
    allowed_I: BoolArray | None = None
    """Items that may be shown at all, whenever; None for every item."""
    moment: Moment | None = None
    """When the answer is for; None where no rule depends on it."""
    hidden: HiddenLists | None = None
    """What users hide. Whoever makes requests puts it into them, by ``with_hidden``."""
    fallback: tuple[str, ...] = (POPULARITY,)
    """Who fills what the model leaves open, one after the other: names of ``Bundle.fallbacks``, or of COUNTED."""
    trending: Trending | None = None
    stages: tuple[StageSettings, ...] = ()
    likes: tuple[int, ...] = ()
    """Genres that requests without a history are answered by, as numbers of ``Bundle.genres``."""
    time_of_day: TimeOfDay | None = None
    block_bytes: int = 64 << 20
    index: Index | None = None
    """Where candidates of a model with item vectors are searched; None for the exact index."""
    ranker: ScoresPairs | None = None
    ranker_pool: int = 200
    """Candidates that the ranker scores."""
    reranker: Reranker | None = None
    explainer: Explainer | None = None
    """Adds the column ``reason``."""

    @property
    def rerank_pool(self) -> int:
        """How many items re-ranking, and re-weighting by the time, picks from: never fewer than it is asked for."""
        timed = 0 if self.time_of_day is None else self.time_of_day.settings.pool
        return max(self.n, timed, 0 if self.reranker is None else self.reranker.settings.pool)

    @property
    def num_candidates(self) -> int:
        """How many items are retrieved for each request."""
        return self.rerank_pool if self.ranker is None else max(self.n, self.ranker_pool)


def shown_items(bundle: Bundle, options: Options) -> BoolArray | None:
    """(I,) the items that may be shown at the moment of the options; None for every item."""
    if bundle.availability is None or options.moment is None:
        return options.allowed_I
    available_I = bundle.availability.mask(options.moment.span)
    return available_I if options.allowed_I is None else available_I & options.allowed_I


def check_options(bundle: Bundle, options: Options) -> None:
    """ConfigError when no catalogue could satisfy them."""
    shown_I = shown_items(bundle, options)
    allowed = bundle.num_items if shown_I is None else int(shown_I.sum())
    if options.n > bundle.num_items:
        raise ConfigError(
            f"recommend.n={options.n} is larger than the catalogue of {bundle.num_items} items; set it lower"
        )
    pools = {"ranker": None if options.ranker is None else options.ranker_pool}
    pools["rerank"] = None if options.reranker is None else options.reranker.settings.pool
    for stage, pool in pools.items():
        if pool is not None and pool < options.n:
            raise ConfigError(
                f"recommend.{stage}.pool={pool} can't fill lists of recommend.n={options.n}; set it higher"
            )
    if allowed == 0:
        raise ConfigError(
            "recommend.allow, recommend.context, recommend.deny and recommend.candidates leave no item to recommend; "
            "loosen one of them"
            + ("" if options.moment is None else ", or set recommend.at to a day on which some are available")
        )


@dataclass(frozen=True, slots=True)
class ScorerRanker:
    """Any scorer as one of listed items: by its own ``score_pairs``, its vectors, or the columns of its blocks."""

    scorer: Scorer
    block_bytes: int = 64 << 20

    def score_pairs(self, requests: Requests, rows_BK: IntArray) -> FloatArray:
        scores_BK = self._scores(requests, rows_BK)
        known_BK = self.scorer.answers(requests)[:, None] & self.scorer.scorable_I[rows_BK] & (rows_BK >= 0)
        if np.isnan(scores_BK[known_BK]).any():
            raise ModelError("recommend.ranker: the model gave NaN scores: refit it with a lower learning rate")
        return np.where(known_BK, scores_BK, np.float32(-np.inf))

    def _scores(self, requests: Requests, rows_BK: IntArray) -> FloatArray:
        if isinstance(self.scorer, ScoresPairs):
            return self.scorer.score_pairs(requests, rows_BK)
        vectors = by_inner_product(self.scorer)
        if vectors is not None:
            return pair_scores(vectors.queries(requests), vectors.items, rows_BK)
        step = max(1, self.block_bytes // (4 * max(1, self.scorer.num_items)))
        blocks = [
            np.take_along_axis(self.scorer.score(requests.slice(start, stop)), rows_BK[start:stop], axis=1)
            for start in range(0, len(requests), step)
            for stop in [min(start + step, len(requests))]
        ]
        return np.concatenate(blocks) if blocks else np.zeros(rows_BK.shape, np.float32)


Progress = Callable[[str], None]


def read_options(bundle: Bundle, settings: RecommendSettings) -> Options:
    """The settings with their item lists read and checked against the catalogue and the model.

    It loads nothing but these lists: enough to check a run. ``with_stages`` adds what answering takes.

    Raises:
        ConfigError: a stage that this catalogue or model can't have. DataError: an item list names unknown items.
    """
    if settings.index.kind != "exact" and bundle.item_vectors is None:
        raise ConfigError(
            f"recommend.index.kind={settings.index.kind}: model {bundle.manifest.get('model', '?')} has no item "
            "vectors to index; remove recommend.index"
        )
    time_of_day = None if settings.time_of_day is None else read_time_of_day(bundle, settings.time_of_day)
    _check_answering(bundle, settings)
    options = Options(
        n=settings.n,
        filter_seen=settings.filter_seen,
        allowed_I=_allowed(bundle, settings),
        moment=None if (at := at_of(settings)) is None else moment_of(bundle, at, time_of_day),
        trending=_trending(bundle, settings),
        stages=tuple(settings.stages),
        time_of_day=time_of_day,
        hidden=None if settings.hidden is None else read_hidden(bundle, settings.hidden),
        fallback=fallback_names(settings.fallback),
        block_bytes=settings.block_mib << 20,
        reranker=None if settings.rerank is None else _reranker(bundle, settings.rerank),
    )
    check_options(bundle, options)
    return options


def _trending(bundle: Bundle, settings: RecommendSettings) -> Trending | None:
    """What is popular lately, where somebody answers with it."""
    if TRENDING in fallback_names(settings.fallback):
        return read_trending(bundle, settings.trending, "recommend.fallback: trending")
    if TRENDING in {stage.answers for stage in settings.stages}:
        return read_trending(bundle, settings.trending, "recommend.stages: trending")
    return None


def _check_answering(bundle: Bundle, settings: RecommendSettings) -> None:
    """ConfigError where one of those who answer beside the model can't be had."""
    by_stage = {stage.answers for stage in settings.stages} - {schema.SOURCE_MODEL}
    for where, names in (("fallback", set(fallback_names(settings.fallback))), ("stages", by_stage)):
        if missing := names - {*COUNTED, *bundle.fallbacks}:
            cure = "run train again" if where == "fallback" else "name it in recommend.fallback, too"
            raise ConfigError(f"recommend.{where}: the fitted model holds no {min(missing)} to fall back on; {cure}")
        if GENRES in names and not bundle.genres[1]:
            raise ConfigError(
                f"recommend.{where}: genres can't answer, the catalogue has none; name the column with "
                "data.item_columns.genres, or let another answer"
            )


def with_stages(
    bundle: Bundle,
    settings: RecommendSettings,
    options: Options,
    ranker: Location | None = None,
    progress: Progress = lambda message: None,
) -> Options:
    """The options with index and ranker opened, and the writer of reasons.

    ``ranker`` is the bundle of the second model, which goes with ``settings.ranker``.
    """
    if settings.ranker is not None:
        if ranker is None:
            raise ConfigError("recommend.ranker: no fitted model is given for it; give its bundle or remove the ranker")
        scorer = _open_ranker(bundle, ranker).scorer
        options = replace(options, ranker=ScorerRanker(scorer, options.block_bytes), ranker_pool=settings.ranker.pool)
    explainer = explain_texts if settings.reasons else None
    options = replace(options, index=search_index(bundle, settings, progress)[0], explainer=explainer)
    check_options(bundle, options)
    return options


def search_index(
    bundle: Bundle, settings: RecommendSettings, progress: Progress = lambda message: None
) -> tuple[Index | None, dict[str, Any] | None]:
    """The index that was asked for, or the exact one where its recall is too low, and what was measured; (None, None)
    for the exact index by choice.

    It is built, measured and kept in the bundle's ``index/`` when first asked for, and read from there afterwards.
    """
    if settings.index.kind == "exact":
        return None, None
    items = bundle.item_vectors
    assert items is not None  # or read_options would have refused
    return retrieval.open_index(
        bundle.location / "index",
        items,
        settings.index,
        exact=lambda: bundle.index,
        sample=lambda: sampled_queries(bundle, settings.index.sample),
        progress=progress,
    )


def sampled_queries(bundle: Bundle, count: int) -> FloatArray:
    """(at most ``count``, D) queries of the first users that the model answers: a random sample, because users are
    spread over shards by a hash."""
    scorer = bundle.vectors
    assert scorer is not None  # it has item vectors
    queries: list[FloatArray] = []
    for shard in range(bundle.num_shards):
        requests = bundle.requests(shard)
        queries.append(scorer.queries(requests)[scorer.answers(requests)])
        if sum(map(len, queries)) >= count:
            break
    return np.concatenate(queries)[:count]


def _open_ranker(bundle: Bundle, location: Location) -> Bundle:
    """Rows of users and items must mean the same to both models, so both must stand on the same prepared data."""
    ranker = open_bundle(location)
    for fact in ("prepared", "vocabulary_sha256"):
        if ranker.manifest.get(fact) != bundle.manifest.get(fact):
            raise ConfigError(
                f"recommend.ranker: {location} was trained on other prepared data than {bundle.location}; train both "
                "models on the same data section and seed"
            )
    return ranker


def _reranker(bundle: Bundle, settings: RerankSettings) -> Reranker:
    genres, names = bundle.genres
    by_genre = settings.max_per_genre is not None or (settings.diversity > 0 and settings.similarity == "genres")
    if by_genre and not names:
        raise ConfigError(
            "recommend.rerank: the catalogue has no genres; set rerank.similarity=vectors without max_per_genre, "
            "or name the column with data.item_columns.genres"
        )
    items = bundle.item_vectors if settings.similarity == "vectors" else None
    if settings.similarity == "vectors" and items is None:
        raise ConfigError(
            f"recommend.rerank.similarity=vectors: model {bundle.manifest.get('model', '?')} has no item vectors; "
            "set rerank.similarity=genres"
        )
    return Reranker(settings, genres, None if items is None else items.vectors_ID)


def _allowed(bundle: Bundle, settings: RecommendSettings) -> BoolArray | None:
    if (settings.allow, settings.deny, settings.context, settings.candidates) == (None, None, None, "all"):
        return None
    allowed_I = np.full(bundle.num_items, settings.allow is None)
    if settings.allow is not None:
        listed = read_item_list(settings.allow, "recommend.allow")
        if not len(listed):
            raise DataError(f"recommend.allow: {settings.allow} holds no item id, so nothing could be recommended")
        allowed_I[bundle.item_rows(listed, "recommend.allow")] = True
    if settings.deny is not None:
        allowed_I[_denied(bundle, settings.deny)[0]] = False
    if settings.context is not None:
        allowed_I &= context_mask(bundle, settings.context, "recommend.context.")
    if settings.candidates == "cold":
        allowed_I &= bundle.item_counts() == 0
    return allowed_I


def _denied(bundle: Bundle, path: str) -> tuple[IntArray, pa.Array]:
    return listed_rows(read_item_list(path, "recommend.deny"), bundle.item_ids, "recommend.deny")


def denied_in_vain(bundle: Bundle, settings: RecommendSettings) -> str | None:
    """A warning where ``recommend.deny`` names what the catalogue has not: gone, or never there."""
    unknown = pa.array([], pa.string()) if settings.deny is None else _denied(bundle, settings.deny)[1]
    if not len(unknown):
        return None
    return (
        f"warning: {len(unknown):,} items of recommend.deny are not in the catalogue, such as {unknown[0].as_py()!r}; "
        "there is nothing to deny of them"
    )


def varied(bundle: Bundle, options: Options, diversity: float | None, max_per_genre: int | None) -> Reranker | None:
    """Re-ranking by these, what is None as in the options.

    Raises:
        ConfigError: a value is out of range, or the catalogue can't be varied so.
    """
    if diversity is not None and not 0 <= diversity <= 1:
        raise ConfigError(f"diversity must be between 0 and 1, found {diversity}")
    if max_per_genre is not None and max_per_genre < 1:
        raise ConfigError(f"max_per_genre must be at least 1, found {max_per_genre}")
    own = options.reranker
    settings = RerankSettings.model_construct(diversity=0.0, max_per_genre=None) if own is None else own.settings
    given = {"diversity": diversity, "max_per_genre": max_per_genre}
    changed = settings.model_copy(update={name: value for name, value in given.items() if value is not None})
    if changed.diversity == 0 and changed.max_per_genre is None:
        return None
    if own is not None:
        return replace(own, settings=changed)
    return read_options(bundle, RecommendSettings(n=1, rerank=changed)).reranker
