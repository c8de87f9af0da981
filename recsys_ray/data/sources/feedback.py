"""Any source together with what users sent to the online service since: ``data.feedback``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location
from recsys_ray.data.config import DataSettings
from recsys_ray.data.prepare.files import Chunk
from recsys_ray.data.prepare.vocabulary import with_id_type, with_new_items
from recsys_ray.data.sources.base import REFUSED, Rows, Source
from recsys_ray.data.sources.columns import Columns
from recsys_ray.data.sources.table_files import TableSettings, TableSource
from recsys_ray.data.sources.users import HasUsers

COLUMNS = Columns(rating="rating", timestamp="timestamp")


@dataclass(frozen=True, slots=True)
class WithFeedback:
    """The interactions of ``source``, then those of the Parquet files of a directory.

    An item that only feedback names is one more of the catalogue, without a title: the service takes interactions with
    items that came after its run, so ``data.unknown_items: error`` is meant for the source's own files alone.
    A file that can't be read is left out with a warning: what a service once wrote stops no run.
    """

    source: Source
    directory: Location

    @property
    def settings(self) -> DataSettings:
        return self.source.settings

    def chunks(self) -> list[Chunk]:
        return [*self.source.chunks(), *self._chunks()]

    def read(self, chunk: Chunk) -> Rows:
        if Location(chunk.path).parent != self.directory:
            return self.source.read(chunk)
        try:
            return self._table().read(chunk)
        except DataError as error:
            columns = schema.interactions(pa.string(), pa.string()).append(pa.field("part", pa.uint8()))
            return Rows(columns.empty_table(), {REFUSED: 1}, str(error))

    def items(self) -> pa.Table | None:
        items = self.source.items()
        if items is None or self.settings.unknown_items == "drop":
            return items
        for chunk in self._chunks():
            sent = pc.unique(self.read(chunk).events.column("item_id"))
            if not len(sent):
                continue
            items = with_id_type(items, sent.type)
            known = items.column("item_id").combine_chunks()
            items = with_new_items(items, sent.filter(pc.invert(pc.is_in(sent, value_set=known))))
        return items

    def user_chunks(self) -> list[Chunk]:
        return self.source.user_chunks() if isinstance(self.source, HasUsers) else []

    def read_users(self, chunk: Chunk) -> pa.Table:
        assert isinstance(self.source, HasUsers)
        return self.source.read_users(chunk)

    def fingerprint(self) -> dict[str, Any]:
        return self.source.fingerprint() | {"feedback": [table.fingerprint() for table in self._feedback()]}

    def estimated_rows(self) -> int:
        return self.source.estimated_rows() + sum(table.estimated_rows() for table in self._feedback())

    def _feedback(self) -> list[TableSource]:
        """The files as a table, none before the service has written the first."""
        written = [name for name in self.directory.names() if name.endswith(".parquet") and name[0] not in "._"]
        return [self._table()] if written else []

    def _chunks(self) -> list[Chunk]:
        found: list[Chunk] = []
        for table in self._feedback():
            for file, part in table.files:
                try:
                    found += self._table(str(file)).chunks()
                except DataError:
                    found.append(Chunk(str(file), 0, 0, part))
        return found

    def _table(self, path: str | None = None) -> TableSource:
        path = f"{self.directory}/*.parquet" if path is None else path
        settings = {"source": "table", "path": path, "id_type": self.settings.id_type}
        return TableSource(TableSettings.model_validate(settings | {"timestamp_unit": "ms", "columns": COLUMNS}))
