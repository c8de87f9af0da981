"""A tower: several inputs of a user or an item, each brought to a width, fused, and sent through layers to one vector.

K are the inputs, D is the width that they have in common.
"""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import torch
from torch import Tensor, nn

from recsys_ray.models.two_tower.inputs import CONTENT, TowerShape
from recsys_ray.training.worker import LocalWorker, Worker
from recsys_ray.training.workers import all_sum


class Tower(nn.Module):
    """(B, length) inputs by name to (B, output) vectors."""

    def __init__(self, shape: TowerShape, worker: Worker | None = None) -> None:
        super().__init__()
        self.shape = shape
        concat = shape.fusion == "concat_mlp" and len(shape.inputs) > 1
        widths = {name: shape.widths[name] if concat else shape.width for name in shape.inputs}
        self.maps = nn.ModuleDict({name: _to_width(name, shape.inputs[name], widths[name]) for name in shape.inputs})
        self.fusion: nn.Module = nn.Identity()
        width = sum(widths.values()) if concat else shape.width
        if len(shape.inputs) > 1:
            self.fusion = Concat() if concat else FUSIONS[shape.fusion](len(shape.inputs), shape.width)
        # A concatenation without layers still has to come to the width that both towers share.
        dims = shape.layers or ([shape.width] if concat else [])
        layers: list[nn.Module] = []
        for before, after in pairwise([width, *dims[:-1]]):
            layers.append(nn.Linear(before, after, bias=not shape.batch_norm))  # which would take it off again
            layers += [BatchNorm(after, worker or LocalWorker())] if shape.batch_norm else []
            layers += [nn.ReLU(), nn.Dropout(shape.dropout)]
        if dims:
            # A bias that all vectors share would make all of them alike at the start.
            layers.append(nn.Linear([width, *dims][-2], dims[-1], bias=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        parts = [self.maps[name](inputs[name]) for name in self.shape.inputs]
        if len(parts) == 1:
            fused = parts[0]
        elif isinstance(self.fusion, Concat):
            fused = self.fusion(parts)  # the map of what may be lacking has no bias: zeros stay zeros
        else:
            there = [self._there(name, inputs[name]) for name in self.shape.inputs]
            fused = self.fusion(torch.stack(parts, dim=1), torch.stack(there, dim=1))
        vectors: Tensor = self.layers(fused)
        return vectors

    @staticmethod
    def _there(name: str, values_BF: Tensor) -> Tensor:
        """(B,) which rows have this input."""
        if name in CONTENT:
            return values_BF.any(dim=1)
        return torch.ones(len(values_BF), dtype=torch.bool, device=values_BF.device)


def _to_width(name: str, length: int, width: int) -> nn.Module:
    """Embeddings that fit go in as they are; features through a layer of their own, others through a linear map."""
    if name in ("features", "attributes"):
        return nn.Sequential(nn.Linear(length, width), nn.ReLU())
    return nn.Identity() if length == width else nn.Linear(length, width, bias=False)


class Concat(nn.Module):
    """End to end; what they have to do with each other is left to the layers behind."""

    def forward(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, dim=1)


def _shares(logits_BK: Tensor, there_BK: Tensor) -> Tensor:
    """(B, K) softmax over the inputs that a row has; the id is one that every row has."""
    return torch.softmax(logits_BK.masked_fill(~there_BK, -math.inf), dim=1)


class Weighted(nn.Module):
    """A mean with one learned weight per input; over those that a row has."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.logits_K = nn.Parameter(torch.zeros(count))

    def forward(self, parts_BKD: Tensor, there_BK: Tensor) -> Tensor:
        return torch.einsum("bkd,bk->bd", parts_BKD, _shares(self.logits_K.expand(there_BK.shape), there_BK))


class Gated(nn.Module):
    """A sum in which every number of every input has a gate that looks at all inputs (Arevalo et al., "Gated
    Multimodal Units for Information Fusion", 2017)."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.gates = nn.Linear(count * width, count * width)

    def forward(self, parts_BKD: Tensor, there_BK: Tensor) -> Tensor:
        gates_BKD = torch.sigmoid(self.gates(parts_BKD.flatten(1))).view_as(parts_BKD)
        return (gates_BKD * parts_BKD * there_BK[:, :, None]).sum(dim=1)


class Attention(nn.Module):
    """A mean whose weights depend on the row: v . tanh(W part), softmax over the inputs (Bahdanau et al. 2015)."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.hidden, self.score = nn.Linear(width, width), nn.Linear(width, 1, bias=False)

    def forward(self, parts_BKD: Tensor, there_BK: Tensor) -> Tensor:
        shares_BK = _shares(self.score(torch.tanh(self.hidden(parts_BKD)))[:, :, 0], there_BK)
        return (shares_BK[:, :, None] * parts_BKD).sum(dim=1)


class Bilinear(nn.Module):
    """The sum of the inputs and of (W_jk part_j) * part_k over all pairs (Huang et al., "FiBiNET", RecSys 2019)."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.pairs = list(combinations(range(count), 2))
        self.maps = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in self.pairs)

    def forward(self, parts_BKD: Tensor, there_BK: Tensor) -> Tensor:
        parts_BKD = parts_BKD * there_BK[:, :, None]  # what is lacking is in no sum and in no product
        fused_BD = parts_BKD.sum(dim=1)
        for (left, right), weights in zip(self.pairs, self.maps, strict=True):
            fused_BD = fused_BD + weights(parts_BKD[:, left]) * parts_BKD[:, right]
        return fused_BD


FUSIONS: dict[str, type[nn.Module]] = {
    "weighted": Weighted,
    "gated": Gated,
    "attention": Attention,
    "bilinear": Bilinear,
}


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy, ICML 2015) over the rows of all workers together, on any device."""

    mean_D: Tensor
    variance_D: Tensor

    def __init__(self, width: int, worker: Worker, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.worker, self.momentum, self.epsilon = worker, momentum, epsilon
        self.scale_D, self.shift_D = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("mean_D", torch.zeros(width))
        self.register_buffer("variance_D", torch.ones(width))

    def forward(self, values_BD: Tensor) -> Tensor:
        mean_D, variance_D = self.mean_D, self.variance_D
        if self.training:
            rows = all_sum(values_BD.new_tensor(float(len(values_BD))), self.worker)
            mean_D = all_sum(values_BD.sum(dim=0), self.worker) / rows
            variance_D = all_sum((values_BD - mean_D).square().sum(dim=0), self.worker) / rows
            with torch.no_grad():
                self.mean_D.lerp_(mean_D, self.momentum)
                self.variance_D.lerp_(variance_D, self.momentum)
        return (values_BD - mean_D) * torch.rsqrt(variance_D + self.epsilon) * self.scale_D + self.shift_D
