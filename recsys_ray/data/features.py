"""Numbers that describe an item or a history, for models with a network: the same code for a fit, a batch and online.

What the catalogue says of an item (genres, year, further numeric columns) is known of every item. What interactions say
of it (popularity, ratings) is known of trained items only, and is kept apart. Features of a user are functions of the
history alone.

P are left-out parts of histories.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.types import BoolArray, DoubleArray, FloatArray, Histories, IntArray, LongArray

MILLISECONDS_PER_DAY = 86_400_000
DAYS_PER_MONTH = 30.44
NOT_FEATURES = ("item_id", "count")
LOGGED = ("count", "per_month", "recency_days")
HISTORY_FEATURES = ("log_count", "rating_mean", "rating_std", "rating_range", "log_per_month", "log_recency_days")
"""What ``HistorySums.features`` begins with; the share of every genre follows."""


@dataclass(frozen=True, slots=True)
class CatalogueFeatures:
    """What is known of all items, whether or not anybody has touched them."""

    genres_IG: FloatArray
    """1 where an item is of a genre, genres in alphabetical order."""
    numeric_IF: FloatArray
    """Standardised; 0 where missing. A column of which all values are alike is left out."""
    names: tuple[str, ...] = ()
    """Of the numeric columns."""

    @property
    def described_I(self) -> BoolArray:
        """Items of which anything at all is known."""
        described: BoolArray = np.concatenate([self.genres_IG, self.numeric_IF], axis=1) != 0
        return np.asarray(described.any(axis=1))


def catalogue_features(items: pa.Table) -> CatalogueFeatures:
    """From the genres, the year and every further numeric column that the item table has."""
    names = [
        field.name
        for field in items.schema
        if field.name not in NOT_FEATURES and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
    ]
    columns = [standardised(items.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)) for name in names]
    kept = {name: column for name, column in zip(names, columns, strict=True) if column.any()}
    numeric_IF = np.stack(list(kept.values()), axis=1) if kept else np.zeros((items.num_rows, 0), np.float32)
    return CatalogueFeatures(_genres(items), numeric_IF, tuple(kept))


def _genres(items: pa.Table) -> FloatArray:
    if "genres" not in items.column_names:
        return np.zeros((items.num_rows, 0), np.float32)
    lists = items.column("genres").combine_chunks()
    flat = pc.list_flatten(lists)
    rows = pc.list_parent_indices(lists).to_numpy()
    names = np.unique(flat.drop_null().to_numpy(zero_copy_only=False).astype(str))
    columns = pc.index_in(flat, pa.array(names.tolist(), flat.type))
    found = pc.is_valid(columns).to_numpy(zero_copy_only=False)
    genres_IG = np.zeros((items.num_rows, len(names)), np.float32)
    genres_IG[rows[found], columns.drop_null().to_numpy()] = 1.0
    return genres_IG


def standardised(values: DoubleArray) -> FloatArray:
    """Mean 0 and standard deviation 1 over the finite values, 0 for the others; all 0 where nothing differs."""
    finite = np.isfinite(values)
    result = np.zeros(values.shape, np.float32)
    if finite.any():
        centered = values[finite] - values[finite].mean()
        spread = centered.std()
        result[finite] = centered / spread if spread > 1e-9 * np.abs(values[finite]).max() else 0.0
    return result


def interaction_features(histories: Histories, num_items: int) -> FloatArray:
    """(I, 3) log popularity, mean and standard deviation of the ratings, standardised over the items that have any
    interactions; rows of zeros, which is the mean, for the others."""
    counts_I = np.bincount(histories.items_E, minlength=num_items)
    some_I = np.maximum(counts_I, 1)
    ratings_E = histories.ratings_E.astype(np.float64)
    mean_I = np.bincount(histories.items_E, ratings_E, minlength=num_items) / some_I
    square_I = np.bincount(histories.items_E, ratings_E**2, minlength=num_items) / some_I
    columns = (np.log1p(counts_I), mean_I, np.sqrt(np.maximum(square_I - mean_I**2, 0)))
    return np.stack([standardised(np.where(counts_I > 0, column, np.nan)) for column in columns], axis=1)


@dataclass(frozen=True, slots=True)
class HistorySums:
    """What the features of B histories are made of. Most are sums, so that events can be taken out again."""

    count_B: DoubleArray
    rating_B: DoubleArray
    square_B: DoubleArray
    genres_BG: FloatArray
    low_B: DoubleArray
    high_B: DoubleArray
    first_B: DoubleArray
    last_B: DoubleArray

    @classmethod
    def of(cls, histories: Histories, genres_IG: FloatArray) -> HistorySums:
        size, rows_E = len(histories), histories.rows_E
        ratings_E, times_E = histories.ratings_E.astype(np.float64), histories.timestamps_E.astype(np.float64)
        genres_BG = np.asarray(histories.matrix(len(genres_IG), np.ones_like(histories.ratings_E)) @ genres_IG)
        low_B, high_B = np.full(size, np.inf), np.full(size, -np.inf)
        np.minimum.at(low_B, rows_E, ratings_E)
        np.maximum.at(high_B, rows_E, ratings_E)
        first_B, last_B = np.full(size, np.inf), np.full(size, -np.inf)
        np.minimum.at(first_B, rows_E, times_E)
        np.maximum.at(last_B, rows_E, times_E)
        return cls(
            histories.lengths_B.astype(np.float64),
            np.bincount(rows_E, ratings_E, minlength=size).astype(np.float64),
            np.bincount(rows_E, ratings_E**2, minlength=size).astype(np.float64),
            genres_BG.astype(np.float32),
            low_B,
            high_B,
            first_B,
            last_B,
        )

    def rows(self, rows_P: npt.NDArray[np.integer]) -> HistorySums:
        return HistorySums(*(getattr(self, field.name)[rows_P] for field in fields(self)))

    def without(
        self,
        items_P: IntArray | LongArray,
        count_P: DoubleArray,
        rating_P: DoubleArray,
        square_P: DoubleArray,
        genres_IG: FloatArray,
    ) -> HistorySums:
        """Row p less ``count_P`` events on one item, with the sums of their ratings and squared ratings. Ranges of
        ratings and times stay those of the whole history."""
        return HistorySums(
            self.count_B - count_P,
            self.rating_B - rating_P,
            self.square_B - square_P,
            self.genres_BG - (count_P[:, None] * genres_IG[items_P]).astype(np.float32),
            self.low_B,
            self.high_B,
            self.first_B,
            self.last_B,
        )

    def numbers(self, now: float) -> dict[str, DoubleArray]:
        """(B,) each: count, rating_mean, rating_std, rating_range, per_month, recency_days; 0 for no events.

        ``now`` is the moment, in UTC milliseconds, from which recency counts back.
        """
        some_B, any_B = np.maximum(self.count_B, 1), self.count_B > 0
        mean_B = self.rating_B / some_B
        variance_B = np.maximum(self.square_B / some_B - mean_B**2, 0)
        low_B, high_B, first_B, last_B = (
            np.where(any_B, column, 0) for column in (self.low_B, self.high_B, self.first_B, self.last_B)
        )
        months_B = np.maximum((last_B - first_B) / MILLISECONDS_PER_DAY / DAYS_PER_MONTH, 1)
        recency_B = np.maximum(now - last_B, 0) / MILLISECONDS_PER_DAY
        found = {
            "count": self.count_B,
            "rating_mean": mean_B,
            "rating_std": np.sqrt(np.where(variance_B > 1e-9 * mean_B**2, variance_B, 0)),
            "rating_range": high_B - low_B,
            "per_month": self.count_B / months_B,
            "recency_days": recency_B,
        }
        return {name: np.where(any_B, values_B, 0) for name, values_B in found.items()}

    def features(self, now: float) -> FloatArray:
        """(B, F) ``HISTORY_FEATURES``, then the share of the events that is of each genre; zeros for no events."""
        numbers = self.numbers(now)
        columns = [np.log1p(numbers[name]) if name in LOGGED else numbers[name] for name in numbers]
        shares_BG = self.genres_BG / np.maximum(self.count_B, 1)[:, None]
        features_BF = np.concatenate([np.stack(columns, axis=1), shares_BG], axis=1)
        result_BF: FloatArray = (features_BF * (self.count_B > 0)[:, None]).astype(np.float32)
        return result_BF
