"""What a configuration says about retrieval and re-ranking. Light: nothing here loads an index."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from recsys_ray.base.types import Settings


class RerankSettings(Settings):
    """Variety and category caps, applied to each user's best candidates."""

    diversity: float = Field(default=0.0, ge=0, le=1)
    """Weight of being unlike what is listed above, against relevance: 0 ranks by score alone, 1 by variety alone."""
    similarity: Literal["genres", "vectors"] = "genres"
    """What makes two items alike: the genres they share, or the angle between their vectors in the model."""
    max_per_genre: int | None = Field(default=None, ge=1)
    """At most so many items of one genre in a list, rows of the fallback included. A list stays short where the pool
    and as many popular items hold no more; null sets no limit."""
    pool: int = Field(default=100, ge=1)
    """Candidates per user that the list is picked from."""

    @model_validator(mode="after")
    def _does_something(self) -> RerankSettings:
        if self.diversity == 0 and self.max_per_genre is None:
            raise ValueError("rerank: changes nothing; set diversity above 0 or max_per_genre, or remove the section")
        return self


ONLY_FOR = {
    "nlist": ("ivf",),
    "nprobe": ("ivf",),
    "m": ("hnsw",),
    "ef_construction": ("hnsw",),
    "ef_search": ("hnsw",),
    "oversample": ("sq8", "pq"),
    "code_bytes": ("pq",),
    "gpu": ("flat", "ivf"),
}


class IndexSettings(Settings):
    """What searches the items of a model whose scores are inner products."""

    kind: Literal["exact", "flat", "ivf", "hnsw", "sq8", "pq"] = "exact"
    """exact: every list is that of a full sort, and small catalogues are searched fastest so. The others are FAISS's:
    flat (all items), ivf (the nearest of many cells), hnsw (a walk through a graph of neighbours), sq8 (a byte a
    number, a quarter of the memory), pq (code_bytes an item). What a coarse one finds is scored exactly."""
    min_recall: float = Field(default=0.95, ge=0, le=1)
    """Least share of the exact lists that an approximate index must find on a sample of users; below, the exact index
    is used instead, and progress and the run's facts say so."""
    recall_at: int = Field(default=20, ge=1)
    """Length of the lists that recall is measured on."""
    sample: int = Field(default=500, ge=1)
    """Users whose lists recall is measured on."""
    nlist: int | None = Field(default=None, ge=1)
    """ivf: cells; null takes 4 sqrt(items)."""
    nprobe: int = Field(default=64, ge=1)
    """ivf: cells looked into for a query; more find more and take longer."""
    m: int = Field(default=32, ge=2)
    """hnsw: neighbours of an item in the graph."""
    ef_construction: int = Field(default=100, ge=1)
    """hnsw: items looked at while an item finds its place in the graph."""
    ef_search: int = Field(default=128, ge=1)
    """hnsw: items looked at for a query, at least the list length; more find more and take longer."""

    oversample: int = Field(default=4, ge=1)
    """sq8, pq: candidates per row of a list that are scored exactly; more find more and take longer."""
    code_bytes: int = Field(default=16, ge=1)
    """pq: bytes of an item."""
    gpu: bool = False
    """flat, ivf: search on the first GPU; needs a FAISS that is built for it."""

    @model_validator(mode="after")
    def _settings_of_the_kind(self) -> IndexSettings:
        for name, kinds in ONLY_FOR.items():
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                listed = " or ".join(kinds)
                raise ValueError(f"index.{name}: belongs to kind={listed}, found kind={self.kind}; remove one of them")
        return self
