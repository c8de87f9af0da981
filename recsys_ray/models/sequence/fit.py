"""What sequence models share: their settings, the fit around the training, and the memory it takes.

Time per epoch: positions * (12 D^2 blocks + L D blocks) and predicted positions * D * scores, times six; scores are
the negatives, or all items under cross_entropy. Memory: (items + network) * D * 16 bytes, and predicted positions of a
batch * negatives * 8; under cross_entropy no more than some megabytes of scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import Counts, FitContext, FloatArray, MemoryEstimate, TrainData
from recsys_ray.models.base import require_finite
from recsys_ray.models.holdout import hold_out
from recsys_ray.models.sequence.config import SequenceConfig
from recsys_ray.models.sequence.scorer import SequenceScorer
from recsys_ray.training import Worker, run_workers
from recsys_ray.training.config import CHUNK_BYTES, drawn

if TYPE_CHECKING:
    from recsys_ray.models.sequence.network import SequenceJob
    from recsys_ray.models.sequence.transformer import TransformerShape
    from recsys_ray.training.checkpoint import Progress

    Train = Callable[[SequenceJob, Worker], tuple[dict[str, FloatArray], Progress]]


def fit_sequence(
    name: str, data: TrainData, config: SequenceConfig, context: FitContext, train: Train, causal: bool
) -> SequenceScorer:
    """Fit on the training histories; ``train`` gives the encoder's weights by name.

    Raises:
        ModelError: a loss or gradient was not finite, or memory ran out.
    """
    from recsys_ray.models.sequence.network import SequenceJob

    shape = shape_of(data.num_items, config, causal)
    if config.relative_time and not data.histories.timestamps_E.any():
        raise ModelError(f"{name}: relative_time needs timestamps, and the interactions have none; unset it")
    histories, held_out = hold_out(data.histories, config.validation_share, context.rng(1), last=True)
    if config.use_content and data.content is None:
        raise ModelError(f"{name}: use_content needs item vectors; add a section content or unset it")
    content = data.content if config.use_content else None
    job = SequenceJob(histories, held_out, data.num_items, shape, config, context.seed, content)
    weights, progress = run_workers(context, train, job, name)
    context.progress(f"{name}: {progress.epochs} epochs, loss {progress.history[-1]['loss']:.4g}")
    require_finite(name, "lower model.learning_rate", *weights.values())
    trained_I = np.bincount(histories.items_E, minlength=data.num_items) > 0
    return SequenceScorer(
        weights=weights,
        shape=asdict(shape),
        trained_I=trained_I if content is None else trained_I | content.present_I,
        similarity=config.similarity,
    )


def shape_of(num_items: int, config: SequenceConfig, causal: bool) -> TransformerShape:
    """Of the network that the settings ask for; one that is not causal has a mask."""
    from recsys_ray.models.sequence.transformer import TransformerShape

    return TransformerShape(
        num_embeddings=num_items + (1 if causal else 2),
        embedding_dim=config.embedding_dim,
        hidden_dim=config.hidden_multiple * config.embedding_dim,
        blocks=config.blocks,
        heads=config.heads,
        max_length=config.max_length,
        dropout=config.dropout,
        causal=causal,
        activation=config.activation,
        attention=config.attention,
        positions=config.positions,
        relative_time=config.relative_time,
        low_frequencies=config.low_frequencies,
        filter_share=config.filter_share,
    )


def sequence_memory(counts: Counts, config: SequenceConfig, predicted_share: float = 1.0) -> MemoryEstimate:
    """``predicted_share`` of the positions have a loss."""
    dim = config.embedding_dim
    parameters = (counts.num_items + config.max_length + config.blocks * (4 + 2 * config.hidden_multiple) * dim) * dim
    mean_length = counts.num_interactions / max(counts.num_users, 1)
    longest = min(config.max_length, 4 * mean_length + 1)
    positions = config.batch_size * longest
    predicted = predicted_share * positions
    # All items are scored for some positions at a time; under direct_au positions are compared with each other.
    scores = drawn(config.negative_strategy, config.negatives, config.hard_candidates)
    scored = {"cross_entropy": 2 * CHUNK_BYTES / 4, "direct_au": 6 * predicted**2}.get(
        config.loss, 3 * predicted * scores
    )
    biases = 4 * config.heads * positions * longest * (config.positions != "absolute" or config.relative_time)
    work = scored + biases + positions * 30 * config.blocks * dim
    return MemoryEstimate(
        int(4 * (6 * parameters + work)) + 40 * counts.num_interactions, "lower model.batch_size or model.embedding_dim"
    )
