"""The rows of a published run for other programs, one part after the other, without users who asked to be forgotten."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from recsys_ray.base.storage import Location
from recsys_ray.data.forgotten import without
from recsys_ray.recommend.rank import nested
from recsys_ray.runs.gate_part import flat
from recsys_ray.runs.published import read_run


@dataclass(frozen=True, slots=True)
class PublishedLists:
    """The lists of one run. No more than one part is in memory."""

    run: Location
    forgotten: frozenset[str] = frozenset()
    """Ids as text of the users who are left out."""

    def parts(self) -> list[str]:
        """Names of the parts, in order.

        Raises:
            PublishError: the run has no record that can be read.
        """
        return sorted(read_run(self.run).parts)

    def long(self, part: str) -> pa.Table:
        """A row per recommendation, whichever layout the run has: user_id, rank, item_id, score, source[, reason].

        Raises:
            StorageError: the part can't be read.
        """
        return flat(self._read(part))

    def nested(self, part: str) -> pa.Table:
        """A row per user: user_id, and lists item_ids, scores, sources[, reasons] in the order of the ranks."""
        table = self._read(part)
        return nested(table) if "rank" in table.schema.names else table

    def first(self) -> pa.Table:
        """The long rows of the first part, for their columns."""
        return self.long(self.parts()[0])

    def _read(self, part: str) -> pa.Table:
        table = (self.run / part).read_parquet()
        return without(table, self.forgotten) if self.forgotten else table
