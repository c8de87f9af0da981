"""What is asked of a recommendation: the section ``recommend`` of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from recsys_ray.base.types import Settings
from recsys_ray.retrieval import IndexSettings, RerankSettings

Layout = Literal["long", "nested"]


POPULARITY = "popularity"
"""The fallback that every fitted model has: its items' counts."""


def _as_list(value: Any) -> Any:
    if isinstance(value, str):
        return [] if value == "none" else [value]
    return value


Fallback = Annotated[list[str | dict[str, Any]], BeforeValidator(_as_list)]


def fallback_names(entries: Sequence[str | dict[str, Any]]) -> tuple[str, ...]:
    """How the sources of rows call them: by the name of the model, or the label that its section gives."""
    return tuple(entry if isinstance(entry, str) else str(entry.get("label", entry.get("name"))) for entry in entries)


class RankerSettings(Settings):
    """A second model that scores the candidates of the first anew."""

    pool: int = Field(default=200, ge=1)
    """Candidates per user that it scores."""


class RecommendSettings(Settings):
    """What is asked of the batch job."""

    n: int = Field(default=10, ge=1)
    """Rows per user."""
    filter_seen: bool = True
    """Never recommend what the user already has."""
    allow: str | None = None
    """File of item ids (Parquet or CSV with a column item_id, or one id a line): nothing else is recommended."""
    deny: str | None = None
    """File of item ids that are never recommended."""
    candidates: Literal["all", "cold"] = "all"
    """cold: only items that nobody has interacted with in the data the model was fitted on: a shelf of new arrivals."""
    fallback: Fallback = Field(default=[POPULARITY])
    """Who fills the rows that the model has no opinion on, one after the other: popularity, or any model by its name or
    its section ({name: content, vectors: text}), fitted beside the first. [] or none leaves such rows out."""
    layout: Layout = "long"
    """A row per recommendation, or a row per user with lists."""
    index: IndexSettings = IndexSettings()
    """What finds the candidates of a model whose scores are inner products."""
    ranker: RankerSettings | None = None
    """A model that scores the candidates of model.name anew; null leaves them as they are."""
    rerank: RerankSettings | None = None
    """Variety and category caps; null lists the best candidates."""
    reasons: bool = False
    """Write a column that says why each item is in the list."""
    block_mib: int = Field(default=64, ge=1)
    """Upper bound on one block of scores."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @property
    def fallback_of_all(self) -> list[str]:
        """The fallbacks that need no model of their own, so that any fitted model has them."""
        return [entry for entry in self.fallback if entry == POPULARITY]
