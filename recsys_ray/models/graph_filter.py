"""Graph filters: a history smoothed over the graph of items that share users. Nothing is trained.

Sources: Shen et al., "How Powerful is Graph Convolution for Recommendation?" (CIKM 2021); Kim et al., "Graph Spectral
Filtering with Chebyshev Interpolation for Recommendation" (SIGIR 2025). With B the binary interactions (U, I), D_u and
D_i the degrees of users and items, a, b, p the powers ``user_power``, ``item_power``, ``degree_power``:

    scores = B D_i^-p F D_i^p,    R = D_u^-a B D_i^-b,    the eigenvalues m of R'R telling how smooth a signal is

    linear      F = R'R             with all powers 1/2 the chance to get from item i through one of its users to item j
    chebyshev   F = h(R'R) + low_pass_weight V V',    h(m) = (1 + sign(x) |x|^flatness) / 2 at x = 2 m - 1
    ideal       F = V V'

V are the ``low_pass_dim`` leading right singular vectors of R, and the largest singular value is brought to 1 under
chebyshev. h is interpolated by a polynomial of degree ``order`` at the Chebyshev nodes; flatness 1 makes it R'R, and so
the whole of Shen et al. Where we depart: both degree powers are free, by default below 1/2, so that long histories and
popular items keep more of their weight; and with ``choose`` settings are looked for on held-out events.

The polynomial is applied to histories when they are asked about, which is exact; with ``neighbors`` the matrix of all
items is filled once, and its largest entries are kept.
Time: linear, an addition per pair of items in a history; V, see ``linalg.low_rank``; an answer under chebyshev,
2 * order multiply-adds an interaction. Memory: linear, 8 bytes per pair of items that share a user; else items *
low_pass_dim * 16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from recsys_ray.base.types import (
    Counts,
    FitContext,
    FloatArray,
    IntArray,
    LongArray,
    MemoryEstimate,
    Scorer,
    TrainData,
)
from recsys_ray.models.base import Model, require_finite
from recsys_ray.models.graph_filter_choice import chosen
from recsys_ray.models.linalg.graph import WIDTH
from recsys_ray.models.linalg.low_rank import OVERSAMPLING
from recsys_ray.models.linalg.pooling import EventWeights, RecentSettings
from recsys_ray.models.linalg.similarity import (
    ItemProduct,
    by_rows,
    largest_of_rows,
    multiply,
    product_memory,
    scaled,
)
from recsys_ray.models.linalg.spectrum import Spectrum, degree_powers, step_coefficients
from recsys_ray.models.scorers.graph_filter import GraphFilterScorer
from recsys_ray.models.scorers.linear import LinearScorer, LowRankScorer

if TYPE_CHECKING:
    import scipy.sparse as sp

HALVES, GENTLE = (0.5, 0.5, 0.5), (0.3, 0.4, 0.3)
"""The powers of users, items and degrees: those of Shen et al., and those that chebyshev and ideal have by default."""
CHOSEN = ("user_power", "item_power", "degree_power", "low_pass_weight")
ONLY_CHEBYSHEV = ("order", "flatness", "low_pass_weight", "choose")


class GraphFilter(RecentSettings, Model):
    """A low-pass filter on the graph of items: linear, by a Chebyshev polynomial, or ideal."""

    key: ClassVar[str] = "graph_filter"
    scorers: ClassVar[tuple[type[Scorer], ...]] = (LinearScorer, GraphFilterScorer, LowRankScorer)

    filter: Literal["linear", "chebyshev", "ideal"] = "linear"
    """linear: two steps of a random walk. chebyshev: a smooth step of the graph's frequencies, by a polynomial, plus
    the ideal one with a weight. ideal: the leading singular vectors alone."""
    neighbors: int | None = Field(default=None, ge=1)
    """Keep so many largest entries of each row of the item-item matrix. null keeps all under linear, and makes no
    matrix under chebyshev: histories are filtered when asked about. For catalogues whose full matrix is too large, or
    for quick single answers. ideal has no matrix."""
    user_power: float | None = Field(default=None, ge=0, le=1)
    """a: longer histories say less about each pair of items. null: .5 under linear, else .3."""
    item_power: float | None = Field(default=None, ge=0, le=1)
    """b: popular items connect less. null: .5 under linear, else .4."""
    degree_power: float | None = Field(default=None, ge=0, le=1)
    """p: popular items of a history count less and popular items gain as answers. null: .5 under linear, else .3."""
    order: int = Field(default=5, ge=1)
    """Degree of the polynomial; chebyshev only."""
    flatness: float = Field(default=1.5, gt=0)
    """Shape of the step that the polynomial follows: 1 straight, larger flatter in the middle; chebyshev only."""
    low_pass_dim: int = Field(default=768, ge=1)
    """Singular vectors of the ideal low-pass, at most an eighth of the smaller of users and items; not under linear."""
    low_pass_weight: float = Field(default=0.2, ge=0)
    """What the ideal low-pass counts beside the polynomial; chebyshev only."""
    choose: Literal["random", "both"] | None = None
    """Choose powers, low_pass_weight and low_pass_dim on events held out of the training histories, instead of taking
    what is set: random, where the order of events says nothing; both, half of them the newest of a history, which
    chooses recent_weight too. chebyshev only."""
    recent_weight: float = Field(default=0.0, ge=0)
    """How long the vector of the last events is beside that of the whole history, 1, in what is filtered."""

    @model_validator(mode="after")
    def _used(self) -> GraphFilter:
        idle = [name for name in ONLY_CHEBYSHEV if self.filter != "chebyshev" and name in self.changed]
        if self.filter == "linear" and "low_pass_dim" in self.changed:
            idle.append("low_pass_dim")
        if self.filter == "ideal" and self.neighbors is not None:
            idle.append("neighbors")
        if self.choose is not None:
            names = CHOSEN if self.choose == "random" else (*CHOSEN, "recent_weight")
            idle += [name for name in names if name in self.changed]
        if idle:
            chooses = self.filter == "chebyshev" and self.choose is not None
            cause = f"choose = {self.choose}" if chooses else f"filter = {self.filter}"
            raise ValueError(f"{idle[0]} has no effect with {cause}; unset it")
        return self

    @property
    def changed(self) -> set[str]:
        """Settings that are not at their defaults."""
        return {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}

    @property
    def powers(self) -> tuple[float, float, float]:
        """a, b and p."""
        usual = HALVES if self.filter == "linear" else GENTLE
        given = (self.user_power, self.item_power, self.degree_power)
        return tuple(own if value is None else value for value, own in zip(given, usual, strict=True))  # type: ignore[return-value]

    def fit_scorer(self, data: TrainData, context: FitContext) -> LinearScorer | GraphFilterScorer | LowRankScorer:
        users_items = data.histories.matrix(data.num_items)
        if self.filter == "linear":
            return self._linear(users_items, context)
        if self.choose is not None:
            return chosen(self, data, context).fit_scorer(data, context)
        parts = Spectrum.of(users_items, self.powers, self.low_pass_dim, context)
        require_finite("graph_filter", "report it with the data's counts", parts.vectors_ID)
        if self.filter == "ideal":
            scales_I = parts.scales_I[:, None]
            return LowRankScorer(
                items_ID=parts.vectors_ID * scales_I,
                trained_I=parts.trained_I,
                weighting=self._events,
                history_ID=parts.vectors_ID / scales_I,
            )
        scorer = self.scorer_of(parts)
        return scorer if self.neighbors is None else self._truncated(scorer, context)

    def memory(self, counts: Counts) -> MemoryEstimate:
        if self.filter == "linear":
            return product_memory(counts, self.neighbors, "set model.neighbors (such as 500)")
        vectors = self.low_pass_dim + OVERSAMPLING
        # The subspace, its image on both sides and a basis; the graph both ways; what is filtered at a time.
        size = 4 * vectors * (4 * counts.num_items + counts.num_users) + 48 * counts.num_interactions
        size += 4 * WIDTH * (6 * counts.num_items + 2 * counts.num_users)
        if self.neighbors is not None:
            size += 2 * 8 * counts.num_items * min(self.neighbors, counts.num_items) + (256 << 20)
        return MemoryEstimate(size, "lower model.low_pass_dim or model.neighbors, or choose als")

    @property
    def _events(self) -> EventWeights:
        return EventWeights(recent=self.recent)

    def _linear(self, users_items: sp.csr_matrix, context: FitContext) -> LinearScorer:
        a, b, p = self.powers
        items_users = users_items.T.tocsr()
        of_items_I, of_users_U = np.diff(items_users.indptr), np.diff(users_items.indptr)
        product = ItemProduct(
            scaled(items_users, rows=degree_powers(of_items_I, -b - p), columns=degree_powers(of_users_U, -2 * a)),
            scaled(users_items, columns=degree_powers(of_items_I, p - b)),
            neighbors=self.neighbors,
            keep_diagonal=True,
        )
        matrix = multiply(product, users_items.shape[1], context, "graph_filter")
        require_finite("graph_filter", "report it with the data's counts", matrix.values)
        return LinearScorer(weights=matrix, trained_I=of_items_I > 0, weighting=self._events)

    def scorer_of(self, parts: Spectrum) -> GraphFilterScorer:
        """The exact one, of what was worked out for these powers."""
        dim = parts.vectors_ID.shape[1] if self.low_pass_weight else 0
        return GraphFilterScorer(
            users_items=parts.users_items,
            items_users=parts.items_users,
            coefficients=step_coefficients(self.order, self.flatness).tolist(),
            vectors_ID=np.ascontiguousarray(parts.vectors_ID[:, :dim] * np.float32(self.low_pass_weight**0.5)),
            scales_I=parts.scales_I,
            trained_I=parts.trained_I,
            events=self._events,
        )

    def _truncated(self, scorer: GraphFilterScorer, context: FitContext) -> LinearScorer:
        assert self.neighbors is not None
        matrix = by_rows(_some_rows, (scorer, self.neighbors), scorer.num_items, context, "graph_filter")
        return LinearScorer(weights=matrix, trained_I=scorer.scorable_I, weighting=self._events)


def _some_rows(block: tuple[int, int], shared: tuple[GraphFilterScorer, int]) -> tuple[LongArray, IntArray, FloatArray]:
    scorer, neighbors = shared
    return largest_of_rows(scorer.weights(np.arange(*block, dtype=np.int32)), neighbors)
