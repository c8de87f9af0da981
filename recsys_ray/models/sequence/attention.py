"""How the positions of a history reach each other: rows of like length together, and biases by distance and time.

P are the real positions of all rows end to end; G the rows of a group, L the longest of them, H heads, W the
``max_length`` of the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

GROUP_ROWS = 64  # rows of a group on a CPU; a GPU takes all at once
HALF_OCTAVES = 64
"""Buckets of the time between two events: two an octave of 1 + seconds; the last begins at 68 years."""
MILLISECONDS = 1000.0


@dataclass(frozen=True, slots=True)
class Group:
    """Some rows that follow each other, as a rectangle no wider than their longest."""

    places: slice
    """Of their real positions among P."""
    real_GL: Tensor
    visible_GLL: Tensor
    """From which position (first L) which one (second L) is seen."""
    bias_GHLL: Tensor | None

    def spread(self, values_PD: Tensor) -> Tensor:
        """(G, L, D) with zeros at the padding."""
        flat = values_PD.new_zeros(self.real_GL.numel(), values_PD.shape[1])
        flat = flat.index_copy(0, torch.nonzero(self.real_GL.flatten())[:, 0], values_PD[self.places])
        return flat.view(*self.real_GL.shape, -1)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the P real positions of a padded rectangle are. All that lets positions reach each other works on groups of
    rows, all else on the real positions alone: most histories are short, and most of the rectangle is padding."""

    groups: list[Group]

    def mixed(self, values_PD: Tensor, mix: Callable[[Tensor, Group], Tensor]) -> Tensor:
        """(P, D) what ``mix`` makes of each group's rectangle, (G, L, D) -> (G, L, D)."""
        return torch.cat([mix(group.spread(values_PD), group)[group.real_GL] for group in self.groups])


def places_of(real_BL: Tensor, times_BL: Tensor | None, causal: bool, bias: RelativeBias | None) -> Places:
    """The groups of rows padded on the left; neighbours of like length make narrow ones."""
    rows = GROUP_ROWS if real_BL.device.type == "cpu" else max(1, len(real_BL))
    groups, first = [], 0
    for start in range(0, len(real_BL), rows):
        part_GL = real_BL[start : start + rows]
        width = max(1, int(part_GL.sum(dim=1).max()))
        part_GL = part_GL[:, -width:]
        # A padded position sees itself: a row of nothing but hidden entries would be 0 / 0.
        visible_GLL = part_GL[:, None, :] | torch.eye(width, dtype=torch.bool, device=part_GL.device)
        if causal:
            visible_GLL = visible_GLL.tril()
        part_times = None if times_BL is None else times_BL[start : start + rows, -width:]
        stop = first + int(part_GL.sum())
        found = None if bias is None else bias(width, part_times)
        groups.append(Group(slice(first, stop), part_GL, visible_GLL, found))
        first = stop
    return Places(groups)


class RelativeBias(nn.Module):
    """What is added to the attention from one event to another for how far apart they are: in places, a number for
    every distance; in time, a number for every bucket. Both know differences alone: a history that is moved as a whole
    is read alike. Zhai et al., "Actions Speak Louder than Words" (ICML 2024), who share it between heads."""

    def __init__(self, max_length: int, heads: int, causal: bool, by_place: bool, by_time: bool) -> None:
        super().__init__()
        self.before = 0 if causal else max_length - 1
        """The number of the distance 0: none is negative where only earlier events are seen."""
        self.place = nn.Embedding(max_length + self.before, heads) if by_place else None
        self.time = nn.Embedding(HALF_OCTAVES, heads) if by_time else None

    def forward(self, length: int, times_GL: Tensor | None) -> Tensor:
        """(G, H, L, L), or (1, H, L, L) where time does not count."""
        found_GLLH: Tensor | float = 0.0
        if self.place is not None:
            places_L = torch.arange(length, device=self.place.weight.device)
            apart_LL = (places_L[:, None] - places_L + self.before).clamp_min(0)
            found_GLLH = self.place(apart_LL)[None]
        if self.time is not None:
            assert times_GL is not None
            found_GLLH = found_GLLH + self.time(time_buckets(times_GL))
        assert isinstance(found_GLLH, Tensor)
        return found_GLLH.permute(0, 3, 1, 2)


def time_buckets(times_GL: Tensor) -> Tensor:
    """(G, L, L) the bucket of the time between any two events; times are in milliseconds."""
    seconds_GLL = (times_GL[:, :, None] - times_GL[:, None, :]).abs().double() / MILLISECONDS
    return (2 * torch.log2(1 + seconds_GLL)).long().clamp_max(HALF_OCTAVES - 1)


def low_pass(max_length: int, frequencies: int, length: int, causal: bool) -> Tensor:
    """(L, L) the matrix that keeps the lowest ``frequencies`` of the discrete Fourier transform of W positions.

    It is the circulant of one kernel, (1 / W) sum over |f| < frequencies of cos(2 pi f d / W) at distance d. Causal, a
    position gets what the transform of the W positions up to itself, zeros before the first, has at the last: its
    lower triangle.
    """
    distances_L = torch.arange(length, dtype=torch.float64)
    waves_FL = torch.cos(2 * math.pi / max_length * torch.arange(frequencies)[:, None] * distances_L)
    counts_F = torch.full((frequencies, 1), 2.0, dtype=torch.float64)
    counts_F[0] = 1.0
    if 2 * (frequencies - 1) == max_length:  # the highest of an even length stands for itself alone
        counts_F[-1] = 1.0
    kernel_L = (counts_F * waves_FL).sum(dim=0) / max_length
    places_L = torch.arange(length)
    matrix_LL = kernel_L[(places_L[:, None] - places_L).abs()].float()
    return matrix_LL.tril() if causal else matrix_LL
