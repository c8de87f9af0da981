"""The settings of TwoTower."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from recsys_ray.models.linalg.pooling import Pooling, RecentSettings
from recsys_ray.training import LoopConfig
from recsys_ray.training.config import RankingSettings


class TwoTowerConfig(LoopConfig, RankingSettings, RecentSettings):
    embedding_dim: int = Field(default=128, ge=1)
    """Length of the vector of an id, and the width to which inputs are brought before they are fused."""
    feature_dim: int = Field(default=32, ge=1)
    """Width of the features of an item or a user under fusion = concat_mlp."""
    content_dim: int = Field(default=64, ge=1)
    """Width of a text or poster vector of an item under fusion = concat_mlp."""
    layers: list[int] = Field(default=[256, 128])
    """Widths of the layers behind the fused inputs in both towers; the last is the length of the vectors. [] has none:
    the vectors are the fused inputs, embedding_dim long."""
    fusion: Literal["concat_mlp", "weighted", "gated", "attention", "bilinear"] = "concat_mlp"
    """How the inputs of a tower become one. concat_mlp: end to end into the layers. weighted: a mean with learned
    weights. gated: a sum, with a gate for every number. attention: a mean whose weights depend on the item or user.
    bilinear: a sum with products of pairs of inputs."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of values set to 0 in training behind every layer but the last."""
    batch_norm: bool = True
    """Normalise over the batch behind every layer but the last."""
    initialization: Literal["normal", "spectral"] = "normal"
    """Where vectors of ids start. spectral: at the leading singular vectors of the normalised interactions, users' and
    items' alike, which suits towers without layers."""
    initial_std: float = Field(default=0.1, gt=0)
    """Standard deviation of the initial vectors of ids."""

    use_features: bool = True
    """Features of items (genres, year, numeric columns, popularity, ratings), of histories, and what the table of users
    says as inputs."""
    use_content: bool = False
    """Vectors of the items' texts and posters as an input; needs a section content."""
    content_inputs: Literal["fused", "apart"] = "fused"
    """fused: one input, with the weights of content.fusion. apart: text and poster are an input each, and how they
    become one is learned, by ``fusion``; what an item lacks is left out of it."""
    user_id: bool = False
    """A vector of each user's own as an input of the user tower, beside the history."""
    id_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the items and users of a step that are shown without their ids, so that unknown ones can be answered."""

    history_items: Literal["shared", "own"] = "shared"
    """Which vectors of items are pooled to a history: those that are ranked, or those of a tower of its own."""
    history_limit: int | None = Field(default=None, ge=1)
    """How many of the newest events of a history are pooled; null: all."""
    half_life_days: float | None = Field(default=None, gt=0)
    """An event this much older than the newest of its history counts half; null: all count the same."""
    history_popularity_power: float = 0.0
    """An item weighs in a pooled history as its number of interactions to this power; -0.5 is what LightGCN does."""
    rating_weight: Literal["none", "rating"] = "none"
    """What a rating adds to the weight of an event in the pooled history: nothing or itself."""

    similarity: Literal["cosine", "inner"] = "cosine"
    """How a user and an item are compared."""
    temperature: float = Field(default=0.1, gt=0)
    """Divides cosines before the loss; not used by inner and cosine_contrastive."""
    length_power: float = Field(default=0.0, ge=0)
    """Under cosine, item vectors are ranked with their length to this power, which grows with popularity."""
    loss: Literal[
        "sampled_softmax",
        "bilateral_softmax",
        "softmax_at_k",
        "info_nce",
        "direct_au",
        "cosine_contrastive",
        "bpr",
        "bce",
        "mse",
        "mse_bpr",
    ] = "sampled_softmax"
    """sampled_softmax: the target among the negatives. bilateral_softmax: also among its user's targets. softmax_at_k:
    the more, the nearer the target is to the top of the list. info_nce: the target among the targets of the whole
    batch. direct_au: without negatives; compares all targets of a batch with each other. cosine_contrastive: the target
    towards cosine 1, negatives below the margin. bpr, bce: pairwise and pointwise, against the negatives. mse: the
    squared error of the ratings. mse_bpr: both."""
    margin: float = Field(default=0.8, ge=-1, lt=1)
    """Cosine up to which a negative costs nothing under loss = cosine_contrastive."""
    negative_weight: float = Field(default=150.0, gt=0)
    """What the mean over the negatives counts under loss = cosine_contrastive, beside 1 for the target."""
    mse_share: float = Field(default=0.7, gt=0, lt=1)
    """Weight of the rating error under loss = mse_bpr; the rest is bpr's."""
    negatives: int = Field(default=1024, ge=1)
    """Negatives of a batch, shared by all its targets; not used by info_nce, direct_au and mse."""
    negative_strategy: Literal["uniform", "popularity", "in_batch", "mixed", "hard"] = "mixed"
    """Where negatives come from; mixed: half from the batch, half uniform; hard: the best scored of hard_candidates."""
    hard_candidates: int = Field(default=4096, ge=1)
    """Candidates of a batch under negative_strategy = hard: the negatives of a target are the best scored of them that
    its user does not have."""
    popularity_power: float = Field(default=1.0, ge=0)
    """Power of an item's count under negative_strategy = popularity."""
    correct_popularity: bool = True
    """Take the log of how often an item was to be expected among the negatives off its score (softmax, info_nce)."""
    positives_per_user: int | None = Field(default=32, ge=1)
    """Targets of a user in one epoch, at most, drawn anew in each; null: the whole history."""

    epochs: int = Field(default=20, ge=1)
    """Passes over the users, at most."""
    batch_size: int = Field(default=256, ge=1)
    """Users of one step, over all workers together: the result does not depend on the number of workers."""

    @model_validator(mode="after")
    def _possible(self) -> TwoTowerConfig:
        if any(width < 1 for width in self.layers):
            raise ValueError(f"layers: widths must be positive, found {self.layers}")
        of_cosines = self.loss in ("info_nce", "direct_au", "cosine_contrastive")
        if self.similarity == "inner" and (self.length_power or self.recent_weight or of_cosines):
            losses = "loss = info_nce, direct_au or cosine_contrastive"
            raise ValueError(f"similarity: inner goes without length_power, recent_weight and {losses}")
        if self.negative_strategy == "hard" and self.hard_candidates < self.negatives:
            raise ValueError("negative_strategy: hard needs hard_candidates >= negatives")
        if self.content_inputs == "apart" and not self.use_content:
            raise ValueError("content_inputs: apart needs use_content = true")
        return self

    @property
    def pooling(self) -> Pooling:
        return Pooling(self.history_limit, self.half_life_days, self.rating_weight)
