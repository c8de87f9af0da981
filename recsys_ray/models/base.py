"""What a model is, and what several models need beside their algorithm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import (
    Counts,
    FitContext,
    Histories,
    ItemContent,
    ItemLists,
    MemoryEstimate,
    Requests,
    Scorer,
    Settings,
    TrainData,
)
from recsys_ray.models.linalg.sparse import SparseRows

if TYPE_CHECKING:
    import scipy.sparse as sp

Fitted = TypeVar("Fitted", covariant=True)
Weighting = Literal["binary", "rating"]
"""What an event of a history counts: 1, or its rating."""


class Fittable(Protocol[Fitted]):
    """What ``Model.fit`` takes: it knows how its own data is prepared for a model."""

    def fitted(self, model: Model, **options: Any) -> Fitted: ...


class Model(Settings):
    """One algorithm: its settings are the fields, and the object is the estimator.

    A model never changes. What a fit gives is finished and knows everything it needs; there is no unfitted scorer.
    Adding a model is one file with a class like this, one line in ``MODELS``, and one YAML.
    """

    key: ClassVar[str]
    """``model.name`` of a configuration."""
    scorers: ClassVar[tuple[type[Scorer], ...]]
    """The kinds of scorer that a fit can give; a saved one is found again by its ``kind``."""
    predicts_ratings: ClassVar[bool] = False
    """Scores are in rating units: RMSE and MAE make sense, and the fit needs ratings that differ."""
    personal: ClassVar[bool] = True
    """Different histories get different scores."""
    ordered: ClassVar[bool] = False
    """The order of a history matters, not only which items it holds."""

    @property
    def needs_content(self) -> bool:
        """Whether the fit, with these settings, takes vectors of the items' texts and posters."""
        return False

    @property
    def weighs_ratings(self) -> bool:
        """Whether a low rating speaks for its item less than a high one does, with these settings."""
        return self.predicts_ratings or getattr(self, "weighting", "binary") == "rating"

    @property
    def content_kinds(self) -> frozenset[str]:
        """Which of these it takes apart, beside the fused ones: "text", "image"."""
        return frozenset()

    def memory(self, counts: Counts) -> MemoryEstimate:
        """What a fit on data of this size needs at its peak."""
        raise NotImplementedError

    def fit_scorer(self, data: TrainData, context: FitContext) -> Scorer:
        """Fit on the training histories.

        Raises:
            ModelError: the data or the settings give nothing that could score.
        """
        raise NotImplementedError

    def fit(self, data: Fittable[Fitted], **options: Any) -> Fitted:
        """Fit on a ``recsys_ray.Dataset``; see ``recsys_ray.fit`` for the options."""
        return data.fitted(self, **options)


def require_finite(model: str, advice: str, *arrays: npt.NDArray[Any]) -> None:
    """ModelError when any value of a fit is NaN or infinite.

    The sum is NaN or infinite when an element is: no mask is built.
    """
    for array in arrays:
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.sum(array, dtype=np.float64)
        if not np.isfinite(total):
            raise ModelError(f"{model}: the fit gave values that are not finite; {advice}")


def of_kind(content: ItemContent, kind: str, model: str) -> ItemContent:
    """The vectors of texts or posters alone. ModelError when they were not made, or when no item has one."""
    found = content.kinds.get(kind)
    if found is None or not found.present_I.any():
        raise ModelError(f"{model}: no item has a vector of its {kind}; set content.{kind}")
    return found


def strangers(histories: Histories) -> Requests:
    """What is asked for people of whom only these histories are known."""
    size = len(histories)
    return Requests(pa.nulls(size), np.full(size, -1, np.int32), histories, ItemLists.empty(size))


def history_matrix(model: str, data: TrainData, weighting: Weighting) -> sp.csr_matrix:
    """(U, I) weights of the observed pairs: 1, or the rating (of a repeated pair, their sum).

    Raises:
        ModelError: a rating is not positive and finite: it would count against the pair, or hide it.
    """
    histories = data.histories
    if weighting == "binary":
        return histories.matrix(data.num_items)
    useless_E = ~((histories.ratings_E > 0) & np.isfinite(histories.ratings_E))
    if useless_E.any():
        raise ModelError(
            f'{model}: weighting = "rating" needs positive, finite ratings, found {histories.ratings_E[useless_E][0]}; '
            'set model.weighting = "binary" or drop such rows with a rating threshold'
        )
    return histories.matrix(data.num_items, histories.ratings_E)


def history_rows(histories: Histories, num_items: int, weighting: Weighting) -> SparseRows:
    """(B, I) a history as the models read it: each item once, in item order, with 1 or the sum of its ratings."""
    matrix = histories.matrix(num_items, None if weighting == "binary" else histories.ratings_E)
    return SparseRows(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)
