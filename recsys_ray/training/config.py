"""The settings of a training that all neural models share. No torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recsys_ray.base.types import Settings

CHUNK_BYTES = 1 << 24
"""Of the scores that a softmax over all items holds at once."""


class LoopConfig(Settings):
    """How a module is trained; models add what they are."""

    epochs: int = Field(default=50, ge=1)
    """Passes over the training examples, at most."""
    batch_size: int = Field(default=2048, ge=1)
    """Examples of one step, over all workers together: the result does not depend on the number of workers."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Step size of Adam, once the warm-up is over."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay (AdamW)."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: the same learning rate to the end, or down to 0 along half a cosine."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps in which the learning rate rises linearly from 0."""
    gradient_clip: float | None = Field(default=None, gt=0)
    """Scale gradients down to this norm; null leaves them alone."""
    validation_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the users from whose training history some events are held out and watched for early stopping. The fit
    never sees validation or test data of the run. 0 trains for all epochs on everything."""
    patience: int = Field(default=5, ge=1)
    """Stop after so many evaluations without a better one, and keep the best; needs validation_share above 0."""
    evaluate_every: int = Field(default=1, ge=1)
    """Epochs between two evaluations."""


class RankingSettings(Settings):
    """What the losses ask for that models of rankings share."""

    bilateral_ratio: float = Field(default=1.0, gt=0)
    """Temperature of the negatives over that of the positives, under loss = bilateral_softmax: below 1 what is noise
    among a user's positives counts less."""
    top_k: int = Field(default=20, ge=1)
    """Length of the list that loss = softmax_at_k looks at."""
    top_k_temperature: float = Field(default=1.0, gt=0)
    """How softly loss = softmax_at_k tells what is in the list from what is not."""
    uniformity_weight: float = Field(default=1.0, ge=0)
    """What the spread of the vectors counts under loss = direct_au, beside 1 for the nearness of a pair."""


class WorkerSettings(Settings):
    """The processes that train a neural model together."""

    count: int = Field(default=1, ge=1)
    """How many. The batch size is that of all together, so the result does not depend on it."""
    cpus: int | None = Field(default=None, ge=1)
    """Cores, and threads, of each; by default an equal share of the largest machine."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs of each; above 0 they work together through NCCL, otherwise through gloo."""
    max_failures: int = Field(default=3, ge=0)
    """How often a group that lost a worker starts again from the last checkpoint."""


def drawn(strategy: str, negatives: int, hard_candidates: int) -> int:
    """How many items are scored beside a target."""
    return hard_candidates if strategy == "hard" else negatives
