"""What a configuration says about retrieval and re-ranking. Light: nothing here loads an index."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from recsys_ray.contracts import Settings


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
