"""What sequence models share: their settings, the fit around the training, and the memory it takes.

Time per epoch: positions * (12 D^2 blocks + L D blocks) and predicted positions * D * scores, times six; scores are
the negatives, or all items under cross_entropy. Memory: (items + network) * D * 16 bytes, and predicted positions of a
batch * scores * 8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, model_validator

from recsys_ray.base.types import Counts, FitContext, FloatArray, TrainData
from recsys_ray.models.base import MemoryEstimate, require_finite
from recsys_ray.models.holdout import hold_out
from recsys_ray.models.sequence.scorer import SequenceScorer
from recsys_ray.training import LoopConfig, Worker, run_workers

if TYPE_CHECKING:
    from recsys_ray.models.sequence.network import SequenceJob
    from recsys_ray.training.checkpoint import Progress

    Train = Callable[[SequenceJob, Worker], tuple[dict[str, FloatArray], Progress]]


class SequenceConfig(LoopConfig):
    embedding_dim: int = Field(default=64, ge=1)
    """D, the length of an item's vector and of the state at every position."""
    blocks: int = Field(default=2, ge=1)
    """Transformer blocks."""
    heads: int = Field(default=2, ge=1)
    """Attention heads; must divide embedding_dim."""
    hidden_multiple: int = Field(default=4, ge=1)
    """Width of the position-wise networks, in embedding_dims."""
    max_length: int = Field(default=50, ge=1)
    """The newest events of a history that the network sees; a history may be longer."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of values set to 0 in training, in every place."""
    activation: Literal["gelu", "relu"] = "gelu"
    """Of the position-wise networks."""
    loss: Literal["sampled_softmax", "cross_entropy", "gbce", "bce"] = "sampled_softmax"
    """cross_entropy: over all items. sampled_softmax: over the right item and the negatives. gbce, bce: right item and
    negatives each by itself."""
    negatives: int = Field(default=1024, ge=1)
    """Negatives of a batch, shared by all its positions; not used by cross_entropy."""
    negative_strategy: Literal["uniform", "popularity", "in_batch", "mixed"] = "uniform"
    """Where negatives come from."""
    popularity_power: float = Field(default=1.0, ge=0)
    """Power of an item's count under negative_strategy = popularity."""
    correct_popularity: bool = True
    """Take the log of a negative's expected number of draws off its score (sampled_softmax): the sampled loss then
    estimates the full one."""
    calibration: float = Field(default=0.75, ge=0, le=1)
    """t of gbce: 0 is bce, 1 takes all overconfidence of sampling out."""
    similarity: Literal["inner", "cosine"] = "inner"
    """How a state and an item are compared."""
    temperature: float = Field(default=0.1, gt=0)
    """Divides cosine similarities before the loss; not used by inner."""

    batch_size: int = Field(default=128, ge=1)
    """Users of one step, over all workers together: the result does not depend on the number of workers."""

    @model_validator(mode="after")
    def _heads_divide(self) -> SequenceConfig:
        if self.embedding_dim % self.heads:
            raise ValueError(f"heads: {self.heads} must divide embedding_dim {self.embedding_dim}")
        return self


def fit_sequence(
    name: str, data: TrainData, config: SequenceConfig, context: FitContext, train: Train, causal: bool
) -> SequenceScorer:
    """Fit on the training histories; ``train`` gives the encoder's weights by name.

    Raises:
        ModelError: a loss or gradient was not finite, or memory ran out.
    """
    from recsys_ray.models.sequence.network import SequenceJob
    from recsys_ray.models.sequence.transformer import TransformerShape

    shape = TransformerShape(
        num_embeddings=data.num_items + (1 if causal else 2),
        embedding_dim=config.embedding_dim,
        hidden_dim=config.hidden_multiple * config.embedding_dim,
        blocks=config.blocks,
        heads=config.heads,
        max_length=config.max_length,
        dropout=config.dropout,
        causal=causal,
        activation=config.activation,
    )
    histories, held_out = hold_out(data.histories, config.validation_share, context.rng(1), last=True)
    job = SequenceJob(histories, held_out, data.num_items, shape, config, context.seed)
    weights, progress = run_workers(context, train, job, name)
    context.progress(f"{name}: {progress.epochs} epochs, loss {progress.history[-1]['loss']:.4g}")
    require_finite(name, "lower model.learning_rate", *weights.values())
    return SequenceScorer(
        weights=weights,
        shape=asdict(shape),
        trained_I=np.bincount(histories.items_E, minlength=data.num_items) > 0,
        similarity=config.similarity,
    )


def sequence_memory(counts: Counts, config: SequenceConfig, predicted_share: float = 1.0) -> MemoryEstimate:
    """``predicted_share`` of the positions have a loss."""
    dim = config.embedding_dim
    parameters = (counts.num_items + config.max_length + config.blocks * (4 + 2 * config.hidden_multiple) * dim) * dim
    scores = counts.num_items if config.loss == "cross_entropy" else config.negatives
    mean_length = counts.num_interactions / max(counts.num_users, 1)
    positions = config.batch_size * min(config.max_length, 4 * mean_length + 1)
    work = positions * (3 * predicted_share * scores + 30 * config.blocks * dim)
    return MemoryEstimate(
        int(4 * (6 * parameters + work)) + 40 * counts.num_interactions, "lower model.batch_size or model.embedding_dim"
    )
