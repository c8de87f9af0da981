"""Where the trained vectors of users and items begin.

N = U + I: users, then items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from recsys_ray.base.types import FitContext, FloatArray
from recsys_ray.models.linalg.graph import normalised_interactions
from recsys_ray.models.pure_svd import right_singular_vectors

if TYPE_CHECKING:
    import scipy.sparse as sp

RANK_TOLERANCE = 1e-4  # singular values below, relative to the largest, are rounding


class InitialSettings(Protocol):
    """What the settings of a model say about its start."""

    @property
    def embedding_dim(self) -> int: ...

    @property
    def initialization(self) -> Literal["spectral", "normal"]: ...

    @property
    def initial_std(self) -> float: ...


def initial_embeddings(users_items: sp.csr_matrix, config: InitialSettings, context: FitContext) -> FloatArray:
    """(N, D) where the training starts, users first.

    ``spectral`` gives U S^1/2 for users and V S^1/2 for items, where U S V' is the closest matrix of rank D to the
    normalised interactions; columns beyond their rank stay random.
    """
    num_users, num_items = users_items.shape
    shape = (num_users + num_items, config.embedding_dim)
    initial_ND: FloatArray = context.rng().standard_normal(shape, np.float32) * np.float32(config.initial_std)
    if config.initialization == "spectral" and users_items.nnz:
        normalised = normalised_interactions(users_items)
        items_ID = right_singular_vectors(normalised, config.embedding_dim, context)
        users_UD = normalised @ items_ID
        values_D = np.linalg.norm(users_UD, axis=0)
        kept = values_D > RANK_TOLERANCE * values_D[0]
        roots = np.sqrt(values_D[kept])
        leading = np.concatenate([users_UD[:, kept] / roots, items_ID[:, kept] * roots])
        initial_ND[:, : leading.shape[1]] = leading * (config.initial_std / leading.std())
    return initial_ND
