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
    from recsys_ray.api.dataset import Dataset as Dataset
    from recsys_ray.api.evaluate import evaluate as evaluate
    from recsys_ray.api.fit import fit as fit
    from recsys_ray.api.recommender import Recommender as Recommender
    from recsys_ray.api.recommender import load as load
    from recsys_ray.base.errors import RecsysError as RecsysError
    from recsys_ray.cli import run as run
    from recsys_ray.models.als import ALS as ALS
    from recsys_ray.models.base import Model as Model
    from recsys_ray.models.blend import Blend as Blend
    from recsys_ray.models.content import Content as Content
    from recsys_ray.models.ease import EASE as EASE
    from recsys_ray.models.graph_filter import GraphFilter as GraphFilter
    from recsys_ray.models.item_cf import ItemCF as ItemCF
    from recsys_ray.models.lambdamart import LambdaMART as LambdaMART
    from recsys_ray.models.lightgcn.fit import LightGCN as LightGCN
    from recsys_ray.models.ncf.fit import NCF as NCF
    from recsys_ray.models.popularity import Popularity as Popularity
    from recsys_ray.models.pure_svd import PureSVD as PureSVD
    from recsys_ray.models.random import Random as Random
    from recsys_ray.models.sequence.bert4rec import BERT4Rec as BERT4Rec
    from recsys_ray.models.sequence.sasrec import SASRec as SASRec
    from recsys_ray.models.slim import SLIM as SLIM
    from recsys_ray.models.svd import SVD as SVD
    from recsys_ray.models.svdpp import SVDpp as SVDpp
    from recsys_ray.models.transitions import Transitions as Transitions
    from recsys_ray.models.two_tower.fit import TwoTower as TwoTower

__version__ = "0.2.0"

WHERE = {
    "Dataset": "api.dataset",
    "Recommender": "api.recommender",
    "evaluate": "api.evaluate",
    "fit": "api.fit",
    "load": "api.recommender",
    "run": "cli",
    "Model": "models.base",
    "RecsysError": "base.errors",
    "ALS": "models.als",
    "BERT4Rec": "models.sequence.bert4rec",
    "Blend": "models.blend",
    "Content": "models.content",
    "EASE": "models.ease",
    "GraphFilter": "models.graph_filter",
    "ItemCF": "models.item_cf",
    "LambdaMART": "models.lambdamart",
    "LightGCN": "models.lightgcn.fit",
    "NCF": "models.ncf.fit",
    "Popularity": "models.popularity",
    "PureSVD": "models.pure_svd",
    "Random": "models.random",
    "SASRec": "models.sequence.sasrec",
    "SLIM": "models.slim",
    "SVD": "models.svd",
    "SVDpp": "models.svdpp",
    "Transitions": "models.transitions",
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
