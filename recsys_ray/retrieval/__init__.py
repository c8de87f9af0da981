"""Exact top-k: masks, ties and ranking, implemented once."""

from recsys_ray.retrieval.exact import ExactIndex, Index
from recsys_ray.retrieval.topk import NO_ITEM, TopK, top_k_scores

__all__ = ["NO_ITEM", "ExactIndex", "Index", "TopK", "top_k_scores"]
