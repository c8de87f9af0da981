"""Item vectors as points of a plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys_ray.base.types import DoubleArray, FloatArray

KEPT_BY_PCA = 50
"""Directions handed to t-SNE: the rest is mostly noise, and distances cost less."""
PERPLEXITY = 30.0
FEWEST_FOR_TSNE = 10
"""With fewer items, neighbourhoods of the default size don't exist."""


@dataclass(frozen=True, slots=True)
class Projection:
    points_R2: DoubleArray
    method: str
    """What was done, as a caption says it."""


def project(vectors_RD: FloatArray, method: str, seed: int) -> Projection:
    """Principal components (pca), or t-SNE of them (tsne; van der Maaten & Hinton 2008); a small sample is always pca.

    The same vectors and seed give the same points.
    """
    # scikit-learn takes seconds to import, and nothing else here needs it.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    num_items, dim = vectors_RD.shape
    kept = min(KEPT_BY_PCA, num_items, dim)
    with np.errstate(invalid="ignore"):  # equal vectors have no variance to share out
        pca = PCA(kept, svd_solver="full").fit(vectors_RD)
    directions = np.asarray(pca.transform(vectors_RD), np.float64)
    if method == "tsne" and num_items >= FEWEST_FOR_TSNE:
        perplexity = min(PERPLEXITY, (num_items - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init=_start(directions), random_state=seed, n_jobs=1)
        caption = f"t-SNE, perplexity {perplexity:.3g}, of the first {kept} principal components"
        return Projection(np.asarray(tsne.fit_transform(directions), np.float64), caption)
    points = np.zeros((num_items, 2))
    points[:, : min(2, kept)] = directions[:, :2]
    explained = np.nan_to_num(pca.explained_variance_ratio_[:2]).sum()
    return Projection(points, f"first two principal components, which hold {explained:.0%} of the variance")


def _start(directions_RD: DoubleArray) -> FloatArray:
    """The first two principal components, scaled to the spread that t-SNE starts from."""
    start = np.zeros((len(directions_RD), 2))
    start[:, : directions_RD.shape[1]] = directions_RD[:, :2]
    return (1e-4 * start / max(float(start[:, 0].std()), 1e-12)).astype(np.float32)
