"""Finding the best items: exact and approximate indexes, masks, ties, ranking, re-ranking; each implemented once.

``ExactIndex`` needs torch, which takes seconds and half a gigabyte to import: it is loaded when it is first asked for,
so that workers that only rank finished scores, check or evaluate stay small.
"""

from typing import TYPE_CHECKING, Any

from recsys_ray.retrieval.pairs import pair_scores
from recsys_ray.retrieval.rerank import Reranker
from recsys_ray.retrieval.settings import RerankSettings
from recsys_ray.retrieval.topk import NO_ITEM, Index, TopK, top_k_scores

if TYPE_CHECKING:
    from recsys_ray.retrieval.exact import ExactIndex

__all__ = ["NO_ITEM", "ExactIndex", "Index", "RerankSettings", "Reranker", "TopK", "pair_scores", "top_k_scores"]


def __getattr__(name: str) -> Any:
    if name == "ExactIndex":
        from recsys_ray.retrieval.exact import ExactIndex

        return ExactIndex
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
