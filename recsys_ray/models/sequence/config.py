"""The settings of all sequence models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from recsys_ray.training import LoopConfig
from recsys_ray.training.config import RankingSettings

SequenceLoss = Literal[
    "sampled_softmax", "cross_entropy", "bilateral_softmax", "softmax_at_k", "gbce", "bce", "direct_au"
]


class SequenceConfig(LoopConfig, RankingSettings):
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
    attention: Literal["softmax", "pointwise"] = "softmax"
    """softmax: the blocks of a transformer. pointwise: those of HSTU, whose weights are not shares of one."""
    positions: Literal["absolute", "relative", "both"] = "absolute"
    """absolute: a vector for every place, counted from the newest. relative: a number for every distance between two
    events, added to the attention from one to the other."""
    relative_time: bool = False
    """Add to the attention from one event to another a number for how much time is between them; needs timestamps."""
    filter_share: float = Field(default=0.0, ge=0, le=1)
    """Share of a low-pass filter in what attention gives; not with attention = pointwise."""
    low_frequencies: int = Field(default=3, ge=1)
    """Frequencies that the filter keeps, of the max_length / 2 + 1 that there are."""
    use_content: bool = False
    """Add to every item's vector a learned map of what its text and poster say; items that were never trained have that
    alone. Needs a section content."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of values set to 0 in training, in every place."""
    activation: Literal["gelu", "relu"] = "gelu"
    """Of the position-wise networks."""
    loss: SequenceLoss = "sampled_softmax"
    """cross_entropy: over all items. sampled_softmax: over the right item and the negatives. bilateral_softmax: also
    over a user's right items. softmax_at_k: the more, the nearer the right item is to the top of the list. gbce, bce:
    right item and negatives each by itself. direct_au: without negatives, on cosines."""
    negatives: int = Field(default=1024, ge=1)
    """Negatives of a batch, shared by all its positions; not used by cross_entropy and direct_au."""
    negative_strategy: Literal["uniform", "popularity", "in_batch", "mixed", "hard"] = "uniform"
    """Where negatives come from; hard: the best scored of hard_candidates."""
    hard_candidates: int = Field(default=4096, ge=1)
    """Candidates of a batch under negative_strategy = hard: the negatives of a target are the best scored of them that
    its user does not have."""
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

    @property
    def needs_content(self) -> bool:
        return self.use_content

    @model_validator(mode="after")
    def _possible(self) -> SequenceConfig:
        none = self.loss in ("cross_entropy", "direct_au")
        if self.negative_strategy == "hard" and (none or self.hard_candidates < self.negatives):
            raise ValueError("negative_strategy: hard needs a loss with negatives, and hard_candidates >= negatives")
        if self.loss == "direct_au" and self.similarity == "inner":
            raise ValueError("loss: direct_au needs similarity: cosine")
        if self.filter_share and self.attention == "pointwise":
            raise ValueError("filter_share: goes with attention: softmax alone")
        if self.filter_share and self.low_frequencies > self.max_length // 2 + 1:
            raise ValueError(f"low_frequencies: max_length {self.max_length} has {self.max_length // 2 + 1} of them")
        if self.embedding_dim % self.heads:
            raise ValueError(f"heads: {self.heads} must divide embedding_dim {self.embedding_dim}")
        return self


class BERT4RecConfig(SequenceConfig):
    max_length: int = Field(default=50, ge=2)
    """Positions that the network sees: the newest events of a history, which may be longer, and a mask."""
    loss: SequenceLoss = "cross_entropy"
    """As in SASRec."""
    mask_probability: float = Field(default=0.2, gt=0, le=1)
    """Chance of every item of an example to be masked; at least one is."""
    last_item_share: float = Field(default=0.2, ge=0, le=1)
    """Share of the examples in which the last item is masked and nothing else."""
