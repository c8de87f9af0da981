"""SASRec on the training loop: every position predicts the item after it; ``sasrec.py`` says more."""

from __future__ import annotations

import numpy as np

from recsys_ray.base.types import FloatArray, LongArray
from recsys_ray.models.sequence.network import Examples, NextItem, SequenceJob, train_model
from recsys_ray.models.sequence.padding import newest, newest_times
from recsys_ray.training.checkpoint import Progress
from recsys_ray.training.worker import Worker


class SASRecNetwork(NextItem):
    name = "sasrec"

    def examples(self, users_B: LongArray, draws_BJ: FloatArray) -> Examples:
        padding = self.encoder.padding
        wide_BL = newest(self.job.histories, users_B, self.config.max_length + 1, padding)
        inputs_BL = wide_BL[:, :-1]
        targets_BL = np.where(inputs_BL == padding, padding, wide_BL[:, 1:])
        if not self.config.relative_time:
            return inputs_BL, targets_BL, None
        return inputs_BL, targets_BL, newest_times(self.job.histories, users_B, self.config.max_length + 1)[:, :-1]


def train_sasrec(job: SequenceJob, worker: Worker) -> tuple[dict[str, FloatArray], Progress]:
    """The encoder's weights by name."""
    return train_model(SASRecNetwork(job, worker))
