"""The users of a bundle with their histories: shard by shard, from the prepared data that the model was fitted on.

Prepared data holds every history once, for all models fitted on it; a bundle names its directory and the parts of the
split that the model has seen. It is looked for beside the bundle, ``<output>/prepared/<name>`` for
``<output>/models/<bundle>``, so that a copied output directory is whole, and then where the model was fitted.

A bundle that must stand alone has ``users/`` of its own instead, as all bundles of format 1 have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from recsys_ray.base import schema
from recsys_ray.base.errors import BundleError, DataError
from recsys_ray.base.provenance import has_stamp
from recsys_ray.base.ragged import of_list_array
from recsys_ray.base.storage import Location
from recsys_ray.base.types import Histories, ItemLists, Requests
from recsys_ray.data.prepare.shard import ITEMS, part_file
from recsys_ray.data.prepared import Prepared

FOLDER = "users"
ATTRIBUTE = "attribute."
"""What the names of columns from the table of users begin with in ``users/``."""


class HistoryStore(Protocol):
    """Where the requests of a bundle come from."""

    def requests(self, shard: int) -> Requests:
        """The users of one shard with the histories the model was fitted on."""
        ...

    def check(self, *, verify: bool) -> None:
        """BundleError where a file is missing or of another size; ``verify`` reads every byte, too."""
        ...


@dataclass(frozen=True, slots=True)
class PreparedHistories:
    """Histories in prepared data: what lies in these parts of the split."""

    prepared: Prepared
    parts: tuple[str, ...]

    def requests(self, shard: int) -> Requests:
        return self.prepared.requests(shard, self.parts)

    def check(self, *, verify: bool) -> None:
        location = self.prepared.location
        for name, stamp in self.prepared.files.items():
            file = location / name
            if name == ITEMS:  # a bundle has the catalogue itself
                continue
            if not file.exists():
                raise BundleError(f"{file}: missing from the prepared data; copy the whole directory or run prepare")
            if not (has_stamp(file, stamp) if verify else file.size() == stamp["bytes"]):
                found = f"checksum or size differs from {location.name}/manifest.json: corrupt or half copied"
                raise BundleError(f"{file}: {found}; copy it again, or delete {location} and run prepare")


@dataclass(frozen=True, slots=True)
class OwnHistories:
    """Histories that the bundle carries itself; its manifest lists their files, ``open_bundle`` checks them."""

    location: Location
    user_id_type: pa.DataType
    users_per_shard: list[int]

    def requests(self, shard: int) -> Requests:
        file = self.location / FOLDER / part_file(shard)
        table = schema.check(file.read_parquet(), schema.users(self.user_id_type), str(file))
        expected, first = self.users_per_shard[shard], sum(self.users_per_shard[:shard])
        if table.num_rows != expected:
            raise BundleError(
                f"{self.location}: users shard {shard} has {table.num_rows} rows, manifest says {expected}"
            )
        return Requests(
            user_ids=table.column("user_id").combine_chunks(),
            users_B=np.arange(first, first + expected, dtype=np.int32),
            histories=_histories(table),
            seen=_seen(table),
            attributes=_attributes(table, self.user_id_type),
        )

    def check(self, *, verify: bool) -> None:
        """Nothing beside the files of the bundle."""


def open_histories(location: Location, manifest: dict[str, Any]) -> HistoryStore:
    """The histories that the manifest of a bundle names.

    Raises:
        BundleError: the prepared data is not there, or is not what the model was fitted on.
    """
    named = manifest.get("histories")
    if named is None:
        user_type = pa.int64() if manifest["user_id_type"] == "int64" else pa.string()
        return OwnHistories(location, user_type, list(manifest["users_per_shard"]))
    beside = location.parent.parent / "prepared" / named["prepared"]
    try:
        prepared = Prepared.open(beside if Prepared.is_at(beside) else Location(named["made_at"]))
    except DataError as error:
        raise BundleError(
            f"{location}: its user histories are in prepared data {named['prepared']}, looked for at {beside} and "
            f"{named['made_at']}; copy the directory prepared/ beside models/, or run the configuration again ({error})"
        ) from error
    for fact in ("vocabulary_sha256", "users_per_shard"):
        if prepared.manifest.get(fact) != manifest[fact]:
            raise BundleError(
                f"{location}: the prepared data at {prepared.location} is not what the model was fitted on ({fact} "
                "differs); run train again"
            )
    return PreparedHistories(prepared, tuple(manifest["parts"]))


def reference_to(prepared: Prepared) -> dict[str, str]:
    """How a manifest names the prepared data that its histories are in."""
    return {"prepared": prepared.location.name, "made_at": str(prepared.location)}


def write_users(location: Location, name: str, requests: Requests) -> str:
    """One part of the ``users/`` of a bundle that stands alone; its name in the bundle."""
    columns = [requests.user_ids, *requests.histories.to_columns(), *requests.seen.to_columns()]
    table = pa.table(columns, schema=schema.users(requests.user_ids.type))
    if requests.attributes is not None:
        for field, column in zip(requests.attributes.schema, requests.attributes.columns, strict=True):
            table = table.append_column(pa.field(f"{ATTRIBUTE}{field.name}", field.type), column)
    (location / FOLDER / name).write_parquet(table)
    return f"{FOLDER}/{name}"


def _histories(table: pa.Table) -> Histories:
    offsets_B1, items = of_list_array(table.column("items"))
    others = [of_list_array(table.column(name))[1].to_numpy() for name in ("ratings", "timestamps")]
    return Histories(offsets_B1, items.to_numpy(), *others)


def _attributes(table: pa.Table, user_type: pa.DataType) -> pa.Table | None:
    others = table.select(range(len(schema.users(user_type)), table.num_columns))
    if not others.num_columns:
        return None
    return others.rename_columns([name.removeprefix(ATTRIBUTE) for name in others.column_names]).combine_chunks()


def _seen(table: pa.Table) -> ItemLists:
    offsets_B1, items = of_list_array(table.column("seen"))
    return ItemLists(offsets_B1, items.to_numpy())
