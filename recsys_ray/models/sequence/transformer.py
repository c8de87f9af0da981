"""An encoder of item sequences, shared by the sequence models: causal or in both directions.

Sequences are padded on the left, and positions are counted from the newest event, so that what an event means does not
depend on how long the history before it is, nor on the other rows of a batch.

P are the real positions of all rows end to end; G, L the rectangle of a group of rows, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys_ray.base.types import BoolArray, FloatArray, ItemContent
from recsys_ray.models.sequence.attention import Group, Places, RelativeBias, low_pass, places_of


@dataclass(frozen=True, slots=True)
class TransformerShape:
    """What is needed to build the network again."""

    num_embeddings: int
    """Items, then special tokens: the last row is the padding, the one before it the mask, unless causal."""
    embedding_dim: int
    hidden_dim: int
    blocks: int
    heads: int
    max_length: int
    dropout: float
    causal: bool
    activation: str
    attention: str = "softmax"
    positions: str = "absolute"
    relative_time: bool = False
    low_frequencies: int = 0
    filter_share: float = 0.0


class FrequencyFilter(nn.Module):
    """Low frequencies of the positions' values as they are, the others times the square of a trained number for each
    dimension (Shin et al., "An Attentive Inductive Bias for Sequential Recommendation Beyond the Self-Attention", AAAI
    2024)."""

    matrix_WW: Tensor

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        matrix_WW = low_pass(shape.max_length, shape.low_frequencies, shape.max_length, shape.causal)
        self.register_buffer("matrix_WW", matrix_WW)
        self.root_D = nn.Parameter(torch.randn(shape.embedding_dim))

    def forward(self, values_GLD: Tensor, group: Group) -> Tensor:
        length = values_GLD.shape[1]
        low_GLD = self.matrix_WW[:length, :length] @ values_GLD
        filtered_GLD: Tensor = low_GLD + self.root_D.square() * (values_GLD - low_GLD)
        return filtered_GLD


class Block(nn.Module):
    """Self-attention, with a share of the frequency filter where one is asked for, and a position-wise network, each
    with a residual around it and normalised before."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        dim = shape.embedding_dim
        self.heads, self.dropout, self.filter_share = shape.heads, shape.dropout, shape.filter_share
        self.attention_norm, self.network_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value, self.output = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.filter = FrequencyFilter(shape) if shape.filter_share else None
        self.widen, self.narrow = nn.Linear(dim, shape.hidden_dim), nn.Linear(shape.hidden_dim, dim)
        self.activation = functional.gelu if shape.activation == "gelu" else functional.relu

    def forward(self, values_PD: Tensor, places: Places) -> Tensor:
        normal_PD = self.attention_norm(values_PD)
        mixed_PD: Tensor = self.output(places.mixed(self.query_key_value(normal_PD), self._attend))
        if self.filter is not None:
            filtered_PD = places.mixed(normal_PD, self.filter)
            mixed_PD = torch.lerp(mixed_PD, filtered_PD.to(mixed_PD.dtype), self.filter_share)
        values_PD = values_PD + self._drop(mixed_PD)
        inner = self._drop(self.activation(self.widen(self.network_norm(values_PD))))
        result: Tensor = values_PD + self._drop(self.narrow(inner))
        return result

    def _attend(self, padded: Tensor, group: Group) -> Tensor:
        rows, length = group.real_GL.shape
        # A head and a kind (query, key, value) apart: each (G, H, L, D / H).
        query, key, value = padded.view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mask = group.visible_GLL[:, None]
        if group.bias_GHLL is not None:
            mask = group.bias_GHLL.masked_fill(~mask, float("-inf")).to(query.dtype)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        return mixed.transpose(1, 2).reshape(rows, length, -1)

    def _drop(self, values: Tensor) -> Tensor:
        return functional.dropout(values, self.dropout, self.training)


class PointwiseBlock(nn.Module):
    """A block of HSTU (Zhai et al., "Actions Speak Louder than Words", ICML 2024): attention whose weights are each by
    itself, no softmax over a history, so that how much there is of something counts; a gate in place of the
    position-wise network, which the block has not."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        dim = shape.embedding_dim
        self.heads, self.dropout, self.max_length = shape.heads, shape.dropout, shape.max_length
        self.norm, self.inner_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.widen, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(dim, dim)

    def forward(self, values_PD: Tensor, places: Places) -> Tensor:
        dim = values_PD.shape[1]
        wide = functional.silu(self.widen(self.norm(values_PD)))
        gate_PD, others = wide[:, :dim], wide[:, dim:]
        gated_PD = self.inner_norm(places.mixed(others, self._attend)) * gate_PD
        result: Tensor = values_PD + self.narrow(functional.dropout(gated_PD, self.dropout, self.training))
        return result

    def _attend(self, padded: Tensor, group: Group) -> Tensor:
        rows, length = group.real_GL.shape
        query, key, value = padded.view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores_GHLL = query @ key.transpose(2, 3)
        if group.bias_GHLL is not None:
            scores_GHLL = scores_GHLL + group.bias_GHLL
        weights_GHLL = functional.silu(scores_GHLL) * group.visible_GLL[:, None] / self.max_length
        mixed_GLD: Tensor = (weights_GHLL.to(value.dtype) @ value).transpose(1, 2).reshape(rows, length, -1)
        return mixed_GLD


class SequenceEncoder(nn.Module):
    """What is known at every position of (B, L) items, from it and earlier ones or from all."""

    content_NF: Tensor | None
    trained_N: Tensor | None

    def __init__(
        self, shape: TransformerShape, content: ItemContent | None = None, trained_I: BoolArray | None = None
    ) -> None:
        super().__init__()
        assert shape.embedding_dim % shape.heads == 0
        self.shape = shape
        self.content_map = None
        self.register_buffer("content_NF", None, persistent=False)
        self.register_buffer("trained_N", None, persistent=False)
        if content is not None and trained_I is not None:
            self.content_map = nn.Linear(content.vectors_ID.shape[1], shape.embedding_dim, bias=False)
            self.content_NF = _with_tokens(content.vectors_ID, shape.num_embeddings)
            self.trained_N = _with_tokens(trained_I, shape.num_embeddings)
        self.embedding = nn.Embedding(shape.num_embeddings, shape.embedding_dim)
        self.position = None
        if shape.positions != "relative":
            self.position = nn.Embedding(shape.max_length, shape.embedding_dim)
        self.bias = None
        if shape.positions != "absolute" or shape.relative_time:
            by_place = shape.positions != "absolute"
            self.bias = RelativeBias(shape.max_length, shape.heads, shape.causal, by_place, shape.relative_time)
        block = PointwiseBlock if shape.attention == "pointwise" else Block
        self.blocks = nn.ModuleList(block(shape) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(shape.embedding_dim)
        self.apply(_initialise)

    @property
    def padding(self) -> int:
        return self.shape.num_embeddings - 1

    @property
    def mask(self) -> int:
        """Stands for an item that is asked for."""
        assert not self.shape.causal
        return self.shape.num_embeddings - 2

    def table(self) -> Tensor:
        """(N, D) the vectors of all items and tokens: their own, and what their content adds; an item that was never
        trained has the content's alone."""
        weight_ND = self.embedding.weight
        if self.content_map is None or self.content_NF is None or self.trained_N is None:
            return weight_ND
        table_ND: Tensor = weight_ND * self.trained_N[:, None] + self.content_map(self.content_NF)
        return table_ND

    def forward(self, items_BL: Tensor, table_ND: Tensor | None = None, times_BL: Tensor | None = None) -> Tensor:
        """(P, D) the states at the P real positions, row by row; ``table_ND`` is ``table()`` where it is at hand,
        ``times_BL`` are needed with relative_time."""
        table_ND = self.table() if table_ND is None else table_ND
        length = items_BL.shape[1]
        real_BL = items_BL != self.padding
        # P: real positions alone, row by row; each position's vector counts from the newest of its row.
        values_PD = functional.embedding(items_BL[real_BL], table_ND) * self.shape.embedding_dim**0.5
        if self.position is not None:
            from_newest_BL = torch.arange(length - 1, -1, -1, device=items_BL.device).expand_as(items_BL)
            values_PD = values_PD + self.position(from_newest_BL[real_BL])
        values_PD = functional.dropout(values_PD, self.shape.dropout, self.training)
        places = places_of(real_BL, times_BL, self.shape.causal, self.bias)
        for block in self.blocks:
            values_PD = block(values_PD, places)
        result: Tensor = self.norm(values_PD)
        return result


def _with_tokens(rows_I: FloatArray | BoolArray, num_embeddings: int) -> Tensor:
    """Rows of items as float32; those of the tokens behind them are ones for flags, zeros for vectors."""
    rows = torch.from_numpy(rows_I.astype("float32"))
    fill = 1.0 if rows.dim() == 1 else 0.0
    return torch.cat([rows, rows.new_full((num_embeddings - len(rows), *rows.shape[1:]), fill)])


def _initialise(module: nn.Module) -> None:
    """Normal(0, 0.02) weights, zero biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
