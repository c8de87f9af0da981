"""The scorer of two towers: item vectors are finished, a query is the user tower's answer to a history.

torch is loaded when it first scores. The user tower is computed in float64, so that a query does not depend on the
requests beside it.

D is the dimension of the item vectors, J that of the users' own.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from recsys_ray.base.types import BoolArray, FloatArray, Histories, Requests, ScorerState
from recsys_ray.data.attributes import AttributeEncoder
from recsys_ray.data.features import HistorySums
from recsys_ray.models.linalg.pooling import Pooling, Recent, weighted_sums
from recsys_ray.models.scorers.base import VectorScorer, has_stored_row
from recsys_ray.models.two_tower.inputs import HistoryFeatures, TowerShape

if TYPE_CHECKING:
    from recsys_ray.models.two_tower.towers import Tower

PREFIX = "weights."
QUERY_ROWS = 8192  # requests sent through the tower at once


class TowerScorer(VectorScorer):
    """``tower(pooled history, features of the history, attributes, id) . item``, known and unknown users alike.

    Args:
        items_ID: item vectors. history_ID: those that are pooled to a history, with the weights history_weight_I.
        scorable_I: items that were trained or of which something else is known; only they have a weight in histories.
        similarity: "cosine" gives queries length 1.
        weights, shape: of the user tower, by name, and its ``TowerShape`` as a dict. users_UJ: ids' vectors, the last
        row that of unknown users; None without. known_U: users whose row was trained. recent: what the last events add
        to every query.
    """

    kind: ClassVar[str] = "towers"

    def __init__(
        self,
        *,
        items_ID: FloatArray,
        history_ID: FloatArray,
        history_weight_I: FloatArray,
        scorable_I: BoolArray,
        similarity: Literal["cosine", "inner"],
        pooling: Pooling,
        weights: dict[str, FloatArray],
        shape: dict[str, Any],
        recent: Recent,
        users_UJ: FloatArray | None = None,
        known_U: BoolArray | None = None,
        features: HistoryFeatures | None = None,
        attributes: AttributeEncoder | None = None,
    ) -> None:
        self.items_ID = items_ID
        self.history_ID = history_ID
        self.history_weight_I = history_weight_I
        self.scorable_I = scorable_I
        self.similarity: Literal["cosine", "inner"] = similarity
        self.pooling = pooling
        self.weights = weights
        self.shape = shape
        self.users_UJ = users_UJ
        if known_U is not None:
            self.known_U = known_U
        self.features = features
        self.attributes = attributes
        self.recent = recent
        self._tower: Tower | None = None

    def queries(self, requests: Requests) -> FloatArray:
        starts = range(0, len(requests), QUERY_ROWS)
        queries = [self._queries_of(requests.slice(start, min(start + QUERY_ROWS, len(requests)))) for start in starts]
        empty = np.zeros((0, self.items_ID.shape[1]), np.float32)
        return np.concatenate([empty, *queries])

    def _queries_of(self, requests: Requests) -> FloatArray:
        """(B, D)"""
        import torch

        inputs = {"history": self.pooled(requests.histories)}
        if self.features is not None:
            inputs["features"] = self.features.of(HistorySums.of(requests.histories, self.features.genres_IG))
        if self.attributes is not None:
            inputs["attributes"] = self.attributes.encode(requests.attributes, len(requests))
        if self.users_UJ is not None:
            stored_B = has_stored_row(requests, self.known_U)
            inputs["id"] = self.users_UJ[np.where(stored_B, requests.users_B, len(self.users_UJ) - 1)]
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(values.astype(np.float64)) for name, values in inputs.items()}
            queries_BD = self._network()(tensors).numpy()
        if self.similarity == "cosine":
            lengths_B = np.linalg.norm(queries_BD, axis=1, keepdims=True)
            queries_BD = queries_BD / np.where(lengths_B > 0, lengths_B, 1)
        queries_BD = np.ascontiguousarray(queries_BD, np.float32)
        return self.recent.added(queries_BD, requests.histories, self.items_ID, self.scorable_I)

    def pooled(self, histories: Histories) -> FloatArray:
        """(B, D) the weighted mean over each history; zeros where nothing in it counts."""
        weights_E = self.pooling.weights(histories, self.history_weight_I)
        sums_BD = weighted_sums(histories, weights_E, self.history_ID)
        totals_B = np.bincount(histories.rows_E, weights_E, len(histories))
        pooled_BD: FloatArray = (sums_BD / np.where(totals_B > 0, totals_B, 1)[:, None]).astype(np.float32)
        return pooled_BD

    def _network(self) -> Tower:
        if self._tower is None:
            import torch

            from recsys_ray.models.two_tower.towers import Tower

            tower = Tower(TowerShape(**self.shape)).double()
            tower.load_state_dict({name: torch.tensor(value) for name, value in self.weights.items()})
            self._tower = tower.eval().requires_grad_(False)
        return self._tower

    def state(self) -> ScorerState:
        arrays: dict[str, Any] = {
            "items": self.items_ID,
            "scorable": self.scorable_I,
            "history_weights": self.history_weight_I,
        }
        arrays |= {PREFIX + name: value for name, value in self.weights.items()}
        if self.history_ID is not self.items_ID:
            arrays["history"] = self.history_ID
        if self.users_UJ is not None:
            arrays |= {"users": self.users_UJ, "known": self.known_U}
        settings: dict[str, Any] = {"similarity": self.similarity, "pooling": asdict(self.pooling), "shape": self.shape}
        settings["recent"] = asdict(self.recent)
        if self.attributes is not None:
            settings["attributes"] = self.attributes.to_json()
        if self.features is not None:
            arrays |= {
                "genres": self.features.genres_IG,
                "feature_mean": self.features.mean_F,
                "feature_scale": self.features.scale_F,
            }
            settings["now"] = self.features.now
        return ScorerState(arrays, settings)

    @classmethod
    def from_state(cls, state: ScorerState) -> TowerScorer:
        arrays, settings = state.arrays, state.settings
        features = None
        if "now" in settings:
            scale = arrays["feature_mean"], arrays["feature_scale"]
            features = HistoryFeatures(arrays["genres"], settings["now"], *scale)
        return cls(
            items_ID=arrays["items"],
            history_ID=arrays.get("history", arrays["items"]),
            history_weight_I=arrays["history_weights"],
            scorable_I=arrays["scorable"],
            similarity=settings["similarity"],
            pooling=Pooling(**settings["pooling"]),
            weights={name.removeprefix(PREFIX): array for name, array in arrays.items() if name.startswith(PREFIX)},
            shape=settings["shape"],
            users_UJ=arrays.get("users"),
            known_U=arrays.get("known"),
            features=features,
            attributes=AttributeEncoder.from_json(settings.get("attributes")),
            recent=Recent(**settings.get("recent", {})),
        )
