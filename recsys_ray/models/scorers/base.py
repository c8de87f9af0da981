"""What item vectors and histories tell without a model: inner products, likeness, and who is known at all; and the
scorers that need no more than that beside their queries.

Arrays may be read-only memory maps shared by many processes: they are never written to and never copied whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import ClassVar, Protocol, Self, runtime_checkable

import numpy as np

from recsys_ray.base.types import BoolArray, FloatArray, Histories, IntArray, ItemVectors, Requests, Scorer

NO_OPINION = np.float32(-np.inf)


class KnowingScorer:
    """A scorer that has learned about some items, and about some users by themselves: who is neither of these users nor
    has any of these items is not answered."""

    personal: ClassVar[bool] = True
    scorable_I: BoolArray
    known_U: BoolArray = np.zeros(0, np.bool_)
    """Users of the fit who have a row of their own."""

    @property
    def num_items(self) -> int:
        return len(self.scorable_I)

    def answers(self, requests: Requests) -> BoolArray:
        answered_B: BoolArray = has_stored_row(requests, self.known_U) | knows_item(requests.histories, self.scorable_I)
        return answered_B


class VectorScorer(KnowingScorer):
    """``query . item + bias``; what a query is, the subclass says."""

    items_ID: FloatArray
    bias_I: FloatArray | None = None

    @property
    def items(self) -> ItemVectors:
        return ItemVectors(self.items_ID, self.bias_I)

    def queries(self, requests: Requests) -> FloatArray:
        """(B, D) one for each request."""
        raise NotImplementedError

    def score(self, requests: Requests) -> FloatArray:
        return inner_products(self.queries(requests), self.items)

    def similar(self, items_R: IntArray) -> FloatArray:
        return cosines(self.items.vectors_ID, items_R, self.scorable_I)


class ReplaceableItems(VectorScorer):
    """A scorer that keeps its queries whatever the items are: the protocol ``TakesItems``."""

    def with_items(self, items: ItemVectors) -> Self:
        """The same scorer with other item vectors; queries stay as they are."""
        changed = copy(self)
        changed.items_ID, changed.bias_I = items.vectors_ID, items.bias_I
        return changed


def knows_item(histories: Histories, known_I: BoolArray) -> BoolArray:
    """(B,) whether a history holds at least one of the known items."""
    known_B: BoolArray = histories.per_row(known_I[histories.items_E]) > 0
    return known_B


def has_stored_row(requests: Requests, known_U: BoolArray) -> BoolArray:
    """(B,) which requests are of a user of the fit who has a row there; U users."""
    if len(known_U) == 0:
        return np.zeros(len(requests), np.bool_)
    stored: BoolArray = (requests.users_B >= 0) & known_U[requests.users_B]
    return stored


@runtime_checkable
class HasMembers(Protocol):
    """A scorer whose scores are sums over members."""

    @property
    def members(self) -> Mapping[str, Scorer]: ...

    def shares(self, requests: Requests, rows_BK: IntArray) -> FloatArray:
        """(M, B, K) what each member adds to the score of each listed item; 0 where there is no item (-1)."""
        ...


def inner_products(queries_BD: FloatArray, items: ItemVectors) -> FloatArray:
    """(B, I) the scores that queries and item vectors stand for."""
    scores_BI: FloatArray = queries_BD @ items.vectors_ID.T
    if items.bias_I is not None:
        scores_BI += items.bias_I
    return scores_BI


def cosines(items_ID: FloatArray, items_R: IntArray, known_I: BoolArray) -> FloatArray:
    """(R, I) cosine of item vectors; -inf at the item itself, and where either item is unknown or of no length.

    A dimension in which all known items agree says nothing about which are alike and is left out: a rating model's
    constant that faces the users' bias would bring all items together.
    """
    first = int(np.argmax(known_I)) if len(known_I) else 0
    differs_D = ((items_ID != items_ID[first : first + 1]) & known_I[:, None]).any(axis=0).astype(np.float32)
    queries_RD = items_ID[items_R] * differs_D
    lengths_I = np.sqrt(np.einsum("id,id,d->i", items_ID, items_ID, differs_D))
    scores_RI: FloatArray = queries_RD @ items_ID.T
    with np.errstate(divide="ignore", invalid="ignore"):
        scores_RI /= lengths_I[items_R, None]
        scores_RI /= lengths_I
    return comparable(scores_RI, items_R, known_I & (lengths_I > 0))


def comparable(scores_RI: FloatArray, items_R: IntArray, known_I: BoolArray) -> FloatArray:
    """The same block, in place, with -inf at the item itself and where either item is unknown."""
    scores_RI[:, ~known_I] = NO_OPINION
    scores_RI[~known_I[items_R]] = NO_OPINION
    scores_RI[np.arange(len(items_R)), items_R] = NO_OPINION
    return scores_RI


def with_length_power(vectors_ID: FloatArray, power: float) -> FloatArray:
    """Every vector with its length raised to a power; zeros stay."""
    lengths_I = np.linalg.norm(vectors_ID, axis=1, keepdims=True)
    return np.asarray(vectors_ID * np.maximum(lengths_I, np.finfo(np.float32).tiny) ** (power - 1), np.float32)
