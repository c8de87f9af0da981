"""The parameters of one recommendation request, and the options of ``rank`` that they stand for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.types import BoolArray
from recsys_ray.recommend.config import ContextSettings
from recsys_ray.recommend.context import genre_numbers
from recsys_ray.recommend.moments import Moment
from recsys_ray.recommend.options import Options
from recsys_ray.serving.answers.live_run import LiveRun
from recsys_ray.serving.problem import Problem


@dataclass(frozen=True, slots=True)
class RecommendParams:
    """How to answer; equal parameters for equal histories give equal responses. Defaults are those of the run."""

    n: int = 10
    offset: int = 0
    filters: ContextSettings | None = None
    exclude_seen: bool | None = None
    explain: bool = False
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] | None = None
    diversity: float | None = None
    max_per_genre: int | None = None
    likes: tuple[str, ...] | None = None
    """Genres that a user without a history is answered by."""
    at: int | None = None
    """UTC milliseconds that the answer is for; None is now."""

    @property
    def ranking(self) -> RecommendParams:
        """The part of it that ``rank`` depends on, the moment apart: requests that are equal in it can share a call."""
        return replace(self, n=self.n + self.offset, offset=0, explain=False, at=None)


def options_of(run: LiveRun, params: RecommendParams, moment: Moment) -> Options | None:
    """None when no item could be recommended at all. Raises Problem 422."""
    masks: list[BoolArray] = []
    catalogue = run.catalogue
    if params.filters is not None:
        masks.append(filter_mask(run, params.filters))
    if params.allow is not None:
        masks.append(catalogue.mask(catalogue.known_rows(params.allow)))
    if params.deny is not None:
        masks.append(catalogue.mask(catalogue.known_rows(params.deny), value=False))
    allowed_I = run.allowed(moment, *masks)
    if allowed_I is not None and not allowed_I.any():
        return None
    options = _reranked(run, params)
    n = min(params.n + params.offset, len(catalogue))
    if options.ranker is not None or options.reranker is not None:
        n = min(n, options.num_candidates)
    filter_seen = run.options.filter_seen if params.exclude_seen is None else params.exclude_seen
    return replace(options, n=n, filter_seen=filter_seen, allowed_I=allowed_I, moment=moment, likes=_likes(run, params))


def _likes(run: LiveRun, params: RecommendParams) -> tuple[int, ...]:
    """Genres as numbers. Raises Problem 422."""
    try:
        return tuple(genre_numbers(run.bundle, list(params.likes or ()), "likes"))
    except ConfigError as error:
        raise Problem(422, str(error)) from error


def _reranked(run: LiveRun, params: RecommendParams) -> Options:
    """The run's options, with the re-ranking of the parameters. Raises Problem 422."""
    if params.diversity is None and params.max_per_genre is None:
        return run.options
    try:
        return replace(run.options, reranker=run.reranker(params.diversity, params.max_per_genre))
    except ConfigError as error:
        raise Problem(422, "context: the catalogue has no genres to vary by") from error


def filter_mask(run: LiveRun, filters: ContextSettings) -> BoolArray:
    """(I,) items that pass. Raises Problem 422."""
    try:
        return run.context_mask(filters)
    except ConfigError as error:
        raise Problem(422, str(error)) from error
