"""Finding the best items: exact and approximate indexes, masks, ties, ranking, re-ranking; each implemented once.

``open_index`` needs FAISS, which is loaded when it is first asked for: most runs search exactly.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recsys_ray.retrieval.config import IndexSettings, RerankSettings
from recsys_ray.retrieval.exact.index import ExactIndex
from recsys_ray.retrieval.pairs import pair_scores
from recsys_ray.retrieval.rerank import Reranker
from recsys_ray.retrieval.topk import NO_ITEM, Index, TopK, top_k_scores

if TYPE_CHECKING:
    from recsys_ray.retrieval.choice import open_index

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


def __getattr__(name: str) -> Any:
    if name != "open_index":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.choice").open_index
