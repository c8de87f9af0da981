"""What two towers are told about items, users and histories, as plain arrays. No torch.

E are events, or pairs of a user and an item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys_ray.base.ragged import Ragged, offsets
from recsys_ray.base.types import BoolArray, DoubleArray, FloatArray, Histories, LongArray
from recsys_ray.data.features import HistorySums, standardised

CONTENT = ("content", "text", "image")
"""Inputs that an item may lack: a row of zeros then, which no fusion counts."""


@dataclass(frozen=True, slots=True)
class TowerShape:
    """What is needed to build the network again."""

    inputs: dict[str, int]
    """Length of each input by name, in the order in which they are fused; an absent one is a row of zeros."""
    widths: dict[str, int]
    """What concat_mlp brings each input to; the other strategies bring all to ``width``."""
    width: int
    fusion: str
    layers: list[int]
    """Widths of the layers behind the fused inputs, the last one linear; none: the fused inputs are the vector."""
    dropout: float
    batch_norm: bool

    @property
    def output_dim(self) -> int:
        return self.layers[-1] if self.layers else self.width


@dataclass(frozen=True, slots=True)
class HistoryFeatures:
    """What turns a history into the tower's input ``features``."""

    genres_IG: FloatArray
    now: float
    """The newest moment of the training data, in UTC milliseconds."""
    mean_F: FloatArray
    scale_F: FloatArray

    def of(self, sums: HistorySums) -> FloatArray:
        """(B, F) standardised by what the users of the fit are like."""
        features_BF: FloatArray = (sums.features(self.now) - self.mean_F) * self.scale_F
        return features_BF


@dataclass(frozen=True, slots=True)
class ItemInputs:
    """What the item tower is told beside the id."""

    trained_I: BoolArray
    scorable_I: BoolArray
    """Items that are trained, or of which something else is known."""
    catalogue_IF: FloatArray | None
    interactions_IF: FloatArray | None
    """Hidden together with the id."""
    content_IF: FloatArray | None
    """Text and poster in one, or None; then one or both of these may be there. Zeros where an item has none."""
    text_IF: FloatArray | None = None
    image_IF: FloatArray | None = None

    @property
    def num_items(self) -> int:
        return len(self.trained_I)

    @property
    def contents(self) -> dict[str, FloatArray]:
        """Those of text and poster that are there, by name."""
        found = zip(CONTENT, (self.content_IF, self.text_IF, self.image_IF), strict=True)
        return {name: vectors_IF for name, vectors_IF in found if vectors_IF is not None}


@dataclass(frozen=True, slots=True)
class Pairs(Ragged):
    """The training histories with every item of a user once."""

    items_E: LongArray
    weights_E: FloatArray
    """Of the item in the pooled history; 0 where it does not count."""
    counts_E: DoubleArray
    """Its events, the sum of their ratings, and of the squares."""
    sums_E: DoubleArray
    squares_E: DoubleArray
    ratings_E: FloatArray
    """The mean rating, standardised over all pairs; zeros where all are alike."""


def pairs_of(histories: Histories, weights_E: FloatArray, num_items: int) -> Pairs:
    """Every (user, item) once, whatever the number of its events."""
    ratings_E = histories.ratings_E.astype(np.float64)
    # E events; one key per (user, item), ascending: the pairs come out user by user, items ascending.
    keys_E = histories.rows_E.astype(np.int64) * num_items + histories.items_E
    # Each event's place among the pairs: whatever is summed by it is a column of the pairs.
    keys, places_E = np.unique(keys_E, return_inverse=True)
    counts, sums, squares, weights = (
        np.bincount(places_E, values_E, minlength=len(keys)).astype(np.float64)
        for values_E in (np.ones_like(ratings_E), ratings_E, ratings_E**2, weights_E)
    )
    offsets_B1 = offsets(np.bincount(keys // num_items, minlength=len(histories)))
    ratings = standardised(sums / counts)
    return Pairs(offsets_B1, keys % num_items, weights.astype(np.float32), counts, sums, squares, ratings)
