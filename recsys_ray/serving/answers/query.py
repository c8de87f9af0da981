"""What a caller asks for, as the options of ``recommend``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.types import BoolArray
from recsys_ray.recommend.options import Options
from recsys_ray.serving.answers.live_run import Served
from recsys_ray.serving.http.messages import Problem


@dataclass(frozen=True, slots=True)
class Ask:
    """How to answer; equal asks about equal states have equal answers."""

    n: int = 10
    offset: int = 0
    genre: str | None = None
    exclude_seen: bool | None = None
    explain: bool = False
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] | None = None
    diversity: float | None = None
    max_per_genre: int | None = None

    @property
    def scoring(self) -> tuple[Any, ...]:
        """The part of it that ``recommend`` sees."""
        lists = (self.genre, self.exclude_seen, self.allow, self.deny)
        return (self.n + self.offset, *lists, self.diversity, self.max_per_genre)


def options_of(served: Served, ask: Ask) -> Options | None:
    """None when nothing could be recommended at all."""
    masks: list[BoolArray] = []
    catalogue = served.catalogue
    if ask.genre is not None:
        masks.append(genre_mask(served, ask.genre))
    if ask.allow is not None:
        masks.append(catalogue.mask(catalogue.known_rows(ask.allow)[0]))
    if ask.deny is not None:
        masks.append(catalogue.mask(catalogue.known_rows(ask.deny)[0], value=False))
    allowed_I = served.allowed(*masks)
    if allowed_I is not None and not allowed_I.any():
        return None
    options = _varied(served, ask)
    n = min(ask.n + ask.offset, len(catalogue))
    if options.ranker is not None or options.reranker is not None:
        n = min(n, options.num_candidates)
    filter_seen = served.options.filter_seen if ask.exclude_seen is None else ask.exclude_seen
    return replace(options, n=n, filter_seen=filter_seen, allowed_I=allowed_I)


def _varied(served: Served, ask: Ask) -> Options:
    """The run's options, with the re-ranking that was asked for. Raises Problem 422."""
    if ask.diversity is None and ask.max_per_genre is None:
        return served.options
    try:
        return replace(served.options, reranker=served.reranker(ask.diversity, ask.max_per_genre))
    except ConfigError as error:
        raise Problem(422, "context: the catalogue has no genres to vary by") from error


def genre_mask(served: Served, genre: str) -> BoolArray:
    """(I,) items of a genre. Raises Problem 422."""
    found = served.catalogue.genre(genre)
    if found is None:
        raise Problem(422, "genre: the catalogue has none of this name; see /info for those it has")
    return served.catalogue.mask(served.catalogue.genre_rows[found])
