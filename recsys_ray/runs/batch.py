"""One unit of the batch job: read a shard of users, recommend, write its part file under its final name.

The file name is the commit. A part that is there is whole, and a rerun skips it.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from recsys_ray.base.provenance import fingerprint
from recsys_ray.base.secrets import masked
from recsys_ray.base.storage import Location
from recsys_ray.data.item_list import read_item_list
from recsys_ray.data.prepare.shard import part_file
from recsys_ray.recommend.bundle import open_bundle, read_manifest
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.recommend.hidden import with_hidden
from recsys_ray.recommend.options import read_options, with_stages
from recsys_ray.recommend.rank import nested, recommend


class Models(NamedTuple):
    """The bundles that a run answers with."""

    bundle: Location
    ranker: Location | None
    """The second model, where ``recommend.ranker`` is set."""


def run_fingerprint(models: Models, settings: RecommendSettings) -> str:
    """Of everything that decides what the parts of a run hold.

    Raises:
        ConfigError, DataError: the settings can't be had with this model.
    """
    options = read_options(open_bundle(models.bundle), settings)
    lists = [
        None if path is None else fingerprint(read_item_list(path, key).to_pylist())
        for key, path in (("recommend.allow", settings.allow), ("recommend.deny", settings.deny))
    ]
    if options.hidden is not None:
        hidden = options.hidden.items
        lists.append(
            fingerprint(options.hidden.user_ids.to_pylist(), hidden.offsets_B1.tolist(), hidden.items_E.tolist())
        )
    fitted = [read_manifest(location)["fingerprint"] for location in models if location is not None]
    return fingerprint(fitted, masked(settings.model_dump(mode="json")), lists)


class ShardRecommender:
    """Opens the bundle once, then answers one shard after the other."""

    def __init__(
        self, bundle_url: str, run_url: str, settings: RecommendSettings, ranker_url: str | None = None
    ) -> None:
        self.run = Location(run_url)
        self.bundle = open_bundle(Location(bundle_url))
        self.settings = settings
        ranker = None if ranker_url is None else Location(ranker_url)
        self.options = with_stages(self.bundle, settings, read_options(self.bundle, settings), ranker)
        # One answer before the first shard: libraries, kernels and the index are loaded while other actors start.
        recommend(self.bundle, self.bundle.requests(0).slice(0, 1), self.options)

    def __call__(self, shard: int) -> dict[str, Any]:
        """Write the part of one shard; returns its counts and the seconds spent scoring and in all."""
        started = time.perf_counter()
        requests = with_hidden(self.bundle.requests(shard), self.options.hidden)
        reading = time.perf_counter()
        table = recommend(self.bundle, requests, self.options)
        scored = time.perf_counter()
        if self.settings.layout == "nested":
            table = nested(table)
        (self.run / part_file(shard)).write_parquet(table, use_dictionary=["source"])
        return {
            "shard": shard,
            "users": len(requests),
            "rows": table.num_rows,
            "score_seconds": scored - reading,
            "seconds": time.perf_counter() - started,
        }
