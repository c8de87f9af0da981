"""The array types of the package, one per element type, and the letters that say what shape an array has.

The name of an array ends in a letter for each axis: ``scores_BK`` has a row for each request and a column for each
rank. ``base.types`` hands all of this on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int32]
LongArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]

SUFFIXES = {
    "B": "rows of a batch: requests, histories, users of a shard, queries of a call",
    "R": "some rows of another axis, in an order of their own: a block, a choice, what was requested",
    "P": "those entries of another axis that count: targets among pairs, items with a vector, positions of a scan",
    "N": "rows of any other kind: nodes of a graph (users, then items), items of a shard, images, texts",
    "U": "users",
    "I": "items of the catalogue",
    "C": "cold items: those without training interactions",
    "W": "warm items: those with training interactions",
    "E": "entries of all rows end to end: events of histories, members of lists, weights of layers",
    "H": "distinct items, or events, of one history",
    "Z": "stored non-zeros of a sparse matrix",
    "K": "members of each row, as many in every row: ranks, candidates, neighbours, inputs of a tower",
    "L": "places of each row, as many as may be needed: of a padded history, of a list that grows, of a buffer",
    "M": "negatives",
    "T": "scores of one tile",
    "D": "dimension of vectors",
    "J": "columns of another width than D",
    "F": "features",
    "G": "genres, or other groups of items",
    "S": "parts of a whole: shards, parts of a split, workers' shares, pieces of a sum",
    "Q": "means that an evaluation takes",
    "A": "bootstrap replicates",
    "Y": "rows of pixels",
    "X": "columns of pixels",
}
"""What each letter means, in every module. ``1`` behind a letter is one more: ``offsets_B1`` has B + 1 entries. Other
digits are sizes: ``lab_NYX3`` has three colours. A module may say which kind of it a letter is there, and no more."""
