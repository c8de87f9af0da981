"""Models worth trying on data of a size, at settings that follow it: what ``recsys-ray choose`` tries."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys_ray.base.types import Counts

MOST_SLIM_ITEMS = 20_000
"""SLIM's time grows with the square of the items."""
MOST_PAIRS = 2_000_000
"""Interactions up to which a network is worth the wait on a CPU."""


def sized_models(counts: Counts, *, attributes: bool, content: bool, networks: bool) -> dict[str, dict[str, Any]]:
    """Model sections by label, the cheap ones first.

    Args:
        attributes: the catalogue has genres or years. content: there are vectors of texts or posters. networks: neural
        models too.

    Models that predict ratings are none of them: lists are what is compared.
    """
    dim = _dim(counts)
    found: dict[str, dict[str, Any]] = {
        "popularity": {"name": "popularity"},
        "item_cf": {"name": "item_cf"},
        "item_cf bm25": {"name": "item_cf", "similarity": "bm25"},
        "graph_filter": {"name": "graph_filter"},
        "graph_filter chebyshev": {"name": "graph_filter", "filter": "chebyshev"},
        "transitions": {"name": "transitions"},
        "pure_svd": {"name": "pure_svd", "embedding_dim": dim},
        "als": {"name": "als", "embedding_dim": dim},
    }
    # The diagonal that EASE adds is weighed against the number of users that an item has.
    per_item = counts.num_interactions / max(1, counts.num_items)
    for factor in (2.0, 10.0, 50.0):
        strength = float(np.clip(round(factor * per_item), 5, 5000))
        found[f"ease {strength:g}"] = {"name": "ease", "regularization": strength}
    if counts.num_items <= MOST_SLIM_ITEMS:
        found["slim"] = {"name": "slim"}
    if attributes:
        found["attributes"] = {"name": "content", "vectors": "attributes"}
    if content:
        found["content"] = {"name": "content"}
    if networks and counts.num_interactions <= MOST_PAIRS:
        found["lightgcn"] = {"name": "lightgcn", "embedding_dim": dim}
        found["two_tower"] = {"name": "two_tower", "embedding_dim": dim}
        found["sasrec"] = {"name": "sasrec", "embedding_dim": min(dim, 64)}
    return found


def _dim(counts: Counts) -> int:
    """Factors: a sixteenth of the smaller side, between 8 and 128, a power of two. More than the data holds only
    repeats what it was fitted on."""
    smaller = max(1, min(counts.num_users, counts.num_items))
    return int(np.clip(2 ** int(np.log2(max(8.0, smaller / 16))), 8, 128))
