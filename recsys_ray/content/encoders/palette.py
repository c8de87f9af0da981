"""An image encoder without weights: which colours, where, and which edges, where.

Four blocks, each with the same share of the vector:

- colour: mean and spread of the three channels over the whole image;
- layout: the mean colour of every cell of a grid, less that of the image (after the colour layout descriptor of
  MPEG-7: Kasutani, Yamada, "The MPEG-7 Color Layout Descriptor", ICIP 2001; means in place of its cosine transform);
- histogram: square roots of the shares of colour bins (hue and lightness; greys by lightness), so that inner products
  are Bhattacharyya coefficients;
- edges: square roots of the shares of gradient orientations per cell, weighted by strength (after Dalal, Triggs,
  "Histograms of Oriented Gradients for Human Detection", CVPR 2005).

Colours are those of Oklab (Ottosson, 2020), in which equal steps look equal. From each block a constant is subtracted:
what an average picture has there. So unrelated pictures have a cosine near 0, not near 1.

J are the bins of a histogram.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys_ray.base.types import FloatArray

VERSION = 1
WIDTH, HEIGHT = 64, 96
"""Pixels that every image is squeezed into; film posters are 2 : 3."""
ROWS, COLUMNS = 6, 4
HUES, LIGHTNESSES, GREYS = 12, 3, 6
ORIENTATIONS = 6
BLOCK = 32
"""Images described at once: few enough to stay in the cache."""

GREY_CHROMA = 0.04
"""Below this distance from the grey axis a colour counts as grey."""
TYPICAL_COLOUR = np.array([0.5, 0.0, 0.0, 0.2, 0.03, 0.03], np.float32)
COLOUR_SPREAD = np.array([0.15, 0.03, 0.04, 0.07, 0.02, 0.02], np.float32)
LAYOUT_SPREAD = np.array([0.15, 0.03, 0.03], np.float32)
FAINT = 0.002
"""Mean difference of lightness below which edges count less: the noise of a blank image has directions too."""
TYPICAL_SHARE_ROOT, TYPICAL_GREY_ROOT = 0.065, 0.17
TYPICAL_EDGE_ROOT = 0.075
COLOUR_NORM, LAYOUT_NORM, HISTOGRAM_NORM, EDGES_NORM = 2.4, 8.5, 0.9, 0.42
"""Usual lengths of the four blocks."""

NUM_COLOURS = HUES * LIGHTNESSES + GREYS
NUM_EDGES = ROWS * COLUMNS * ORIENTATIONS
DIM = 6 + 3 * ROWS * COLUMNS + NUM_COLOURS + NUM_EDGES

LMS_OF_RGB = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
    np.float32,
)
LAB_OF_LMS = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
    np.float32,
)


def describe(images: npt.NDArray[np.uint8]) -> FloatArray:
    """(N, D) rows of length 1 from (N, HEIGHT, WIDTH, 3) RGB."""
    assert images.shape[1:] == (HEIGHT, WIDTH, 3)
    blocks = [_describe(images[start : start + BLOCK]) for start in range(0, len(images), BLOCK)]
    return np.concatenate([np.zeros((0, DIM), np.float32), *blocks])


def _describe(images: npt.NDArray[np.uint8]) -> FloatArray:
    lab_NYX3 = oklab(images)
    colour_N6 = np.concatenate([lab_NYX3.mean(axis=(1, 2)), lab_NYX3.std(axis=(1, 2))], axis=1)
    typical_J = np.repeat([TYPICAL_SHARE_ROOT, TYPICAL_GREY_ROOT], [HUES * LIGHTNESSES, GREYS])
    blocks = (
        (colour_N6 - TYPICAL_COLOUR) / COLOUR_SPREAD / COLOUR_NORM,
        _layout(lab_NYX3, colour_N6[:, :3]) / LAYOUT_NORM,
        (_histogram(lab_NYX3) - typical_J) / HISTOGRAM_NORM,
        (_edges(lab_NYX3[..., 0]) - TYPICAL_EDGE_ROOT) / EDGES_NORM,
    )
    vectors_ND = np.concatenate(blocks, axis=1, dtype=np.float32)
    norms = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    described_ND: FloatArray = vectors_ND / np.maximum(norms, np.finfo(np.float32).tiny)
    return described_ND


def oklab(images: npt.NDArray[np.uint8]) -> FloatArray:
    """(..., 3) lightness 0 to 1, green to red and blue to yellow about -0.4 to 0.4, from (..., 3) sRGB bytes."""
    value_256 = np.arange(256) / 255
    linear_256 = np.where(value_256 <= 0.04045, value_256 / 12.92, ((value_256 + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(linear_256.astype(np.float32)[images] @ LMS_OF_RGB.T)
    lab: FloatArray = cones @ LAB_OF_LMS.T
    return lab


def _layout(lab_NYX3: FloatArray, mean_N3: FloatArray) -> FloatArray:
    """(N, rows * columns * 3) colours of the cells, less the image's own, in units of their usual spread."""
    images = len(lab_NYX3)
    cells = lab_NYX3.reshape(images, ROWS, HEIGHT // ROWS, COLUMNS, WIDTH // COLUMNS, 3).mean(axis=(2, 4))
    layout: FloatArray = ((cells - mean_N3[:, None, None]) / LAYOUT_SPREAD).reshape(images, -1)
    return layout


def _histogram(lab_NYX3: FloatArray) -> FloatArray:
    """(N, J) square roots of the shares of the colours: hues by lightness, then greys."""
    light, red, yellow = np.moveaxis(lab_NYX3, -1, 0)
    colour = _steps(_turns(yellow, red, 2 * np.pi), HUES) * LIGHTNESSES + _steps(light, LIGHTNESSES)
    grey = HUES * LIGHTNESSES + _steps(light, GREYS)
    bins_NYX = np.where(np.hypot(red, yellow) < GREY_CHROMA, grey, colour)
    roots_NJ: FloatArray = np.sqrt(_sums(bins_NYX, NUM_COLOURS) / (HEIGHT * WIDTH))
    return roots_NJ


def _edges(light_NYX: FloatArray) -> FloatArray:
    """(N, rows * columns * orientations) square roots of the shares of edge strength."""
    across = np.zeros_like(light_NYX)
    down = np.zeros_like(light_NYX)
    across[:, :, 1:-1] = light_NYX[:, :, 2:] - light_NYX[:, :, :-2]
    down[:, 1:-1] = light_NYX[:, 2:] - light_NYX[:, :-2]
    # Turned by half a step: upright and level edges, the commonest, lie in the middle of a bin, not between two.
    orientation = _steps((_turns(down, across, np.pi) + 0.5 / ORIENTATIONS) % 1, ORIENTATIONS)
    row = np.arange(HEIGHT)[:, None] // (HEIGHT // ROWS)
    column = np.arange(WIDTH)[None] // (WIDTH // COLUMNS)
    strength_NYX = np.hypot(across, down)
    sums_NJ = _sums((row * COLUMNS + column) * ORIENTATIONS + orientation, NUM_EDGES, strength_NYX)
    totals = np.maximum(sums_NJ.sum(axis=1, keepdims=True), FAINT * HEIGHT * WIDTH)
    roots_NJ: FloatArray = np.sqrt(sums_NJ / totals)
    return roots_NJ


def _turns(up: FloatArray, right: FloatArray, whole: float) -> FloatArray:
    """The angle of a direction as a part of a whole turn, 0 to 1."""
    return (np.arctan2(up, right) / whole % 1).astype(np.float32)


def _steps(value: FloatArray, steps: int) -> npt.NDArray[np.int64]:
    """Values from 0 to 1 as 0 to steps - 1."""
    return np.clip(value * steps, 0, steps - 1).astype(np.int64)


def _sums(bins_NYX: npt.NDArray[np.int64], num_bins: int, weights_NYX: FloatArray | None = None) -> FloatArray:
    """(N, num_bins) how many pixels of each image fall into each bin, or what they weigh."""
    images = len(bins_NYX)
    flat = (bins_NYX + num_bins * np.arange(images)[:, None, None]).ravel()
    weights = None if weights_NYX is None else weights_NYX.ravel()
    sums = np.bincount(flat, weights, minlength=images * num_bins)
    return sums.reshape(images, num_bins).astype(np.float32)
