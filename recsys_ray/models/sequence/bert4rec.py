"""BERT4Rec: a transformer that sees a history from both sides and fills in masked items; to ask for the next item, a
mask stands at the end.

Source: Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer"
(CIKM 2019). Where we depart: blocks are normalised before, not after; the state itself is compared with the item
vectors, without a projection before and a bias after; of a history longer than ``max_length`` only the newest window is
trained on. The paper adds examples in which only the last item is masked, which is what is asked later;
``last_item_share`` says how many.

Time and memory: see ``sequence``; the masked positions are predicted.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recsys_ray.base.types import Counts, FitContext, TrainData
from recsys_ray.models.base import MemoryEstimate
from recsys_ray.models.sequence.fit import SequenceConfig, fit_sequence, sequence_memory
from recsys_ray.models.sequence.scorer import SequenceScorer


class BERT4RecConfig(SequenceConfig):
    max_length: int = Field(default=50, ge=2)
    """Positions that the network sees: the newest events of a history, which may be longer, and a mask."""
    loss: Literal["sampled_softmax", "cross_entropy", "gbce", "bce"] = "cross_entropy"
    """cross_entropy: over all items. sampled_softmax: over the right item and the negatives. gbce, bce: right item and
    negatives each by itself."""
    mask_probability: float = Field(default=0.2, gt=0, le=1)
    """Chance of every item of an example to be masked; at least one is."""
    last_item_share: float = Field(default=0.2, ge=0, le=1)
    """Share of the examples in which the last item is masked and nothing else."""


def fit_bert4rec(data: TrainData, config: BERT4RecConfig, context: FitContext) -> SequenceScorer:
    """Fit on the training histories.

    Raises:
        ModelError: a loss or gradient was not finite, or memory ran out.
    """
    from recsys_ray.models.sequence.bert4rec_network import train_bert4rec

    return fit_sequence("bert4rec", data, config, context, train_bert4rec, causal=False)


def bert4rec_memory(counts: Counts, config: BERT4RecConfig) -> MemoryEstimate:
    return sequence_memory(counts, config, config.mask_probability)
