"""Content: items like those the user had last, by the vectors of their texts and posters. Learns from no one else.

    query_u = normalised sum over the user's last ``recent`` events e of  w_e v_e
    w_e     = 0.5 ^ (age_e / half_life) * rating weight,      score_ui = query_u . v_i

with v the items' L2-normalised vectors, so that a score is a cosine in [-1, 1], and ages counted back from the last of
these events. It knows every item and every user by their content and history alone, whether or not the fit saw them.

The rating weights of "centered" are the ratings less their mean over the same events: what the user liked less than
usual pushes away. Where they say nothing, because all are the same (implicit data, a single event) or because the
weighted vectors cancel, events count by their age alone. Where even that sum cancels, the query is zero, and all
scores with it.
Time: O(items * D) for the fit, O(recent * D) for a query. Memory: items * D floats.

E are the events of a batch, P those that count.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import (
    BoolArray,
    Counts,
    DoubleArray,
    FitContext,
    FloatArray,
    Histories,
    IntArray,
    ItemContent,
    MemoryEstimate,
    Requests,
    Scorer,
    ScorerState,
    TrainData,
)
from recsys_ray.data.genres import item_genres
from recsys_ray.models.base import Model, of_kind
from recsys_ray.models.linalg.pooling import age_weights, last_events, weighted_sums
from recsys_ray.models.scorers.base import VectorScorer, comparable

NOTHING = 1e-5
"""A sum of unit vectors this short, for weights that add up to 1, is what rounding left of one that cancels."""
LONG_VECTOR = 768
"""The dimension that the memory prediction assumes: that of the larger common encoders."""


def _check(histories: Histories, config: Content) -> None:
    if config.half_life_days is not None and not histories.timestamps_E.any():
        raise ModelError("content: half_life_days needs timestamps, and the interactions have none; unset it")
    ratings_E = histories.ratings_E
    usable_E = np.isfinite(ratings_E)
    if config.rating_weight == "rating":
        usable_E = usable_E & (ratings_E > 0)
    if config.rating_weight != "none" and not usable_E.all():
        raise ModelError(
            f'content: rating_weight = "{config.rating_weight}" can\'t use the rating {ratings_E[~usable_E][0]}; '
            'set model.rating_weight = "none" or drop such rows with a rating threshold'
        )


def centered(content: ItemContent) -> ItemContent:
    """The vectors less the mean of those present, normalised again; an item of which nothing is left has none."""
    mean_D = content.vectors_ID.sum(axis=0, dtype=np.float64) / max(1, int(content.present_I.sum()))
    vectors_ID: FloatArray = content.vectors_ID - mean_D.astype(np.float32)
    lengths_I = np.sqrt(np.einsum("id,id->i", vectors_ID, vectors_ID))
    present_I = content.present_I & (lengths_I > NOTHING)
    vectors_ID[~present_I] = 0
    vectors_ID[present_I] /= lengths_I[present_I, None]
    return ItemContent(vectors_ID, present_I)


def attribute_vectors(items: pa.Table, model: str = "content") -> ItemContent:
    """Genres and decades of a catalogue as L2-normalised vectors, an entry weighing log(items / items that have it).

    Raises:
        ModelError: the catalogue has neither.
    """
    genres, names = item_genres(items)
    flags_ID = np.zeros((items.num_rows, len(names)), np.float32)
    flags_ID[genres.rows_E, genres.items_E] = 1
    if "year" in items.schema.names:
        decades_I = np.asarray(items.column("year").to_numpy(zero_copy_only=False), np.float64) // 10
        known = np.unique(decades_I[np.isfinite(decades_I)])
        flags_ID = np.concatenate([flags_ID, (decades_I[:, None] == known).astype(np.float32)], axis=1)
    if not flags_ID.any():
        advice = "set vectors=embeddings" if model == "content" else "unset features"
        raise ModelError(f"{model}: the catalogue has no genres or years; name their columns, or {advice}")
    flags_ID *= np.log((1 + items.num_rows) / (1 + flags_ID.sum(axis=0)))
    lengths_I = np.linalg.norm(flags_ID, axis=1)
    return ItemContent(flags_ID / np.maximum(lengths_I, NOTHING)[:, None], lengths_I > NOTHING)


class ContentScorer(VectorScorer):
    """The cosine between the user's recent items and every item with a vector.

    Args:
        vectors_ID: L2-normalised item vectors, zero where there is none. present_I: items that have one. recent,
        half_life_days, rating_weight: see ``Content``.
    """

    kind: ClassVar[str] = "content"

    def __init__(
        self,
        *,
        vectors_ID: FloatArray,
        present_I: BoolArray,
        recent: int,
        half_life_days: float | None,
        rating_weight: Literal["none", "rating", "centered"],
    ) -> None:
        self.items_ID = vectors_ID
        self.scorable_I = present_I
        self.recent = recent
        self.half_life_days = half_life_days
        self.rating_weight: Literal["none", "rating", "centered"] = rating_weight

    def queries(self, requests: Requests) -> FloatArray:
        return self.queries_of(requests.histories)

    def similar(self, items_R: IntArray) -> FloatArray:
        return comparable(self.items_ID[items_R] @ self.items_ID.T, items_R, self.scorable_I)

    def queries_of(self, histories: Histories) -> FloatArray:
        """(B, D) of length 1, or zero where a history holds nothing with a vector or its vectors cancel."""
        recent = last_events(histories, self.scorable_I, self.recent)
        age_P = self._age_weights(recent)
        queries_BD, sound_B = self._sums(recent, age_P * self._rating_weights(recent))
        if not sound_B.all():
            by_age_BD, by_age_sound_B = self._sums(recent, age_P)
            queries_BD[~sound_B] = by_age_BD[~sound_B]
            queries_BD[~(sound_B | by_age_sound_B)] = 0
        return queries_BD

    def _age_weights(self, recent: Histories) -> DoubleArray:
        return age_weights(recent, self.half_life_days)

    def _rating_weights(self, recent: Histories) -> DoubleArray:
        ratings_P = recent.ratings_E.astype(np.float64)
        if self.rating_weight == "none":
            return np.ones_like(ratings_P)
        if self.rating_weight == "rating":
            return ratings_P
        # Sums of float32 in float64 are exact: equal ratings leave exactly nothing.
        sums_B = np.bincount(recent.rows_E, ratings_P, minlength=len(recent))
        return ratings_P - np.repeat(sums_B / np.maximum(recent.lengths_B, 1), recent.lengths_B)

    def _sums(self, recent: Histories, weights_P: DoubleArray) -> tuple[FloatArray, BoolArray]:
        """((B, D) weighted sums of the events' vectors at length 1, (B,) whether there was a length to begin with)."""
        totals_B = np.bincount(recent.rows_E, np.abs(weights_P), minlength=len(recent))
        shares_P = weights_P / np.repeat(np.where(totals_B > 0, totals_B, 1), recent.lengths_B)
        sums_BD = weighted_sums(recent, shares_P, self.items_ID)
        lengths_B = np.linalg.norm(sums_BD, axis=1)
        sums_BD /= np.maximum(lengths_B, NOTHING)[:, None]
        return sums_BD, lengths_B > NOTHING

    def state(self) -> ScorerState:
        return ScorerState(
            {"vectors": self.items_ID, "present": self.scorable_I},
            {"recent": self.recent, "half_life_days": self.half_life_days, "rating_weight": self.rating_weight},
        )

    @classmethod
    def from_state(cls, state: ScorerState) -> ContentScorer:
        return cls(vectors_ID=state.arrays["vectors"], present_I=state.arrays["present"], **state.settings)


class Content(Model):
    """Items like those the user had last, by the vectors of their texts and posters."""

    key: ClassVar[str] = "content"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (ContentScorer,)
    ordered: ClassVar[bool] = True

    vectors: Literal["embeddings", "text", "image", "attributes"] = "embeddings"
    """embeddings: those of the section content, text and poster in one; text, image: one of them alone. attributes:
    genres and decade of the catalogue, which need no encoder; a genre counts the more the fewer items have it."""
    recent: int = Field(default=50, ge=1)
    """How many of a user's last events on items with a vector make the query."""
    half_life_days: float | None = Field(default=None, gt=0)
    """An event this much older than the user's last counts half; null: all count the same."""
    rating_weight: Literal["none", "rating", "centered"] = "none"
    """What a rating adds to the weight of an event: nothing, itself, or its difference to the mean of the query's."""
    center: bool = True
    """Take the catalogue's mean vector from all vectors first, so that what all items share does not count as alike."""

    @property
    def needs_content(self) -> bool:
        return self.vectors != "attributes"

    @property
    def content_kinds(self) -> frozenset[str]:
        return frozenset({self.vectors} & {"text", "image"})

    def fit_scorer(self, data: TrainData, context: FitContext) -> ContentScorer:
        """Take over the items' vectors.

        Raises:
            ModelError: there are no item vectors, no timestamps for a half-life, or no usable ratings for weights.
        """
        if self.vectors == "attributes":
            given = attribute_vectors(data.items)
        elif data.content is None:
            raise ModelError("content needs item vectors; add a section content")
        else:
            given = data.content if self.vectors == "embeddings" else of_kind(data.content, self.vectors, "content")
        _check(data.histories, self)
        content = centered(given) if self.center else given
        if not content.present_I.any():
            raise ModelError(
                "content: no item has a vector of its own; see what the section content reads, or set "
                "model.center=false"
            )
        return ContentScorer(
            vectors_ID=content.vectors_ID,
            present_I=content.present_I,
            recent=self.recent,
            half_life_days=self.half_life_days,
            rating_weight=self.rating_weight,
        )

    @property
    def weighs_ratings(self) -> bool:
        return self.rating_weight != "none"

    def memory(self, counts: Counts) -> MemoryEstimate:
        vectors = 4 * counts.num_items * LONG_VECTOR
        return MemoryEstimate(
            2 * vectors + counts.num_items,
            "choose an encoder of shorter vectors in the section content, or drop rare items with data filters",
        )
