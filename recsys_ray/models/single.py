"""The models that stand on their own, and how a configuration names one of several."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

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
from recsys_ray.models.slim import SLIM
from recsys_ray.models.svd import SVD
from recsys_ray.models.svdpp import SVDpp
from recsys_ray.models.transitions import Transitions
from recsys_ray.models.two_tower.fit import TwoTower

SINGLE: tuple[type[Model], ...] = (
    Random, Popularity, ItemCF, EASE, SLIM, GraphFilter, Transitions, ALS, SVD, SVDpp, PureSVD, Content,
    LightGCN, NCF, SASRec, BERT4Rec, TwoTower,
)  # fmt: skip


def model_section(models: Iterable[type[Model]]) -> Any:
    """The type of a section that is one of these models, told apart by ``name``: its settings and that name."""
    return Annotated[reduce(or_, map(_named, models)), Field(discriminator="name")]


@cache
def _named(model: type[Model]) -> Any:
    """A model's settings with its name; made once, because making one takes longer than anything else here."""
    named: Any = (Literal[model.key], model.key)
    return create_model(f"Model_{model.key}", __base__=model, name=named)


def without_name(section: Any) -> Model:
    """The model that a section describes and names."""
    model: type[Model] = type(section).__mro__[1]
    return model.model_validate(section.model_dump(exclude={"name"}))
