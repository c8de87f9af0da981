"""Hashes of outside ids: equal in every process, on every machine, in every run."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Keys = npt.NDArray[np.uint64]


def hash_ids(ids: pa.Array) -> Keys:
    """A 64-bit hash per id. Strings become Python objects once per distinct value only."""
    import pandas as pd

    if pa.types.is_integer(ids.type):
        return np.asarray(pd.util.hash_array(ids.to_numpy(zero_copy_only=False)), np.uint64)
    encoded = ids.dictionary_encode()
    distinct = pd.util.hash_array(np.array(encoded.dictionary.to_pylist(), object), categorize=False)
    keys: Keys = np.asarray(distinct, np.uint64)[encoded.indices.to_numpy(zero_copy_only=False)]
    return keys


def mix(keys: Keys, seed: int) -> Keys:
    """Keys of another, independent-looking stream per seed (the finaliser of splitmix64, Steele et al. 2014)."""
    seeded = keys + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64)
    seeded = (seeded ^ (seeded >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    seeded = (seeded ^ (seeded >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return seeded ^ (seeded >> np.uint64(31))


def vocabulary_sha256(ids: pa.Array) -> str:
    """SHA-256 over the type and the ids in order; every id has its length before it."""
    digest = hashlib.sha256(str(ids.type).encode())
    if pa.types.is_integer(ids.type):
        digest.update(np.ascontiguousarray(ids.to_numpy(zero_copy_only=False), "<i8").tobytes())
    else:
        lengths = np.asarray(pc.binary_length(ids).to_numpy(zero_copy_only=False), "<i8")
        digest.update(lengths.tobytes())
        digest.update("".join(ids.to_pylist()).encode())
    return digest.hexdigest()
