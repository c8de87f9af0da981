"""What several models need beside their algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import Histories, TrainData
from recsys_ray.models.linalg.sparse import SparseRows


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What a fit needs at its peak beside the training data itself, and what to change when that is too much."""

    bytes: int
    advice: str


def require_finite(model: str, advice: str, *arrays: npt.NDArray[Any]) -> None:
    """ModelError when any value of a fit is NaN or infinite.

    The sum is NaN or infinite when an element is: no mask is built.
    """
    for array in arrays:
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.sum(array, dtype=np.float64)
        if not np.isfinite(total):
            raise ModelError(f"{model}: the fit gave values that are not finite; {advice}")


def history_matrix(model: str, data: TrainData, weighting: Literal["binary", "rating"]) -> sp.csr_matrix:
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


def history_rows(histories: Histories, num_items: int, weighting: Literal["binary", "rating"]) -> SparseRows:
    """(B, I) a history as the models read it: each item once, in item order, with 1 or the sum of its ratings."""
    matrix = histories.matrix(num_items, None if weighting == "binary" else histories.ratings_E)
    return SparseRows(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)
