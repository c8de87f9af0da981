"""The members of a model that is made of models: their section, their names, their fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from recsys_ray.base.errors import ModelError, RecsysError
from recsys_ray.base.types import FitContext, Scorer, Settings, TrainData
from recsys_ray.models.base import Model
from recsys_ray.models.single import SINGLE, model_section, without_name


class Member(Settings):
    """One of the models of a blend."""

    model: model_section(SINGLE)  # type: ignore[valid-type]
    """As the section ``model``."""
    weight: float = Field(default=1.0, ge=0)
    """What its scores count; with weights chosen on validation it is not used."""


class MadeOfModels(Model):
    """A model whose members are models; it asks for the item vectors that one of them asks for."""

    members: list[Member]
    """The models."""

    @property
    def weighs_ratings(self) -> bool:
        return all(model.weighs_ratings for model in self.models.values())

    @property
    def models(self) -> dict[str, Model]:
        """The members by name: their model's, with a number from the second of a kind on."""
        found: dict[str, Model] = {}
        for member in self.members:
            model = without_name(member.model)
            number = sum(name.partition("-")[0] == model.key for name in found) + 1
            found[model.key if number == 1 else f"{model.key}-{number}"] = model
        return found

    @property
    def needs_content(self) -> bool:
        return any(model.needs_content for model in self.models.values())

    @property
    def content_kinds(self) -> frozenset[str]:
        return frozenset().union(*(model.content_kinds for model in self.models.values()))


def fit_member(
    owner: str, name: str, model: Model, data: TrainData, context: FitContext, phase: Literal["validation", "all"]
) -> Scorer:
    """One member; what its training keeps is kept apart from that of the others.

    Raises:
        ModelError: it can't be fitted; the line says which member that is.
    """
    outer = context.run_workers
    if outer is not None:

        def run_workers(fn: Callable[[Any, Any], Any], shared: Any, key: str) -> Any:
            return outer(fn, shared, f"{name}-{phase}-{key}")

        context = replace(context, run_workers=run_workers)
    context.progress(f"{owner}: {name} on {'held-out' if phase == 'validation' else 'all'} data")
    try:
        return model.fit_scorer(data, context)
    except RecsysError as error:
        raise ModelError(f"{owner}: member {name}: {error}") from error
