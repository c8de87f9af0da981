"""Distributed batch recommendation on Ray, from Python.

    import recsys_ray as rr
    data = rr.Dataset(ratings, items=movies)
    train, test = data.split("leave_last_out")
    model = rr.EASE(regularization=500.0).fit(train)
    model.recommend([1, 414], n=10)

Importing it is quick: what a name needs is imported when the name is first asked for. Only ``run`` starts a Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys_ray.api.dataset import Dataset
    from recsys_ray.api.evaluate import evaluate
    from recsys_ray.api.fit import fit
    from recsys_ray.api.recommender import Recommender, load
    from recsys_ray.base.errors import RecsysError
    from recsys_ray.models.als import ALS
    from recsys_ray.models.base import Model
    from recsys_ray.models.content import Content
    from recsys_ray.models.ease import EASE
    from recsys_ray.models.graph_filter import GraphFilter
    from recsys_ray.models.item_cf import ItemCF
    from recsys_ray.models.lightgcn.fit import LightGCN
    from recsys_ray.models.ncf.fit import NCF
    from recsys_ray.models.popularity import Popularity
    from recsys_ray.models.pure_svd import PureSVD
    from recsys_ray.models.random import Random
    from recsys_ray.models.sequence.bert4rec import BERT4Rec
    from recsys_ray.models.sequence.sasrec import SASRec
    from recsys_ray.models.svd import SVD
    from recsys_ray.models.two_tower.fit import TwoTower
    from recsys_ray.pipeline import run

__version__ = "0.1.0"

WHERE = {
    "Dataset": "api.dataset",
    "Recommender": "api.recommender",
    "evaluate": "api.evaluate",
    "fit": "api.fit",
    "load": "api.recommender",
    "run": "pipeline",
    "Model": "models.base",
    "RecsysError": "base.errors",
    "ALS": "models.als",
    "BERT4Rec": "models.sequence.bert4rec",
    "Content": "models.content",
    "EASE": "models.ease",
    "GraphFilter": "models.graph_filter",
    "ItemCF": "models.item_cf",
    "LightGCN": "models.lightgcn.fit",
    "NCF": "models.ncf.fit",
    "Popularity": "models.popularity",
    "PureSVD": "models.pure_svd",
    "Random": "models.random",
    "SASRec": "models.sequence.sasrec",
    "SVD": "models.svd",
    "TwoTower": "models.two_tower.fit",
}
"""The room that each name stands in."""
__all__ = ["__version__", *WHERE]


def __getattr__(name: str) -> Any:
    if name not in WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
