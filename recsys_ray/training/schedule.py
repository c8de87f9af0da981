"""The learning rate of a step, as a function of its number: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from recsys_ray.training.config import LoopConfig


def learning_rate(step: int, total: int, config: LoopConfig) -> float:
    """Of step 0, 1, ... of ``total``: linear warm-up, then constant or half a cosine down to 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(total - config.warmup_steps, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
