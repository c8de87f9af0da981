"""A model by name, fitted in one call."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from pydantic import TypeAdapter

from recsys_ray.api.dataset import Dataset, validated
from recsys_ray.api.recommender import Recommender
from recsys_ray.base.errors import ConfigError
from recsys_ray.models import MODELS


def fit(
    data: Dataset,
    model: str,
    *,
    seed: int = 0,
    memory_limit_gib: float | None = None,
    progress: Callable[[str], None] = lambda message: None,
    **settings: Any,
) -> Recommender:
    """Fit a model by its name: ``fit(data, "ease", regularization=100.0)`` is ``EASE(regularization=100.0).fit(data)``.

    Args:
        data: what is learned from, all of it or a part of a split.
        model: as ``model.name`` of a configuration.
        seed: of initial values and samples.
        memory_limit_gib: refuse a fit that is predicted to need more.
        progress: called with a line now and then, ``print`` say.
        settings: of the model.

    Returns:
        A finished recommender, which never changes.

    Raises:
        ConfigError: no such model or setting. DataError: there is nothing to learn from.
        ModelError: the data or the settings give nothing that could score. SizeError: it would need too much memory.

    >>> import pandas as pd
    >>> import recsys_ray as rr
    >>> events = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [10, 20, 20]})
    >>> rr.fit(rr.Dataset(events), "ease", regularization=10.0)
    Recommender(ease, 2 users, 2 items)
    """
    if not isinstance(data, Dataset):
        raise ConfigError(f"fit: data must be a Dataset, found {type(data).__name__}; write Dataset(frame)")
    if model not in MODELS:
        close = get_close_matches(model, MODELS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"models are {', '.join(MODELS)}"
        raise ConfigError(f"fit: there is no model {model!r}; {hint}")
    chosen = validated(TypeAdapter(MODELS[model]), settings, model)
    return data.fitted(chosen, seed=seed, memory_limit_gib=memory_limit_gib, progress=progress)
