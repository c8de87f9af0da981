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

from typing import ClassVar

from recsys_ray.base.types import Counts, FitContext, MemoryEstimate, Scorer, TrainData
from recsys_ray.models.base import Model
from recsys_ray.models.sequence.config import BERT4RecConfig
from recsys_ray.models.sequence.fit import fit_sequence, sequence_memory
from recsys_ray.models.sequence.scorer import SequenceScorer


class BERT4Rec(BERT4RecConfig, Model):
    """A transformer that fills in masked items of a history (Sun et al. 2019)."""

    key: ClassVar[str] = "bert4rec"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (SequenceScorer,)
    ordered: ClassVar[bool] = True

    def fit_scorer(self, data: TrainData, context: FitContext) -> SequenceScorer:
        """Fit on the training histories.

        Raises:
            ModelError: a loss or gradient was not finite, or memory ran out.
        """
        from recsys_ray.models.sequence.bert4rec_network import train_bert4rec

        return fit_sequence("bert4rec", data, self, context, train_bert4rec, causal=False)

    def memory(self, counts: Counts) -> MemoryEstimate:
        return sequence_memory(counts, self, self.mask_probability)
