"""The settings of NCF."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from recsys_ray.models.linalg.pooling import RecentSettings
from recsys_ray.training import LoopConfig
from recsys_ray.training.config import RankingSettings


class NCFConfig(LoopConfig, RankingSettings, RecentSettings):
    embedding_dim: int = Field(default=64, ge=1)
    """D, the length of a user's and an item's vector in the factor branch."""
    layers: int = Field(default=0, ge=0)
    """Propagation steps of the factor branch's vectors over the interactions, as in LightGCN: with one step a user is
    also what is in the history. 0 is the paper's."""
    mlp_dim: int = Field(default=32, ge=1)
    """E, the length of a user's and an item's vector at the entrance of the perceptron."""
    hidden_layers: list[int] = Field(default=[32, 16], min_length=1)
    """Widths of the perceptron's layers."""
    use_features: bool = False
    """Features of items (genres, year, numeric columns, popularity, ratings) and what the table of users says enter the
    perceptron beside the vectors."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the perceptron's values set to 0 in training, after every layer."""
    loss: Literal["softmax", "bilateral_softmax", "softmax_at_k", "bce", "bpr"] = "softmax"
    """softmax: cross-entropy of a pair among the sampled items. bilateral_softmax: also among a user's pairs.
    softmax_at_k: the more, the nearer the pair is to the top of the list. bce: a pair towards 1 and its negatives
    towards 0, as in the paper. bpr: the pair above its negatives."""
    negatives: int = Field(default=256, ge=1)
    """Negatives: of each pair under bce and bpr; otherwise of a batch, shared by its pairs."""
    negative_strategy: Literal["uniform", "popularity", "in_batch", "mixed", "hard"] = "uniform"
    """Where negatives come from; hard: the best scored of hard_candidates."""
    hard_candidates: int = Field(default=1024, ge=1)
    """Candidates under negative_strategy = hard: of each pair under bce and bpr, otherwise of a batch."""
    popularity_power: float = Field(default=1.0, ge=0)
    """Power of an item's count under negative_strategy = popularity."""
    correct_popularity: bool = False
    """Take the log of a negative's expected number of draws off its score (softmax)."""
    similarity: Literal["inner", "cosine"] = "inner"
    """cosine: vectors of the factor branch have length 1 / sqrt(temperature) whatever was trained (g is then 1)."""
    temperature: float = Field(default=0.1, gt=0)
    """Divides the cosines of the factor branch; not used by inner."""
    regularization: float = Field(default=0.0, ge=0)
    """L2 penalty on the vectors that a batch touches, per pair."""
    initialization: Literal["spectral", "normal"] = "spectral"
    """Where the vectors of the factor branch start, as in LightGCN. spectral: at the leading singular vectors of the
    normalised interactions. normal: random, as those of the perceptron always do."""
    initial_std: float = Field(default=0.1, gt=0)
    """Standard deviation of the initial vectors."""

    @field_validator("hidden_layers")
    @classmethod
    def _are_widths(cls, widths: list[int]) -> list[int]:
        if min(widths) < 1:
            raise ValueError(f"hidden_layers: widths must be at least 1, found {min(widths)}")
        return widths

    @model_validator(mode="after")
    def _possible(self) -> NCFConfig:
        if self.negative_strategy == "hard" and self.hard_candidates < self.negatives:
            raise ValueError("negative_strategy: hard needs hard_candidates >= negatives")
        return self
