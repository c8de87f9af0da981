"""The models by name, the scorers by kind, and the size check before a fit."""

from __future__ import annotations

from typing import Any

from recsys_ray.base.errors import BundleError, SizeError
from recsys_ray.base.types import Counts, MemoryEstimate, Scorer, ScorerState
from recsys_ray.models.base import Model
from recsys_ray.models.blend import Blend
from recsys_ray.models.lambdamart import LambdaMART
from recsys_ray.models.scorers.cold_items import ColdItemScorer
from recsys_ray.models.single import SINGLE

CLASSES: tuple[type[Model], ...] = (*SINGLE, Blend, LambdaMART)
MODELS: dict[str, type[Model]] = {model.key: model for model in CLASSES}
"""By ``model.name``."""


def scorer_kinds(*more: type[Model]) -> dict[str, type[Scorer]]:
    """The classes of saved scorers by kind: those of all models, and of ``more`` that are not in MODELS."""
    found: dict[str, type[Scorer]] = {ColdItemScorer.kind: ColdItemScorer}
    for model in (*CLASSES, *more):
        found |= {scorer.kind: scorer for scorer in model.scorers}
    return found


def save_scorer(scorer: Scorer) -> tuple[str, ScorerState]:
    """Its kind and its state without parts: their arrays as ``part.name``, their settings under ``parts``."""
    state = scorer.state()
    arrays, settings = dict(state.arrays), dict(state.settings)
    for name, part in state.parts.items():
        kind, inside = save_scorer(part)
        arrays |= {f"{name}.{key}": array for key, array in inside.arrays.items()}
        settings.setdefault("parts", {})[name] = {"kind": kind, "settings": inside.settings}
    return scorer.kind, ScorerState(arrays, settings)


def load_scorer(kind: str, state: ScorerState, *more: type[Model]) -> Scorer:
    """A scorer from what ``save_scorer`` gave; arrays may be read-only memory maps and are used where they lie.

    Raises:
        BundleError: no scorer of this kind, or arrays or settings are missing.
    """
    known = scorer_kinds(*more)
    if kind not in known:
        raise BundleError(f"unknown scorer kind {kind!r}; this version knows {', '.join(known)}")
    try:
        settings = _today(kind, state.settings)
        parts = {
            name: load_scorer(
                _known(part["kind"], known), ScorerState(_inside(state.arrays, name), part["settings"]), *more
            )
            for name, part in settings.pop("parts", {}).items()
        }
        own = {name: array for name, array in state.arrays.items() if name.partition(".")[0] not in parts}
        return known[kind].from_state(ScorerState(own, settings, parts))
    except (KeyError, TypeError) as error:
        raise BundleError(f"scorer {kind!r}: saved state is incomplete or of another version ({error})") from error


def _known(kind: str, known: dict[str, type[Scorer]]) -> str:
    if kind not in known:
        raise KeyError(f"a part of the unknown kind {kind!r}")
    return kind


def _inside(arrays: dict[str, Any], part: str) -> dict[str, Any]:
    return {name.removeprefix(f"{part}."): array for name, array in arrays.items() if name.startswith(f"{part}.")}


def _today(kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as this version writes them; bundles of format 1 named the one part of a cold scorer otherwise."""
    if kind == ColdItemScorer.kind and "base" in settings:
        return {"parts": {"base": {"kind": settings["base"], "settings": settings["base_settings"]}}}
    return dict(settings)


def check_size(model: Model, counts: Counts, limit_bytes: int) -> MemoryEstimate:
    """The predicted memory of a fit.

    Raises:
        SizeError: it is above ``limit_bytes``.
    """
    estimate = model.memory(counts)
    if estimate.bytes > limit_bytes:
        raise SizeError(
            f"{model.key}: {counts.num_users} users x {counts.num_items} items with {counts.num_interactions} "
            f"interactions need about {estimate.bytes / 2**30:.1f} GiB, above the limit of "
            f"{limit_bytes / 2**30:.1f} GiB; {estimate.advice}"
        )
    return estimate
