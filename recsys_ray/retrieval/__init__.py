"""Exact top-k: masks, ties and ranking, implemented once.

``ExactIndex`` needs torch, which takes seconds and half a gigabyte to import: it is loaded when it is first asked for,
so that workers that only rank finished scores, check or evaluate stay small.
"""

from typing import TYPE_CHECKING, Any

from recsys_ray.retrieval.topk import NO_ITEM, TopK, top_k_scores

if TYPE_CHECKING:
    from recsys_ray.retrieval.exact import ExactIndex, Index

__all__ = ["NO_ITEM", "ExactIndex", "Index", "TopK", "top_k_scores"]


def __getattr__(name: str) -> Any:
    if name in ("ExactIndex", "Index"):
        from recsys_ray.retrieval import exact

        return getattr(exact, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
