"""What somebody likes, as genres: a list for who has rated too little for a model, or has named genres alone.

    score = cosine(profile, genres of the item) * log(1 + users who have it) / log(1 + users who have the most popular)

The profile of a history is the sum of its items' genres, each weighted by how far its rating lies above the user's
mean; where all ratings are equal each counts 1. An item that points away from the profile has no score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recsys_ray.base.types import DoubleArray, FloatArray, Histories, ItemLists, LongArray

if TYPE_CHECKING:
    import scipy.sparse as sp


@dataclass(frozen=True, slots=True)
class GenreProfiles:
    """Scores items by the genres of a history, or by genres that are named."""

    genres_IG: sp.csr_matrix
    """Rows of length 1, of zeros where an item has no genre."""
    popularity_I: DoubleArray

    @classmethod
    def of(cls, genres: ItemLists, num_genres: int, counts_I: LongArray) -> GenreProfiles:
        import scipy.sparse as sp

        lengths_E = np.sqrt(np.repeat(genres.lengths_B, genres.lengths_B).astype(np.float64))
        matrix = sp.csr_matrix((1 / lengths_E, genres.items_E, genres.offsets_B1), (len(genres), num_genres))
        return cls(matrix, np.log1p(counts_I) / max(1e-9, float(np.log1p(counts_I.max(initial=0)))))

    def of_histories(self, histories: Histories) -> FloatArray:
        """(B, I) scores; -inf where a history says nothing for an item."""
        import scipy.sparse as sp

        rows_E, lengths_B = histories.rows_E, np.maximum(1, histories.lengths_B)
        ratings_E = histories.ratings_E.astype(np.float64)
        means_B = np.bincount(rows_E, ratings_E, minlength=len(histories)) / lengths_B
        weights_E = ratings_E - means_B[rows_E]
        rated_B = np.bincount(rows_E, np.abs(weights_E), minlength=len(histories)) > 1e-6
        weights_E = np.where(rated_B[rows_E], weights_E, 1.0)
        shape = len(histories), self.genres_IG.shape[0]
        profiles = sp.csr_matrix((weights_E, histories.items_E, histories.offsets_B1), shape) @ self.genres_IG
        return self._scores(profiles.toarray())

    def of_genres(self, genres: Sequence[int]) -> FloatArray:
        """(1, I) scores for who likes these genres alike."""
        profile_1G = np.zeros((1, self.genres_IG.shape[1]))
        profile_1G[0, list(genres)] = 1
        return self._scores(profile_1G)

    def _scores(self, profiles_BG: DoubleArray) -> FloatArray:
        lengths_B = np.linalg.norm(profiles_BG, axis=1)
        cosines_BI = (self.genres_IG @ (profiles_BG / np.where(lengths_B > 0, lengths_B, 1)[:, None]).T).T
        scores_BI = np.where(cosines_BI > 1e-9, cosines_BI * self.popularity_I, -np.inf)
        return np.ascontiguousarray(scores_BI, np.float32)
