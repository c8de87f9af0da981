"""What is asked of a recommendation: the section ``recommend`` of a configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recsys_ray.base.types import Settings
from recsys_ray.retrieval import IndexSettings, RerankSettings

Layout = Literal["long", "nested"]


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
    fallback: Literal["popularity", "none"] = "popularity"
    """Who fills the rows that the model has no opinion on; "none" leaves them out."""
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
