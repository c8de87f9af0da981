"""Which arm of an experiment a user is in: the same one in every process, on every day, for one salt."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from recsys_ray.serving.config import VariantSettings


class Assignment:
    """Users to variants by hash, in proportion to the weights.

    Changing a weight moves as few users as an interval cut allows; changing the salt moves them all.
    """

    def __init__(self, variants: Sequence[VariantSettings], salt: str) -> None:
        total = sum(variant.weight for variant in variants)
        self._names = [variant.name for variant in variants]
        self._ends = [end / total for end in accumulate(variant.weight for variant in variants)]
        self._salt = salt.encode() + b"\0"

    def variant_of(self, user: str) -> str:
        """The variant of a user (or of any other text that stands for one)."""
        if len(self._names) == 1:
            return self._names[0]
        digest = hashlib.blake2b(self._salt + user.encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "big") / 2**64
        return self._names[min(bisect_right(self._ends, place), len(self._names) - 1)]
