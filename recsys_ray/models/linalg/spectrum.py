"""The graph of items by its frequencies: normalised interactions, their leading vectors, a step as a polynomial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from recsys_ray.base.types import BoolArray, DoubleArray, FitContext, FloatArray
from recsys_ray.models.linalg.graph import Graph
from recsys_ray.models.linalg.low_rank import leading_vectors

if TYPE_CHECKING:
    import scipy.sparse as sp


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The normalised graph with 1 as its largest singular value, and its leading vectors."""

    users_items: Graph
    items_users: Graph
    vectors_ID: FloatArray
    scales_I: FloatArray
    trained_I: BoolArray

    @classmethod
    def of(
        cls, users_items: sp.csr_matrix, powers: tuple[float, float, float], dim: int, context: FitContext
    ) -> Spectrum:
        """Of binary interactions (U, I), with the powers a, b, p and at most ``dim`` vectors."""
        a, b, p = powers
        of_users_U = np.diff(users_items.indptr)
        of_items_I = np.bincount(users_items.indices, minlength=users_items.shape[1])
        normal = (
            users_items.multiply(degree_powers(of_users_U, -a)[:, None]).multiply(degree_powers(of_items_I, -b)).tocsr()
        )
        context.progress(f"graph_filter: leading vectors of {users_items.shape[1]} items")
        vectors_ID = leading_vectors(normal, max(1, min(dim, min(users_items.shape) // 8)), context)
        largest = np.linalg.norm(normal @ vectors_ID[:, 0]) if vectors_ID.size else 1.0
        normal = (normal / np.float32(largest)).astype(np.float32)
        return cls(
            Graph.rows_of(normal),
            Graph.rows_of(normal.T.tocsr()),
            vectors_ID,
            degree_powers(of_items_I, p),
            np.asarray(of_items_I > 0),
        )


def step_coefficients(order: int, flatness: float) -> DoubleArray:
    """(order + 1,) c_k of the polynomial ``sum of c_k T_k(x)`` that meets the step h at the zeros of T_(order + 1)."""
    angles_K = (np.arange(order + 1) + 0.5) * np.pi / (order + 1)
    nodes_K = np.cos(angles_K)
    steps_K = (1 + np.sign(nodes_K) * np.abs(nodes_K) ** flatness) / 2
    # At these nodes the T_k are orthogonal: each coefficient is a mean.
    found_K = 2 * np.cos(np.outer(np.arange(order + 1), angles_K)) @ steps_K / (order + 1)
    found_K[0] /= 2
    return np.asarray(found_K, np.float64)


def degree_powers(degrees: npt.NDArray[np.integer], power: float) -> FloatArray:
    """degree^power; rows without entries are never used and get 1."""
    found: FloatArray = (np.maximum(degrees, 1).astype(np.float64) ** power).astype(np.float32)
    return found
