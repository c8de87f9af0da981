"""Settings that every source of data shares: row filters, k-core, duplicates, the split."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from recsys_ray.base.proportion import MOST
from recsys_ray.base.types import Settings

IdType = Literal["auto", "int64", "string"]


def _iso(value: Any) -> Any:
    # YAML turns an unquoted 2020-01-31 into a date.
    return value.isoformat() if isinstance(value, datetime.date) else value


def utc_milliseconds(text: str) -> int:
    """An ISO 8601 date or time as UTC milliseconds; without an offset it is taken as UTC.

    Raises:
        ValueError: not ISO 8601.
    """
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return round(moment.timestamp() * 1000)


def _moment(text: str) -> str:
    try:
        utc_milliseconds(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not an ISO date such as 2019-07-01 or 2019-07-01T12:00:00Z") from error
    return text


Moment = Annotated[str, BeforeValidator(lambda value: _moment(_iso(value)) if isinstance(_iso(value), str) else value)]
Ratio = Annotated[float, Field(ge=0, lt=1)]


class FilterSettings(Settings):
    """What is left out before anything is learned."""

    min_rating: float | None = None
    """Interactions rated lower are never learned from and never a target, but are still filtered as seen."""
    start: Moment | None = None
    """Learn from interactions at or after this moment (ISO date, UTC); older ones are still filtered as seen."""
    end: Moment | None = None
    """Learn from interactions before this moment (ISO date, UTC); later ones are still filtered as seen."""
    future: Literal["seen", "keep"] = "seen"
    """What becomes of interactions more than a day ahead of the clock. seen: never learned from and never a target, so
    that all that counts back from the newest does so from a moment that was; keep: taken as they are, for data whose
    times were shifted."""
    duplicates: Literal["last", "first", "max", "sum", "keep", "error"] = "last"
    """Which interaction of a repeated (user, item) pair stays. max: the one of the highest rating, the last of equal
    ones. sum: the last, rated the sum of all."""
    normalize: Literal["none", "centered", "z_score"] = "none"
    """Ratings by each user's own measure, of the training part: less the mean, or that divided by the deviation, where
    there is one. min_rating looks at the ratings as they are given; rating errors are then in these units."""
    newest_per_user: int | None = Field(default=None, ge=1)
    """Only so many of a user's newest positive interactions teach; older ones are still filtered as seen."""
    k_core_users: int = Field(default=0, ge=0)
    """Remove users with fewer positive interactions, together with k_core_items until neither removes more."""
    k_core_items: int = Field(default=0, ge=0)
    """Remove items with fewer positive interactions. 0 keeps every catalogue item, also those never touched."""

    @model_validator(mode="after")
    def _window(self) -> FilterSettings:
        if self.start and self.end and utc_milliseconds(self.start) >= utc_milliseconds(self.end):
            raise ValueError(f"start={self.start} must be before end={self.end}")
        return self


class NoSplit(Settings):
    """Everything is training data."""

    kind: Literal["none"] = "none"


class GivenSplit(Settings):
    """The parts are the source's own files."""

    kind: Literal["given"]
    order: Literal["consecutive", "interleaved"] = "consecutive"
    """How events of equal or no timestamps lie in a user's history. consecutive: train, then validation, then test.
    interleaved: each file's spread evenly over the whole, for files that were drawn from a history at random."""


class _Ratios(Settings):
    test_ratio: Ratio = 0.2
    """Share that becomes the test part."""
    valid_ratio: Ratio = 0.0
    """Share that becomes the validation part."""

    @model_validator(mode="after")
    def _leaves_train(self) -> _Ratios:
        if self.test_ratio + self.valid_ratio >= 1:
            raise ValueError(f"test_ratio + valid_ratio must be below 1, is {self.test_ratio + self.valid_ratio:g}")
        return self


class RandomSplit(_Ratios):
    """A share of every user's positives, by a hash of (seed, user, item): the same whatever the sharding.

    A user with n positives gives ``floor(n * test_ratio + 1/2)`` to test, then ``floor(n * valid_ratio + 1/2)`` to
    validation, but always keeps at least one for training.
    """

    kind: Literal["random"]


class KFold(Settings):
    """Positives dealt into folds at random, by a hash of (seed, user, item): each fold is the test part once.

    ``recsys-ray run`` evaluates all folds and reports the mean and the spread over them; what is published has seen
    everything. A user may have nothing left to learn from in some fold, as in the published folds of MovieLens 100K.
    """

    kind: Literal["k_fold"]
    folds: int = Field(default=5, ge=2, le=100)
    """How many parts."""
    fold: int | None = Field(default=None, ge=0)
    """The one that is test, counted from 0; null for each in turn."""

    @model_validator(mode="after")
    def _is_one(self) -> KFold:
        if self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"fold={self.fold} is none of folds={self.folds}; they count from 0")
        return self


class LastShare(_Ratios):
    """The last share of every user's positives, as many as ``random`` takes; the validation share lies before it."""

    kind: Literal["last_share"]


class LeaveLastOut(Settings):
    """The last positive of a user is test, the one before it validation; shorter histories stay in train."""

    kind: Literal["leave_last_out"]
    valid: bool = True
    """Whether to hold out the last but one for validation."""
    min_history: int = Field(default=3, ge=2)
    """Users with fewer positives are not held out from."""

    @model_validator(mode="after")
    def _leaves_train(self) -> LeaveLastOut:
        if self.valid and self.min_history < 3:
            raise ValueError(
                f"min_history={self.min_history} leaves nothing to train on; set 3 or more, or valid=false"
            )
        return self


class TemporalSplit(Settings):
    """One cut in time for everybody: later is test. By a share of the positives, or at a given date.

    By share, the cut is the time of the first held-out positive when all N are ordered by time (number
    ``floor(N * (1 - ratio))``, counting from 0); everything at that very millisecond goes with it.
    """

    kind: Literal["temporal"]
    test_ratio: Ratio | None = None
    """Share of the latest positives that becomes test; 0.2 when no date is given either."""
    valid_ratio: Ratio = 0.0
    """Share of the positives just before them that becomes validation."""
    test_from: Moment | None = None
    """Test starts here (ISO date, UTC), instead of test_ratio."""
    valid_from: Moment | None = None
    """Validation runs from here to the start of test, instead of valid_ratio."""

    @model_validator(mode="after")
    def _leaves_train(self) -> TemporalSplit:
        by_date, by_share = self.test_from or self.valid_from, self.test_ratio is not None or self.valid_ratio > 0
        if by_date and by_share:
            raise ValueError("set test_ratio and valid_ratio, or test_from and valid_from, not a mixture")
        if self.valid_from and not self.test_from:
            raise ValueError("valid_from needs test_from")
        if self.valid_from and self.test_from and utc_milliseconds(self.valid_from) >= utc_milliseconds(self.test_from):
            raise ValueError(f"valid_from={self.valid_from} must be before test_from={self.test_from}")
        if self.ratio_of_test + self.valid_ratio >= 1:
            raise ValueError("test_ratio + valid_ratio must be below 1")
        return self

    @property
    def ratio_of_test(self) -> float:
        return 0.2 if self.test_ratio is None else self.test_ratio


class ColdItems(_Ratios):
    """A seeded share of the items with positives: all interactions with them are held out."""

    kind: Literal["cold_items"]


class ColdUsers(_Ratios):
    """A seeded share of the users is new: no model learns from them. The first of their positives are what is known
    when they are asked about, the rest is held out."""

    kind: Literal["cold_users"]
    shown: float = Field(default=0.8, ge=0, lt=1)
    """Share of such a user's positives, the oldest, that is known; at least one is held out. 0: nothing is known."""


SplitConfig = Annotated[
    NoSplit | GivenSplit | RandomSplit | KFold | LastShare | LeaveLastOut | TemporalSplit | ColdItems | ColdUsers,
    Field(discriminator="kind"),
]


class DataSettings(Settings):
    """The part of ``data:`` that does not depend on the source."""

    filters: FilterSettings = FilterSettings()
    split: SplitConfig = NoSplit()
    shards: int | None = Field(default=None, ge=1, le=2048)
    """Files the users are hashed into; by default one per 200,000 interactions, at least 8."""
    id_type: IdType = "auto"
    """Type of user and item ids: auto keeps what a Parquet file declares, and takes text ids as int64 when all are."""
    feedback: str | None = None
    """Directory of interactions that the online service has taken (<output>/feedback of the run it served): they come
    behind the source's own, with new users and items where they name such. It may not exist yet."""
    bad_rows: Literal["error", "drop"] = "error"
    """What to do with a row whose id, rating or time can't be read; drop: it is left out, counted, and told."""
    bad_rows_at_most: float = Field(default=0.01, ge=0, le=1)
    """Share of all rows that bad_rows=drop may leave out; more is an error."""
    unknown_items: Literal["error", "drop", "add"] = "error"
    """What to do with interactions whose item is not in a given catalogue; add: as an item without title."""
    left_out_at_most: float = Field(default=MOST, ge=0, le=1)
    """Share of the interactions that unknown_items=drop may drop, and that may lie in the future; more is an error."""

    @property
    def gives_parts(self) -> bool:
        """Whether the source's files say what is train and what is test."""
        return False

    @model_validator(mode="after")
    def _possible(self) -> DataSettings:
        if self.split.kind == "given" and not self.gives_parts:
            raise ValueError("split.kind=given needs train and test files; this source has none")
        if self.split.kind == "given" and self.feedback is not None:
            raise ValueError("feedback belongs to none of the parts of split.kind=given; set another split, or none")
        if self.split.kind in ("random", "k_fold") and self.filters.duplicates == "keep":
            raise ValueError(
                f"split.kind={self.split.kind} with filters.duplicates=keep would put one pair into train and test; "
                "set filters.duplicates=last"
            )
        return self


class FeatureSettings(Settings):
    """Tables of features, which ``recsys-ray features`` writes for other programs."""

    parts: list[Literal["train", "valid", "test"]] = Field(default=["train"], min_length=1)
    """Parts of the split whose events describe users and items."""
    top_genres: int = Field(default=3, ge=0)
    """Genres that a user is described by, at most."""
