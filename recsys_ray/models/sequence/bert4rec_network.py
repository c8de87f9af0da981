"""BERT4Rec on the training loop: masked positions predict what stood there; ``bert4rec.py`` says more."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from recsys_ray.base.types import BoolArray, FloatArray, LongArray
from recsys_ray.models.sequence.network import Examples, NextItem, SequenceJob, train_model
from recsys_ray.models.sequence.padding import newest, newest_times
from recsys_ray.training.checkpoint import Progress
from recsys_ray.training.worker import Worker

if TYPE_CHECKING:
    from recsys_ray.models.sequence.config import BERT4RecConfig


class BERT4RecNetwork(NextItem):
    name = "bert4rec"

    def examples(self, users_B: LongArray, draws_BJ: FloatArray) -> Examples:
        config = cast("BERT4RecConfig", self.config)
        items_BL = newest(self.job.histories, users_B, config.max_length, self.encoder.padding)
        real_BL = items_BL != self.encoder.padding
        masked_BL = masked_places(real_BL, draws_BJ, config.mask_probability, config.last_item_share)
        inputs_BL = np.where(masked_BL, self.encoder.mask, items_BL)
        targets_BL = np.where(masked_BL, items_BL, self.encoder.padding)
        if not config.relative_time:
            return inputs_BL, targets_BL, None
        return inputs_BL, targets_BL, newest_times(self.job.histories, users_B, config.max_length)


def masked_places(real_BL: BoolArray, draws_BJ: FloatArray, probability: float, last_share: float) -> BoolArray:
    """(B, L) what is masked of left-padded rows with at least one real position: the last position alone in
    ``last_share`` of the rows; in the others every real one with ``probability``, the one with the lowest draw at any
    rate. The first column of the draws decides on the row, the last L on its positions."""
    draws_BL = np.where(real_BL, draws_BJ[:, -real_BL.shape[1] :], 2.0)
    masked_BL: BoolArray = draws_BL < probability
    rows_B = np.arange(len(real_BL))
    masked_BL[rows_B, draws_BL.argmin(axis=1)] = True
    last_B = draws_BJ[:, 0] < last_share
    masked_BL[last_B] = False
    masked_BL[last_B, -1] = True
    return masked_BL


def train_bert4rec(job: SequenceJob, worker: Worker) -> tuple[dict[str, FloatArray], Progress]:
    """The encoder's weights by name."""
    return train_model(BERT4RecNetwork(job, worker))
