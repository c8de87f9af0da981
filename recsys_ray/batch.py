"""One unit of the batch job: read a shard of users, recommend, write its part file under its final name.

The file name is the commit. A part that is there is whole, and a rerun skips it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv

from recsys_ray import retrieval
from recsys_ray.bundle import Bundle, open_bundle
from recsys_ray.contracts import BoolArray, FloatArray
from recsys_ray.data.shard import part_file
from recsys_ray.errors import ConfigError, DataError
from recsys_ray.explain import explain_texts
from recsys_ray.recommend import (
    Options,
    RankerSettings,
    RecommendSettings,
    ScorerRanker,
    check_options,
    nested,
    recommend,
)
from recsys_ray.retrieval import Index, Reranker, RerankSettings
from recsys_ray.storage import Location

Progress = Callable[[str], None]


class ShardRecommender:
    """Opens the bundle once, then answers one shard after the other."""

    def __init__(self, bundle_url: str, run_url: str, settings: RecommendSettings) -> None:
        self.run = Location(run_url)
        self.bundle = open_bundle(Location(bundle_url))
        self.settings = settings
        self.options = with_stages(self.bundle, settings, read_options(self.bundle, settings))
        # One answer before the first shard: libraries, kernels and the index are loaded while other actors start.
        recommend(self.bundle, self.bundle.requests(0).slice(0, 1), self.options)

    def __call__(self, shard: int) -> dict[str, Any]:
        """Write the part of one shard; returns its counts and the seconds spent scoring and in all."""
        started = time.perf_counter()
        requests = self.bundle.requests(shard)
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


def read_options(bundle: Bundle, settings: RecommendSettings) -> Options:
    """The settings with their item lists read and checked against the catalogue and the model.

    It loads nothing but these lists: enough to check a run. ``with_stages`` adds what answering takes.

    Raises:
        ConfigError: a stage that this catalogue or model can't have. DataError: an item list names unknown items.
    """
    if settings.index.kind != "exact" and bundle.item_factors() is None:
        raise ConfigError(
            f"recommend.index.kind={settings.index.kind}: model {bundle.manifest.get('model', '?')} has no item "
            "vectors to index; remove recommend.index"
        )
    options = Options(
        n=settings.n,
        filter_seen=settings.filter_seen,
        allowed_I=_allowed(bundle, settings),
        fallback=settings.fallback != "none",
        block_bytes=settings.block_mib << 20,
        reranker=None if settings.rerank is None else _reranker(bundle, settings.rerank),
    )
    check_options(bundle, options)
    return options


def with_stages(
    bundle: Bundle, settings: RecommendSettings, options: Options, progress: Progress = lambda message: None
) -> Options:
    """The options with index and ranker opened, and the writer of reasons."""
    if settings.ranker is not None:
        ranker = ScorerRanker(_open_ranker(bundle, settings.ranker).scorer, options.block_bytes)
        options = replace(options, ranker=ranker, ranker_pool=settings.ranker.pool)
    explainer = explain_texts if settings.reasons else None
    options = replace(options, index=search_index(bundle, settings, progress)[0], explainer=explainer)
    check_options(bundle, options)
    return options


def search_index(
    bundle: Bundle, settings: RecommendSettings, progress: Progress = lambda message: None
) -> tuple[Index | None, dict[str, Any] | None]:
    """The index that was asked for, or the exact one where its recall is too low, and what was measured; (None, None)
    for the exact index by choice.

    It is built, measured and kept in the bundle's ``index/`` when first asked for, and read from there afterwards.
    """
    if settings.index.kind == "exact":
        return None, None
    factors = bundle.item_factors()
    assert factors is not None  # or read_options would have refused
    return retrieval.open_index(
        bundle.location / "index",
        factors,
        settings.index,
        exact=lambda: bundle.index(factors),
        sample=lambda: _sampled_queries(bundle, settings.index.sample),
        progress=progress,
    )


def _sampled_queries(bundle: Bundle, count: int) -> FloatArray:
    """(at most ``count``, D) queries of the first users that the model answers: a random sample, because users are
    spread over shards by a hash."""
    queries: list[FloatArray] = []
    for shard in range(bundle.num_shards):
        requests = bundle.requests(shard)
        factors = bundle.scorer.factors(requests)
        assert factors is not None  # no scorer has them for some requests only
        queries.append(factors.queries_BD[bundle.scorer.answers(requests)])
        if sum(map(len, queries)) >= count:
            break
    return np.concatenate(queries)[:count]


def _open_ranker(bundle: Bundle, settings: RankerSettings) -> Bundle:
    """Rows of users and items must mean the same to both models, so both must stand on the same prepared data."""
    ranker = open_bundle(Location.of(settings.bundle))
    for fact in ("prepared", "vocabulary_sha256"):
        if ranker.manifest.get(fact) != bundle.manifest.get(fact):
            raise ConfigError(
                f"recommend.ranker.bundle: {settings.bundle} was trained on other prepared data than {bundle.location}"
                "; train both models on the same data section and seed"
            )
    return ranker


def _reranker(bundle: Bundle, settings: RerankSettings) -> Reranker:
    genres, names = bundle.genres
    by_genre = settings.max_per_genre is not None or (settings.diversity > 0 and settings.similarity == "genres")
    if by_genre and not names:
        raise ConfigError(
            "recommend.rerank: the catalogue has no genres; set rerank.similarity=vectors without max_per_genre, "
            "or name the column with data.item_columns.genres"
        )
    factors = bundle.item_factors() if settings.similarity == "vectors" else None
    if settings.similarity == "vectors" and factors is None:
        raise ConfigError(
            f"recommend.rerank.similarity=vectors: model {bundle.manifest.get('model', '?')} has no item vectors; "
            "set rerank.similarity=genres"
        )
    return Reranker(settings, genres, None if factors is None else factors.items_ID)


def read_item_list(path: str, what: str) -> pa.Array:
    """The ids in a Parquet or CSV file's column item_id, or in a text file, one a line, as strings or int64.

    Raises:
        StorageError: the file is not there. DataError: it has no such column, or no id.
    """
    location = Location.of(path)
    if path.endswith(".parquet"):
        table = location.read_parquet()
    else:
        text = location.read_bytes()
        lines = text if text.startswith(b"item_id") else b"item_id\n" + text
        only_text = pcsv.ConvertOptions(column_types={"item_id": pa.string()})
        table = pcsv.read_csv(pa.BufferReader(lines), convert_options=only_text)
    if "item_id" not in table.schema.names:
        raise DataError(f"{what}: {path} has no column item_id; found {', '.join(table.schema.names)}")
    if not table.num_rows:
        raise DataError(f"{what}: {path} holds no item id")
    return table.column("item_id").combine_chunks()


def _allowed(bundle: Bundle, settings: RecommendSettings) -> BoolArray | None:
    if settings.allow is None and settings.deny is None and settings.candidates == "all":
        return None
    allowed_I = np.full(bundle.num_items, settings.allow is None)
    if settings.allow is not None:
        allowed_I[bundle.item_rows(read_item_list(settings.allow, "recommend.allow"), "recommend.allow")] = True
    if settings.deny is not None:
        allowed_I[bundle.item_rows(read_item_list(settings.deny, "recommend.deny"), "recommend.deny")] = False
    if settings.candidates == "cold":
        allowed_I &= bundle.item_counts() == 0
    return allowed_I
