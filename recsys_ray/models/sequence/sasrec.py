"""SASRec: a causal transformer over the items of a history; the state at its end is the query for the next item.

Source: Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018). Where we depart: the loss is by
default a softmax over sampled items instead of one negative a positive, which is worth more than any change of the
network (Klenitskiy and Vasilev, "Turning Dross Into Gold Loss", RecSys 2023; gBCE: Petrov and Macdonald, RecSys 2023),
and blocks are normalised before, not after.

Time and memory: see ``sequence``; every position is predicted.
"""

from __future__ import annotations

from typing import ClassVar

from recsys_ray.base.types import Counts, FitContext, MemoryEstimate, Scorer, TrainData
from recsys_ray.models.base import Model
from recsys_ray.models.sequence.config import SequenceConfig
from recsys_ray.models.sequence.fit import fit_sequence, sequence_memory
from recsys_ray.models.sequence.scorer import SequenceScorer


class SASRec(SequenceConfig, Model):
    """A causal transformer over the items of a history (Kang and McAuley 2018)."""

    key: ClassVar[str] = "sasrec"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (SequenceScorer,)
    ordered: ClassVar[bool] = True

    def fit_scorer(self, data: TrainData, context: FitContext) -> SequenceScorer:
        """Fit on the training histories.

        Raises:
            ModelError: a loss or gradient was not finite, or memory ran out.
        """
        from recsys_ray.models.sequence.sasrec_network import train_sasrec

        return fit_sequence("sasrec", data, self, context, train_sasrec, causal=True)

    def memory(self, counts: Counts) -> MemoryEstimate:
        return sequence_memory(counts, self)
