"""One user's row out of a bundle's shards, read when it is needed and kept within a bound of bytes.

A user's shard follows from the hash of the id, as it did when the data was prepared; inside a shard ids are sorted.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.types import Requests
from recsys_ray.data.prepare.keys import hash_ids
from recsys_ray.recommend.bundle import Bundle


class UserHistories:
    """The users of one bundle. Safe to use from several threads."""

    def __init__(self, bundle: Bundle, max_bytes: int) -> None:
        self._bundle, self._max_bytes = bundle, max_bytes
        self._shards: OrderedDict[int, Requests] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def find(self, user_id: str) -> Requests | None:
        """The user as one request, None when the fit has not seen them. The id is its text: "42" for the integer."""
        key = typed_id(user_id, self._bundle.user_id_type)
        if key is None:
            return None
        shard = int(hash_ids(key)[0] % np.uint64(self._bundle.num_shards))
        requests = self.shard(shard)
        row = pc.index(requests.user_ids, key[0]).as_py()
        return None if row < 0 else requests.slice(row, row + 1)

    def shard(self, shard: int) -> Requests:
        """All users of a shard."""
        with self._lock:
            if shard in self._shards:
                self._shards.move_to_end(shard)
                return self._shards[shard]
        requests = self._bundle.requests(shard)
        with self._lock:
            if shard not in self._shards:
                self._shards[shard] = requests
                self._bytes += num_bytes(requests)
            while self._bytes > self._max_bytes and len(self._shards) > 1:
                self._bytes -= num_bytes(self._shards.popitem(last=False)[1])
            return requests


def typed_id(text: str, kind: pa.DataType) -> pa.Array | None:
    """An outside id from its text; None when no id of that type is written so."""
    if pa.types.is_string(kind):
        return pa.array([text], kind)
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0") or int(text) >= 2**63:
        return None
    return pa.array([int(text)], kind)


def fitting(texts: pa.Array, kind: pa.DataType) -> pa.BooleanArray:
    """Which of these texts ``typed_id`` takes; a cast makes ids of them."""
    if pa.types.is_string(kind):
        return pc.is_valid(texts)
    lengths = pc.utf8_length(texts)
    small = pc.or_(pc.less(lengths, 19), pc.and_(pc.equal(lengths, 19), pc.less_equal(texts, str(2**63 - 1))))
    return pc.and_(pc.match_substring_regex(texts, r"^(0|[1-9][0-9]*)$"), small)


def num_bytes(requests: Requests) -> int:
    """Memory of a block of users."""
    histories, seen = requests.histories, requests.seen
    arrays = (
        histories.offsets_B1, histories.items_E, histories.ratings_E, histories.timestamps_E,
        seen.offsets_B1, seen.items_E, requests.users_B,
    )  # fmt: skip
    return int(requests.user_ids.nbytes) + sum(array.nbytes for array in arrays)
