"""A fit as one Ray task with the cores it asks for; what the fit itself spreads goes out as further tasks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from recsys_ray.cluster.session import ClusterSettings, Session, available_memory
from recsys_ray.contracts import FitContext, Settings
from recsys_ray.fit import fit_bundle
from recsys_ray.storage import Location


def run_fit(
    session: Session,
    prepared: Location,
    bundle: Location,
    model: tuple[str, Settings],
    parts: Sequence[str],
    seed: int,
    memory_limit: int | None,
    manifest: dict[str, Any],
) -> dict[str, Any]:
    """``fit.fit_bundle`` on a machine with room; ``memory_limit`` None takes what is free there."""
    arguments = (prepared, bundle, model, tuple(parts), seed, memory_limit, manifest)
    return session.run(_fit, session.settings, *arguments)


def _fit(
    settings: ClusterSettings,
    prepared: Location,
    bundle: Location,
    model: tuple[str, Settings],
    parts: tuple[str, ...],
    seed: int,
    memory_limit: int | None,
    manifest: dict[str, Any],
) -> dict[str, Any]:
    session = Session(settings, lambda message: print(message, file=sys.stderr, flush=True))
    context = FitContext(seed, session.map_blocks, session.num_cpus, session.progress)
    limit = available_memory() if memory_limit is None else memory_limit
    return fit_bundle(prepared, bundle, model, parts, context, limit, manifest)
