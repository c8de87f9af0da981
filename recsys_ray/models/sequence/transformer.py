"""A transformer over item sequences, shared by the sequence models: causal or in both directions.

Sequences are padded on the left, and positions are counted from the newest event, so that what an event means does not
depend on how long the history before it is, nor on the other rows of a batch.

P are the real positions of all rows end to end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys_ray.base.types import BoolArray, FloatArray, ItemContent


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


@dataclass(frozen=True, slots=True)
class Places:
    """Where the P real positions of a padded rectangle are. All but attention works on these alone: most histories are
    short, and most of the rectangle is padding."""

    real_BL: Tensor
    visible_BLL: Tensor

    def spread(self, values_PD: Tensor) -> Tensor:
        """(B, L, D) with zeros at the padding."""
        flat = values_PD.new_zeros(self.real_BL.numel(), values_PD.shape[1])
        flat = flat.index_copy(0, torch.nonzero(self.real_BL.flatten())[:, 0], values_PD)
        return flat.view(*self.real_BL.shape, -1)


class Block(nn.Module):
    """Self-attention and a position-wise network, each with a residual around it and normalised before."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        dim = shape.embedding_dim
        self.heads, self.dropout = shape.heads, shape.dropout
        self.attention_norm, self.network_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value, self.output = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.widen, self.narrow = nn.Linear(dim, shape.hidden_dim), nn.Linear(shape.hidden_dim, dim)
        self.activation = functional.gelu if shape.activation == "gelu" else functional.relu

    def forward(self, values_PD: Tensor, places: Places) -> Tensor:
        values_PD = values_PD + self._drop(self._attend(self.attention_norm(values_PD), places))
        inner = self._drop(self.activation(self.widen(self.network_norm(values_PD))))
        result: Tensor = values_PD + self._drop(self.narrow(inner))
        return result

    def _attend(self, values_PD: Tensor, places: Places) -> Tensor:
        rows, length = places.real_BL.shape
        heads, dim = self.heads, values_PD.shape[1]
        # From real positions to rectangles, a head and a kind (query, key, value) apart: each (B, heads, L, D / heads).
        padded = places.spread(self.query_key_value(values_PD)).view(rows, length, 3, heads, dim // heads)
        query, key, value = padded.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=places.visible_BLL[:, None], dropout_p=self.dropout if self.training else 0.0
        )
        output: Tensor = self.output(mixed.transpose(1, 2).reshape(rows, length, dim)[places.real_BL])
        return output

    def _drop(self, values: Tensor) -> Tensor:
        return functional.dropout(values, self.dropout, self.training)


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
        self.position = nn.Embedding(shape.max_length, shape.embedding_dim)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
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

    def forward(self, items_BL: Tensor, table_ND: Tensor | None = None) -> Tensor:
        """(P, D) the states at the P real positions, row by row; ``table_ND`` is ``table()`` where it is at hand."""
        table_ND = self.table() if table_ND is None else table_ND
        length = items_BL.shape[1]
        real_BL = items_BL != self.padding
        from_newest_BL = torch.arange(length - 1, -1, -1, device=items_BL.device).expand_as(items_BL)
        # P: real positions alone, row by row; each position's vector counts from the newest of its row.
        values_PD = functional.embedding(items_BL[real_BL], table_ND) * self.shape.embedding_dim**0.5
        values_PD = values_PD + self.position(from_newest_BL[real_BL])
        values_PD = functional.dropout(values_PD, self.shape.dropout, self.training)
        # A padded position sees itself: a row of nothing but hidden entries would be 0 / 0.
        visible_BLL = real_BL[:, None, :] | torch.eye(length, dtype=torch.bool, device=items_BL.device)
        if self.shape.causal:
            visible_BLL = visible_BLL.tril()
        places = Places(real_BL, visible_BLL)
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
