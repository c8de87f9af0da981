"""Finding the best items: exact and approximate indexes, masks, ties, ranking, re-ranking; each implemented once.

``ExactIndex`` needs torch, which takes seconds and half a gigabyte to import, ``open_index`` needs FAISS: they are
loaded when they are first asked for, so that workers that only rank finished scores, check or evaluate stay small.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recsys_ray.retrieval.config import IndexSettings, RerankSettings
from recsys_ray.retrieval.pairs import pair_scores
from recsys_ray.retrieval.rerank import Reranker
from recsys_ray.retrieval.topk import NO_ITEM, Index, TopK, top_k_scores

if TYPE_CHECKING:
    from recsys_ray.retrieval.choice import open_index
    from recsys_ray.retrieval.exact.index import ExactIndex

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
LOADED_LATE = {"ExactIndex": "exact.index", "open_index": "choice"}


def __getattr__(name: str) -> Any:
    if name not in LOADED_LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{LOADED_LATE[name]}"), name)
