"""The settings of LightGCN."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from recsys_ray.models.linalg.pooling import RecentSettings
from recsys_ray.training import LoopConfig
from recsys_ray.training.config import RankingSettings


class LightGCNConfig(LoopConfig, RankingSettings, RecentSettings):
    embedding_dim: int = Field(default=64, ge=1)
    """D, the length of a user's and an item's vector."""
    layers: int = Field(default=3, ge=0)
    """Propagation steps; 0 is matrix factorization."""
    propagate: Literal["training", "end"] = "training"
    """training: every step compares propagated vectors. end: steps compare the vectors themselves, and what is trained
    is propagated once: many times as fast a step."""
    loss: Literal["softmax", "bilateral_softmax", "softmax_at_k", "bpr", "direct_au"] = "softmax"
    """softmax: cross-entropy of a pair among the sampled items. bilateral_softmax: also among a user's pairs.
    softmax_at_k: the more, the nearer the pair is to the top of the list. bpr: pairwise, as in the paper. direct_au:
    without negatives; compares all pairs of a batch with each other."""
    similarity: Literal["cosine", "inner"] = "cosine"
    """How the softmax compares a user with an item; bpr always takes the inner product."""
    temperature: float = Field(default=0.1, gt=0)
    """Divides the similarities of the softmax: the lower, the more the hardest negatives count."""
    negatives: int = Field(default=1024, ge=1)
    """Negatives: of each pair under bpr; otherwise of a batch, shared by its pairs."""
    negative_strategy: Literal["uniform", "popularity", "in_batch", "mixed", "hard"] = "uniform"
    """Where negatives come from; hard: the best scored of hard_candidates."""
    popularity_power: float = Field(default=1.0, ge=0)
    """Power of an item's count under negative_strategy = popularity."""
    hard_candidates: int = Field(default=32, ge=1)
    """Candidates under negative_strategy = hard: of each pair under bpr, otherwise of a batch."""
    correct_popularity: bool = False
    """Take the log of a negative's expected number of draws off its similarity (softmax)."""
    regularization: float = Field(default=0.0, ge=0)
    """L2 penalty on the embeddings of layer 0 that a batch touches, per pair."""
    initialization: Literal["spectral", "normal"] = "spectral"
    """normal: random, as in the paper. spectral: from the leading singular vectors of the normalised interactions, what
    propagation alone would keep; the training starts several epochs ahead."""
    initial_std: float = Field(default=0.1, gt=0)
    """Standard deviation of the initial embeddings."""
    length_power: float = Field(default=0.75, ge=0)
    """Item vectors are ranked with their length to this power, which grows with popularity: 1 is the inner product, 0
    the cosine."""

    @model_validator(mode="after")
    def _possible(self) -> LightGCNConfig:
        if self.negative_strategy == "hard" and self.hard_candidates < self.negatives:
            raise ValueError("negative_strategy: hard needs hard_candidates >= negatives")
        return self
