"""Finding the best items: exact and approximate indexes, masks, ties, ranking, re-ranking; each implemented once.

What does the work is loaded when it is first asked for: a configuration needs the settings alone, and most runs search
exactly, without FAISS.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recsys_ray.retrieval.config import IndexSettings, RerankSettings

if TYPE_CHECKING:
    from recsys_ray.retrieval.choice import open_index
    from recsys_ray.retrieval.exact.index import ExactIndex
    from recsys_ray.retrieval.pairs import pair_scores
    from recsys_ray.retrieval.rerank import Reranker
    from recsys_ray.retrieval.topk import NO_ITEM, Index, TopK, top_k_scores

__all__ = [
    "NO_ITEM",
    "ExactIndex",
    "Index",
    "IndexSettings",
    "RerankSettings",
    "Reranker",
    "TopK",
    "open_index",
    "pair_scores",
    "top_k_scores",
]

PLACES = {
    "open_index": "choice",
    "ExactIndex": "exact.index",
    "pair_scores": "pairs",
    "Reranker": "rerank",
    "NO_ITEM": "topk",
    "Index": "topk",
    "TopK": "topk",
    "top_k_scores": "topk",
}
"""By name, the module that it stands in."""


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
