"""One vector per item from the vectors of its text and its poster.

D is the dimension of the texts and of what is asked for, J that of the images.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsys_ray.base.types import BoolArray, FloatArray
from recsys_ray.content.config import FusionSettings

SMALLEST_NORM = 1e-6
"""Shorter vectors point nowhere: rounding decides their direction."""

Fuse = Callable[[FloatArray, FloatArray, FusionSettings], FloatArray]


def normalized(vectors_ND: FloatArray) -> FloatArray:
    """Rows of length 1; rows that point nowhere become zero."""
    norms = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > SMALLEST_NORM)
    scaled_ND: FloatArray = (vectors_ND * scale).astype(np.float32)
    return scaled_ND


def pool(vectors_NJ: FloatArray, dim: int) -> FloatArray:
    """(N, D) from (N, J): averages of neighbouring entries when D < J (adaptive average pooling: entry d is the mean of
    floor(d J / D) to ceil((d + 1) J / D)), zeros behind when D > J, which changes no inner product."""
    rows, given = vectors_NJ.shape
    if dim >= given:
        return np.pad(vectors_NJ, ((0, 0), (0, dim - given))).astype(np.float32)
    first_D = np.arange(dim) * given // dim
    behind_D = -(-np.arange(1, dim + 1) * given // dim)
    sums_NJ1 = np.zeros((rows, given + 1))
    np.cumsum(vectors_NJ, axis=1, out=sums_NJ1[:, 1:])
    means_ND: FloatArray = ((sums_NJ1[:, behind_D] - sums_NJ1[:, first_D]) / (behind_D - first_D)).astype(np.float32)
    return means_ND


def fuse(
    text_ND: FloatArray | None,
    image_NJ: FloatArray | None,
    has_text_N: BoolArray | None,
    has_image_N: BoolArray | None,
    settings: FusionSettings,
) -> tuple[FloatArray, BoolArray]:
    """((N, D) rows of length 1, which items have one). Without a kind (None), or where an item lacks it, the other
    stands alone; an item with neither has a row of zeros. Image vectors are pooled to the dimension of the texts."""
    parts = []
    for vectors, has_N in ((text_ND, has_text_N), (image_NJ, has_image_N)):
        if vectors is not None:
            assert has_N is not None and len(has_N) == len(vectors)
            parts.append(np.where(has_N[:, None], normalized(vectors), np.float32(0)))
    assert parts, "neither texts nor images"
    if len(parts) == 1:
        fused_ND = parts[0]
    else:
        text, image = parts[0], normalized(pool(parts[1], parts[0].shape[1]))
        both = text.any(axis=1, keepdims=True) & image.any(axis=1, keepdims=True)
        fused_ND = np.where(both, _STRATEGIES[settings.strategy](text, image, settings), text + image)
        cancelled = ~fused_ND.any(axis=1, keepdims=True)
        fused_ND = np.where(cancelled, text, fused_ND)
    present_N: BoolArray = np.any(fused_ND != 0, axis=1)
    return fused_ND, present_N


def _weighted(text_ND: FloatArray, image_ND: FloatArray, settings: FusionSettings) -> FloatArray:
    return normalized(np.float32(settings.text) * text_ND + np.float32(settings.image) * image_ND)


_STRATEGIES: dict[str, Fuse] = {"weighted": _weighted}
"""By name: (N, D) texts and images, all of length 1, to (N, D) of length 1. Called for whole batches."""
