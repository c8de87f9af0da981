"""A scorer whose query is a network's state at the end of a history, or at a mask behind it.

torch is loaded when it first scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from recsys_ray.base.types import BoolArray, FloatArray, ItemVectors, Requests, ScorerState
from recsys_ray.models.scorers.base import ReplaceableItems

if TYPE_CHECKING:
    from recsys_ray.models.sequence.transformer import SequenceEncoder

PREFIX = "weights."


class SequenceScorer(ReplaceableItems):
    """``state(history) . item``, known and unknown users alike, whatever the length of the history.

    Events on items that the fit has not seen are passed over; of the others the newest ``max_length`` count.

    Args:
        weights: of the network, by name. shape: its ``TransformerShape`` as a dict.
        trained_I: items with training interactions. similarity: "cosine" compares with item vectors of length 1.
        items_ID: what a query is multiplied with, where it is not the vectors that the network reads histories by.
    """

    kind: ClassVar[str] = "sequence"

    def __init__(
        self,
        *,
        weights: dict[str, FloatArray],
        shape: dict[str, Any],
        trained_I: BoolArray,
        similarity: Literal["inner", "cosine"],
        items_ID: FloatArray | None = None,
    ) -> None:
        self.weights = weights
        self.shape = shape
        self.scorable_I = trained_I
        self.similarity: Literal["inner", "cosine"] = similarity
        self.items_ID: FloatArray | None = items_ID  # type: ignore[assignment]
        self._encoder: SequenceEncoder | None = None
        self._network_items_ID: FloatArray | None = None

    @property
    def items(self) -> ItemVectors:
        """Those of the network, made on first use, or the others that were given."""
        if self.items_ID is not None:
            return ItemVectors(self.items_ID)
        if self._network_items_ID is None:
            from recsys_ray.models.sequence.network import item_vectors

            self._network_items_ID = item_vectors(self._network(), self.num_items, self.similarity)
        return ItemVectors(self._network_items_ID)

    def queries(self, requests: Requests) -> FloatArray:
        from recsys_ray.models.sequence.network import encode

        known = requests.histories.only(self.scorable_I[requests.histories.items_E])
        queries_BD = np.zeros((len(requests), self.shape["embedding_dim"]), np.float32)
        rows_B = np.flatnonzero(known.lengths_B > 0)
        queries_BD[rows_B] = encode(self._network(), known, rows_B)
        return queries_BD

    def _network(self) -> SequenceEncoder:
        """Built over the weights where they lie."""
        if self._encoder is None:
            import torch

            from recsys_ray.models.sequence.transformer import SequenceEncoder, TransformerShape

            with torch.device("meta"):
                encoder = SequenceEncoder(TransformerShape(**self.shape))
            encoder.load_state_dict({name: _tensor(value) for name, value in self.weights.items()}, assign=True)
            self._encoder = encoder.eval().requires_grad_(False)
        return self._encoder

    def state(self) -> ScorerState:
        arrays: dict[str, Any] = {PREFIX + name: value for name, value in self.weights.items()}
        arrays["trained"] = self.scorable_I
        if self.items_ID is not None:
            arrays["items"] = self.items_ID
        return ScorerState(arrays, {"shape": self.shape, "similarity": self.similarity})

    @classmethod
    def from_state(cls, state: ScorerState) -> SequenceScorer:
        weights = {name.removeprefix(PREFIX): value for name, value in state.arrays.items() if name.startswith(PREFIX)}
        return cls(
            weights=weights,
            shape=state.settings["shape"],
            trained_I=state.arrays["trained"],
            similarity=state.settings["similarity"],
            items_ID=state.arrays.get("items"),
        )


def _tensor(values: FloatArray) -> Any:
    """A tensor over an array, which may be a read-only memory map: nothing here writes to it."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(values)
