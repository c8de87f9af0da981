"""The types that rooms hand each other, and the letters that array names end in (SUFFIXES). No algorithm, no Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from recsys_ray.base.arrays import SUFFIXES as SUFFIXES
from recsys_ray.base.arrays import BoolArray as BoolArray
from recsys_ray.base.arrays import ByteArray as ByteArray
from recsys_ray.base.arrays import DoubleArray as DoubleArray
from recsys_ray.base.arrays import FloatArray as FloatArray
from recsys_ray.base.arrays import IntArray as IntArray
from recsys_ray.base.arrays import LongArray as LongArray
from recsys_ray.base.requests import Histories as Histories
from recsys_ray.base.requests import ItemLists as ItemLists
from recsys_ray.base.requests import Requests as Requests

Block = TypeVar("Block")
Result = TypeVar("Result")


class Settings(BaseModel):
    """Base of every part of the configuration: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, strict=True)


@dataclass(frozen=True, slots=True)
class ItemContent:
    """What the items' texts and posters say, as vectors in vocabulary order; ``present_I`` have one."""

    vectors_ID: FloatArray
    """L2-normalised; a row of zeros where the item has no vector."""
    present_I: BoolArray
    kinds: Mapping[str, ItemContent] = field(default_factory=dict)
    """Those of text and image apart, as far as ``Model.content_kinds`` asks for them."""


@dataclass(frozen=True, slots=True)
class TrainData:
    """What a fit sees: the training histories of all U users in row order, and the catalogue in vocabulary order."""

    histories: Histories
    items: pa.Table
    content: ItemContent | None = None
    attributes: pa.Table | None = None
    """What the table of users says of each, in row order; None without such a table."""

    @property
    def num_users(self) -> int:
        return len(self.histories)

    @property
    def num_items(self) -> int:
        return int(self.items.num_rows)

    @property
    def num_interactions(self) -> int:
        return self.histories.num_interactions

    def item_counts(self) -> LongArray:
        """(I,) training interactions per item."""
        return np.bincount(self.histories.items_E, minlength=self.num_items)


@dataclass(frozen=True, slots=True)
class Counts:
    """The sizes a memory prediction needs, known before anything is fitted."""

    num_users: int
    num_items: int
    num_interactions: int
    num_pairs: int
    """Sum over users of (history length)^2: an upper bound on the non-zeros of an item-item product."""


class MapBlocks(Protocol):
    """``[fn(block, shared) for block in blocks]``, in order, lazily, possibly on many machines.

    ``fn`` is a module-level function; ``shared`` travels once. ``label`` names the work in progress lines.
    """

    def __call__(
        self, fn: Callable[[Any, Any], Result], blocks: Iterable[Any], shared: Any = None, label: str | None = None
    ) -> Iterator[Result]: ...


def map_blocks_here(
    fn: Callable[[Any, Any], Result], blocks: Iterable[Any], shared: Any = None, label: str | None = None
) -> Iterator[Result]:
    """The builtin map as a ``MapBlocks``: this process, one block after the other."""
    return (fn(block, shared) for block in blocks)


class RunWorkers(Protocol):
    """``fn(shared, worker)`` in every one of the workers that train together; the answer of the first.

    ``fn`` is a module-level function, ``shared`` travels once, ``worker`` is a ``training.Worker``. ``key`` names the
    training: under the same key a run that was killed finds its checkpoints.
    """

    def __call__(self, fn: Callable[[Any, Any], Result], shared: Any, key: str) -> Result: ...


@dataclass(frozen=True, slots=True)
class FitContext:
    """What changes a run but not the meaning of a model; ``map_blocks`` works on ``num_blocks`` at once."""

    seed: int = 0
    map_blocks: MapBlocks = map_blocks_here
    num_blocks: int = 1
    progress: Callable[[str], None] = field(default=lambda message: None)
    run_workers: RunWorkers | None = None
    """Where a neural model is trained; None is in this process alone, without checkpoints."""
    epochs: list[dict[str, float]] = field(default_factory=list)  # measured after each, by the fit

    def rng(self, *keys: int) -> np.random.Generator:
        """An independent stream for (seed, keys)."""
        return np.random.default_rng([self.seed, *keys])


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What a fit needs at its peak beside the training data itself, and what to change when that is too much."""

    bytes: int
    advice: str


@dataclass(frozen=True, slots=True)
class ItemVectors:
    """The items' side of scores that are inner products: ``query . vectors_ID[item] + bias_I[item]``."""

    vectors_ID: FloatArray
    bias_I: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class ScorerState:
    """All of a scorer that must be saved: named arrays and JSON-ready settings. No code, no pickle."""

    arrays: dict[str, npt.NDArray[Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Scorer] = field(default_factory=dict)
    """The scorers that this one is made of; each is saved with it, under its name here."""


@runtime_checkable
class Scorer(Protocol):
    """A finished model: requests in, scores out. It neither masks, sorts, nor knows outside ids."""

    kind: ClassVar[str]
    """The name under which it is saved and found again."""

    @property
    def personal(self) -> bool:
        """Different histories get different scores."""
        ...

    @property
    def num_items(self) -> int: ...

    @property
    def scorable_I(self) -> BoolArray:
        """Items the model has learned something about; the others are never answered with source "model"."""
        ...

    def answers(self, requests: Requests) -> BoolArray:
        """(B,) whether the model knows anything about this request; where not, the fallback answers alone."""
        ...

    def score(self, requests: Requests) -> FloatArray:
        """(B, I) scores, higher is better; -inf where the model has no opinion on the pair."""
        ...

    def similar(self, items_R: IntArray) -> FloatArray:
        """(R, I) how alike every item is to each of these; -inf at the item itself and where the model can't tell."""
        ...

    def state(self) -> ScorerState: ...

    @classmethod
    def from_state(cls, state: ScorerState) -> Scorer: ...


class InnerProductScorer(Scorer, Protocol):
    """A scorer whose score is ``queries @ items.vectors_ID.T + items.bias_I``: its lists come from an index."""

    @property
    def items(self) -> ItemVectors: ...

    def queries(self, requests: Requests) -> FloatArray:
        """(B, D) the query of each request; it does not depend on the requests beside it."""
        ...


def by_inner_product(scorer: Scorer) -> InnerProductScorer | None:
    """The scorer itself when it has item vectors (``items`` is there and not None), else None."""
    return cast(InnerProductScorer, scorer) if getattr(scorer, "items", None) is not None else None


# What some scorers can do beside. Whoever wants it asks for the protocol, never for a class.


@runtime_checkable
class ScoresPairs(Protocol):
    """Scores listed items alone, for less than a whole block of scores costs."""

    def score_pairs(self, requests: Requests, rows_BK: IntArray) -> FloatArray:
        """(B, K) scores of the listed items for their requests, -inf where it has no opinion or the item is -1."""
        ...


@runtime_checkable
class Contributes(Protocol):
    """Its scores come apart into the items of a history."""

    def contributions(self, history: Histories, rows_K: IntArray) -> tuple[IntArray, DoubleArray] | None:
        """(H,) distinct items of one history, and (H, K) how much lower the score of each of ``rows_K`` would be
        without each. None where they don't come apart after all."""
        ...


@runtime_checkable
class TakesItems(Protocol):
    """Scores other items by their vectors as it scores its own."""

    def with_items(self, items: ItemVectors) -> Scorer:
        """The same scorer with other item vectors; queries stay as they are."""
        ...


@runtime_checkable
class SumsHistories(Protocol):
    """``history x W``: its scores are sums over a history, without item vectors."""

    def apply_to(self, map_IJ: FloatArray) -> FloatArray:
        """(I, J) ``W @ map``, a pair without an entry being 0: what one event adds to the image of the scores."""
        ...

    def add_up(self, histories: Histories, rows_IJ: FloatArray) -> FloatArray:
        """(B, J) the sum over a history of the rows of its items, each event counting as it does in the scores."""
        ...

    def losses(self, history: Histories, rows_IJ: FloatArray) -> tuple[IntArray, DoubleArray]:
        """(H,) distinct items of one history, and (H, J) how much lower ``add_up`` would be without each."""
        ...
