"""A fitted model as a directory: arrays, catalogue, and a manifest written last. No pickle.

    manifest.json         format, model, resolved config, vocabulary hash, the prepared data that holds the histories of
                          the users (see ``histories``), sizes and checksums of the files below
    arrays.safetensors    the arrays of the scorer and of those that it falls back on, memory-mapped read-only: all
                          actors of a machine share one copy
    items.parquet         vocabulary order; catalogue columns and ``count``, the training interactions of each item
    users/part-00000.parquet ...   only in a bundle that stands alone: user_id and history, as the model saw it
    index/                optional, beside what the manifest lists: approximate indexes, each with its measured recall

A directory without a manifest is not a bundle. User row numbers run on from shard to shard. Format 1, which always had
``users/``, and format 2, whose manifest has no checksum of itself, are still read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray import retrieval
from recsys_ray.base import schema
from recsys_ray.base.errors import BundleError, DataError, StorageError
from recsys_ray.base.manifest import write_manifest
from recsys_ray.base.provenance import file_stamp
from recsys_ray.base.storage import Location
from recsys_ray.base.types import (
    FloatArray,
    InnerProductScorer,
    IntArray,
    ItemLists,
    ItemVectors,
    LongArray,
    Requests,
    Scorer,
    ScorerState,
    by_inner_product,
)
from recsys_ray.data.availability import Availability
from recsys_ray.data.genres import item_genres
from recsys_ray.data.prepare.keys import vocabulary_sha256
from recsys_ray.data.prepare.shard import part_file
from recsys_ray.data.prepared import Prepared
from recsys_ray.models import Model, load_scorer, save_scorer
from recsys_ray.models.scorers.silent import SilentScorer
from recsys_ray.recommend.array_files import local_copy, read_arrays, write_arrays
from recsys_ray.recommend.bundle_files import ARRAYS, FORMAT, ITEMS, MANIFEST, check_file, read_manifest
from recsys_ray.recommend.bundle_users import (
    HistoryStore,
    PreparedHistories,
    open_histories,
    reference_to,
    write_users,
)
from recsys_ray.recommend.config import GENRES, POPULARITY, TRENDING
from recsys_ray.recommend.profiles import GenreProfiles

__all__ = [
    "ARRAYS",
    "FORMAT",
    "ITEMS",
    "MANIFEST",
    "Bundle",
    "bundle_in_memory",
    "open_bundle",
    "open_fallbacks",
    "read_manifest",
    "save_bundle",
    "write_bundle",
]


@dataclass
class Bundle:
    """An opened bundle: what ``recommend`` answers from."""

    location: Location
    manifest: dict[str, Any]
    scorer: Scorer
    items: pa.Table
    fallbacks: dict[str, Scorer] = field(default_factory=dict)
    """Finished models by name, for what the first has no opinion on."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Who may put an item into a list, as the column ``source`` says it; ``Ranked.sources_BK`` counts from 0."""
        names = (POPULARITY, *self.fallbacks, TRENDING, GENRES)
        return (schema.SOURCE_MODEL, *(f"{schema.FALLBACK}{name}" for name in names))

    @cached_property
    def item_ids(self) -> pa.Array:
        return self.items.column("item_id").combine_chunks()

    @property
    def rating_middle(self) -> float | None:
        """The middle of the scale of the histories' ratings; None where they are no scale of liking."""
        return self.manifest.get("rating_middle")

    @property
    def user_id_type(self) -> pa.DataType:
        return pa.int64() if self.manifest["user_id_type"] == "int64" else pa.string()

    @property
    def num_items(self) -> int:
        return int(self.items.num_rows)

    @property
    def users_per_shard(self) -> list[int]:
        return list(self.manifest["users_per_shard"])

    @property
    def num_shards(self) -> int:
        return len(self.users_per_shard)

    def item_counts(self) -> LongArray:
        """(I,) training interactions per item."""
        return np.asarray(self.items.column("count").to_numpy(), np.int64)

    def item_rows(self, item_ids: pa.Array, what: str) -> IntArray:
        """Row numbers of outside ids; DataError naming the first that is not in the catalogue."""
        try:
            rows = pc.index_in(item_ids.cast(self.item_ids.type), value_set=self.item_ids)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(f"{what}: item ids must be {self.item_ids.type}, found {item_ids.type}") from error
        if rows.null_count:
            missing = item_ids.filter(pc.is_null(rows))
            raise DataError(f"{what}: item {missing[0].as_py()!r} is not in the catalogue ({rows.null_count} such)")
        return np.asarray(rows.to_numpy(zero_copy_only=False), np.int32)

    @cached_property
    def genres(self) -> tuple[ItemLists, list[str]]:
        """The genres of every item as ascending numbers, and the name of each number."""
        return item_genres(self.items)

    @cached_property
    def availability(self) -> Availability | None:
        """When items may be recommended; None where the catalogue does not say."""
        return Availability.of(self.items)

    @cached_property
    def genre_profiles(self) -> GenreProfiles:
        """What scores items by genres that are liked."""
        return GenreProfiles.of(self.genres[0], len(self.genres[1]), self.item_counts())

    @cached_property
    def item_shares_I(self) -> FloatArray:
        """(I,) the share of all users who have an item."""
        return (self.item_counts() / max(1, int(self.manifest["num_users"]))).astype(np.float32)

    @cached_property
    def vectors(self) -> InnerProductScorer | None:
        """The scorer when its scores are inner products, None when they are not."""
        return by_inner_product(self.scorer)

    @cached_property
    def item_vectors(self) -> ItemVectors | None:
        """Vectors in which items can be compared; None where the scores are no inner products, or only a bias."""
        items = None if self.vectors is None else self.vectors.items
        return items if items is not None and items.vectors_ID.shape[1] else None

    @cached_property
    def index(self) -> retrieval.ExactIndex:
        """The exact index over the scorer's item vectors."""
        assert self.vectors is not None  # or scores are ranked, not searched
        return retrieval.ExactIndex(self.vectors.items.vectors_ID, self.vectors.items.bias_I)

    @cached_property
    def worst_index(self) -> retrieval.ExactIndex:
        """An index that finds, for a query turned around, the items of the lowest scores, turned around as well."""
        assert self.vectors is not None
        items = self.vectors.items
        return self.index if items.bias_I is None else retrieval.ExactIndex(items.vectors_ID, -items.bias_I)

    @cached_property
    def score_sizes(self) -> tuple[float, float]:
        """What scores that are inner products can reach: the longest item vector, and the largest bias beside it."""
        assert self.vectors is not None
        items = self.vectors.items
        squares_I = np.einsum("id,id->i", items.vectors_ID, items.vectors_ID)
        bias = 0.0 if items.bias_I is None else float(np.abs(items.bias_I).max(initial=0))
        return float(np.sqrt(squares_I.max(initial=0))), bias

    @cached_property
    def popularity_index(self) -> retrieval.ExactIndex:
        """The fallback: an index without dimensions, ``item_shares_I`` as the items' bias."""
        return retrieval.ExactIndex(np.zeros((self.num_items, 0), np.float32), self.item_shares_I)

    @cached_property
    def histories(self) -> HistoryStore:
        """The users as the model saw them."""
        return open_histories(self.location, self.manifest)

    def requests(self, shard: int) -> Requests:
        """The users of one shard with the histories the model was fitted on."""
        return self.histories.requests(shard)


def bundle_in_memory(
    scorer: Scorer,
    prepared: Prepared,
    parts: Sequence[str],
    facts: dict[str, Any],
    counts_I: LongArray | None = None,
    fallbacks: Mapping[str, Scorer] | None = None,
) -> Bundle:
    """A scorer with the catalogue and the histories of ``parts``, written nowhere yet.

    Args:
        facts: what the caller knows (model, config, fingerprint); the manifest is these and what is added here.
        counts_I: positives of each item in these parts, where the caller has them; or all shards are read for them.
    """
    counts_I = prepared.item_counts(parts) if counts_I is None else counts_I
    items = prepared.items.append_column("count", pa.array(counts_I.astype(np.int32)))
    manifest = facts | {
        "prepared": prepared.location.name,
        "histories": reference_to(prepared),
        "parts": list(parts),
        "num_users": prepared.num_users,
        "num_items": prepared.num_items,
        "users_per_shard": prepared.users_per_shard,
        "user_id_type": str(prepared.user_id_type),
        "item_id_type": str(items.column("item_id").type),
        "vocabulary_sha256": vocabulary_sha256(items.column("item_id").combine_chunks()),
        "rating_middle": prepared.manifest.get("rating_middle"),
        "rating_range": prepared.manifest.get("rating_range"),
    }
    location = prepared.location.parent.parent / "models" / "in-memory"
    bundle = Bundle(location, manifest, scorer, items, dict(fallbacks or {}))
    bundle.__dict__["histories"] = PreparedHistories(prepared, tuple(parts))
    return bundle


def save_bundle(bundle: Bundle, location: Location, *, alone: bool = True) -> None:
    """Write a bundle into a directory of its own; the manifest, written last, commits. What is there goes.

    ``alone`` copies the histories into it, so that it is whole without the prepared data.
    """
    kind, state = save_scorer(bundle.scorer)
    arrays, fallbacks = dict(state.arrays), {}
    for name, scorer in bundle.fallbacks.items():
        other_kind, other = save_scorer(scorer)
        arrays |= {f"{schema.FALLBACK}{name}.{key}": array for key, array in other.arrays.items()}
        fallbacks[name] = {"scorer": other_kind, "scorer_settings": other.settings}
    users = [(part_file(shard), bundle.requests(shard)) for shard in range(bundle.num_shards)] if alone else []
    location.remove()
    write_arrays(location / ARRAYS, arrays)
    (location / ITEMS).write_parquet(bundle.items)
    files = [ARRAYS, ITEMS, *(write_users(location, name, requests) for name, requests in users)]
    changed: dict[str, Any] = {"format": FORMAT, "scorer": kind, "scorer_settings": state.settings}
    changed |= ({"histories": None} if alone else {}) | ({"fallbacks": fallbacks} if fallbacks else {})
    stamps = {name: file_stamp(location / name, "crc32") for name in files}
    write_manifest(location / MANIFEST, bundle.manifest | changed | {"files": stamps})


def write_bundle(
    location: Location,
    scorer: Scorer,
    prepared: Prepared,
    parts: Sequence[str],
    facts: dict[str, Any],
    counts_I: LongArray | None = None,
    fallbacks: Mapping[str, Scorer] | None = None,
) -> None:
    """``bundle_in_memory`` written into a directory that refers to the histories in prepared data."""
    bundle = bundle_in_memory(scorer, prepared, parts, facts, counts_I, fallbacks)
    save_bundle(bundle, location, alone=False)


def open_bundle(location: Location, *, verify: bool = False, models: Sequence[type[Model]] = ()) -> Bundle:
    """Open a bundle; ``verify`` also reads every file against its checksum, those of its histories too.

    Args:
        models: classes of models that are not in MODELS, whose scorers may be in the bundle.

    Raises:
        BundleError: no manifest, another format version, a file missing, of another size, or with another checksum.
    """
    manifest = read_manifest(location)
    for name, stamp in manifest["files"].items():
        # A copy of the arrays is compared with their stamp when it is opened.
        check_file(location / name, stamp, verify=verify and (location.is_local or name != ARRAYS))
    items = (location / ITEMS).read_parquet()
    if vocabulary_sha256(items.column("item_id").combine_chunks()) != manifest["vocabulary_sha256"]:
        raise BundleError(f"{location}: items.parquet does not hold the vocabulary of the manifest; run train again")
    arrays = read_arrays(local_copy(location / ARRAYS, manifest["files"][ARRAYS]))
    fallbacks = _take_fallbacks(manifest, arrays, models)
    scorer = load_scorer(manifest["scorer"], ScorerState(arrays, manifest["scorer_settings"]), *models)
    bundle = Bundle(location, manifest, scorer, items, fallbacks)
    bundle.histories.check(verify=verify)
    return bundle


def open_fallbacks(location: Location) -> Bundle:
    """A bundle without its model, which can't be opened: what it falls back on answers, popularity at least.

    Raises:
        BundleError: the manifest, the catalogue or the histories can't be read either.
    """
    manifest = read_manifest(location)
    check_file(location / ITEMS, manifest["files"][ITEMS], verify=True)
    items = (location / ITEMS).read_parquet()
    fallbacks: dict[str, Scorer] = {}
    with contextlib.suppress(BundleError, StorageError, KeyError):
        check_file(location / ARRAYS, manifest["files"][ARRAYS], verify=True)
        fallbacks = _take_fallbacks(manifest, read_arrays(local_copy(location / ARRAYS, manifest["files"][ARRAYS])), ())
    bundle = Bundle(location, manifest, SilentScorer(items.num_rows), items, fallbacks)
    bundle.histories.check(verify=False)
    return bundle


def _take_fallbacks(
    manifest: dict[str, Any], arrays: dict[str, Any], models: Sequence[type[Model]]
) -> dict[str, Scorer]:
    """The fallbacks of a bundle, their arrays taken out of ``arrays``."""
    found = {}
    for name, saved in manifest.get("fallbacks", {}).items():
        prefix = f"{schema.FALLBACK}{name}."
        own = {key.removeprefix(prefix): arrays.pop(key) for key in list(arrays) if key.startswith(prefix)}
        found[name] = load_scorer(saved["scorer"], ScorerState(own, saved["scorer_settings"]), *models)
    return found
