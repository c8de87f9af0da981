"""One published run, opened for answering: bundle, the options its batch job ran with, users, catalogue."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_ray.base.errors import PublishError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import BoolArray, Histories, ItemLists, Requests
from recsys_ray.recommend.bundle import Bundle, open_bundle
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.recommend.options import Options, read_options, with_stages
from recsys_ray.recommend.rank import recommend
from recsys_ray.retrieval import Reranker, RerankSettings
from recsys_ray.runs.publish import RECOMMENDATIONS, bundle_of, valid_run_id
from recsys_ray.runs.published import is_published, read_run
from recsys_ray.serving.answers.titles import Catalogue
from recsys_ray.serving.users.histories import Users
from recsys_ray.serving.users.journal import Event


@dataclass
class Served:
    """Everything an answer is made of; it never changes, so an answer that started on it ends on it."""

    run_id: str
    model: str
    bundle: Bundle
    options: Options
    catalogue: Catalogue
    users: Users
    min_rating: float | None
    """Interactions rated below are only filtered as seen, as the data was prepared."""
    published_at: str
    evaluation: dict[str, Any] | None

    @cached_property
    def rating_scale(self) -> tuple[float, float]:
        """Lowest and highest rating of the first shard that has any."""
        for shard in range(self.bundle.num_shards):
            ratings_E = self.users.shard(shard).histories.ratings_E
            if len(ratings_E):
                return float(ratings_E.min()), float(ratings_E.max())
        return 1.0, 1.0

    def request(self, known: Requests | None, events: list[Event]) -> tuple[Requests, int]:
        """One request: what the bundle knows of a user, and what came after; how many events name unknown items.

        A history that changed is answered from itself alone: the fit has not seen such a user.
        """
        base = known or self.nobody
        rows = [self.catalogue.rows.get(event.item) for event in events]
        newer = {row: event for row, event in zip(rows, events, strict=True) if row is not None}
        for row, time in zip(base.histories.items_E.tolist(), base.histories.timestamps_E.tolist(), strict=True):
            if row in newer and newer[row].timestamp <= time:
                del newer[row]
        return (self._merged(base, newer) if newer else base), rows.count(None)

    def _merged(self, base: Requests, newer: dict[int, Event]) -> Requests:
        """The base without what was rated again, then the new events in time; low ratings are only seen."""
        old = base.histories
        kept_E = ~np.isin(old.items_E, np.fromiter(newer, np.int64))
        good = {
            row: event for row, event in newer.items() if self.min_rating is None or event.rating >= self.min_rating
        }
        low = [row for row in newer if row not in good]
        seen = np.union1d(base.seen.items_E, np.array(low, np.int32)).astype(np.int32)
        items = np.concatenate([old.items_E[kept_E], np.fromiter(good, np.int32)])
        ratings = np.concatenate([old.ratings_E[kept_E], [event.rating for event in good.values()]])
        times = np.concatenate([old.timestamps_E[kept_E], [event.timestamp for event in good.values()]])
        order = np.argsort(times, kind="stable")
        return Requests(
            base.user_ids,
            base.users_B if not good and kept_E.all() else np.array([-1], np.int32),
            Histories(
                np.array([0, len(items)]),
                items[order].astype(np.int32),
                ratings[order].astype(np.float32),
                times[order].astype(np.int64),
            ),
            ItemLists(np.array([0, len(seen)]), seen),
        )

    @cached_property
    def nobody(self) -> Requests:
        """A request without a history."""
        kind = self.bundle.user_id_type
        user = pa.array([0] if pa.types.is_integer(kind) else [""], kind)
        return Requests(user, np.array([-1], np.int32), Histories.from_lists([[]]), ItemLists.empty(1))

    def reranker(self, diversity: float | None, max_per_genre: int | None) -> Reranker | None:
        """Re-ranking by these, what is None as in the run. Raises ConfigError where the catalogue can't be varied."""
        own = self.options.reranker
        settings = RerankSettings.model_construct(diversity=0.0, max_per_genre=None) if own is None else own.settings
        asked = {"diversity": diversity, "max_per_genre": max_per_genre}
        changed = settings.model_copy(update={name: value for name, value in asked.items() if value is not None})
        if changed.diversity == 0 and changed.max_per_genre is None:
            return None
        if own is not None:
            return replace(own, settings=changed)
        return read_options(self.bundle, RecommendSettings(n=1, rerank=changed)).reranker

    def allowed(self, *masks_I: BoolArray | None) -> BoolArray | None:
        """(I,) items that pass all of these masks and the run's own; None for every item."""
        allowed_I = self.options.allowed_I
        for mask_I in masks_I:
            if mask_I is not None:
                allowed_I = mask_I if allowed_I is None else allowed_I & mask_I
        return allowed_I

    def answer(self, requests: list[Requests], options: Options) -> list[pa.Table]:
        """``recommend`` once for all of them; its rows, request by request."""
        table = recommend(self.bundle, joined(requests, self.bundle.user_id_type), options)
        numbers = table.column("user_id").combine_chunks().cast(pa.int64()).to_numpy()
        ends = np.searchsorted(numbers, np.arange(len(requests) + 1))
        return [table.slice(start, stop - start) for start, stop in pairwise(ends.tolist())]


def joined(requests: list[Requests], user_id_type: pa.DataType) -> Requests:
    """Requests of one row each as one block, numbered by their place in it."""
    seen_items = [request.seen.items_E for request in requests]
    offsets = np.concatenate([[0], np.cumsum([len(items) for items in seen_items])]).astype(np.int64)
    return Requests(
        pa.array(np.arange(len(requests), dtype=np.int64)).cast(user_id_type),
        np.concatenate([request.users_B for request in requests]).astype(np.int32),
        Histories.concatenate([request.histories for request in requests]),
        ItemLists(offsets, np.concatenate([np.zeros(0, np.int32), *seen_items]).astype(np.int32)),
    )


def open_run(output: Location, run_id: str, user_cache_bytes: int) -> Served:
    """Open a published run and answer one question with it, so that the first real one finds it warm.

    Raises:
        PublishError: no such published run, or its record can't be read. BundleError, StorageError, DataError: its
            model can't be opened.
    """
    run = output / RECOMMENDATIONS / run_id
    if not valid_run_id(run_id) or not is_published(run):
        raise PublishError(f"{run_id!r} is not a published run; published are those under {RECOMMENDATIONS}/")
    published = read_run(run)
    bundle = open_bundle(bundle_of(output, published.model))
    # Reasons are made when a caller asks for them, in more than words.
    asked = published.recommend.model_copy(update={"reasons": False})
    ranker = None if published.ranker is None else bundle_of(output, published.ranker)
    options = with_stages(bundle, asked, read_options(bundle, asked), ranker)
    served = Served(
        run_id=run_id,
        model=published.model.name,
        bundle=bundle,
        options=options,
        catalogue=Catalogue(bundle.items),
        users=Users(bundle, user_cache_bytes),
        min_rating=published.min_rating,
        published_at=published.published_at,
        evaluation=published.evaluation,
    )
    _warm(served)
    return served


def _warm(served: Served) -> None:
    """Answer the kinds of question there are, so that no user waits for kernels and indexes to be made."""
    shards = [shard for shard, count in enumerate(served.bundle.users_per_shard) if count]
    somebody = [served.users.shard(shards[0]).slice(0, 1)] if shards else []
    options = replace(served.options, n=min(10, len(served.catalogue)))
    served.answer([*somebody, served.nobody], options)
    every_I = served.allowed(np.ones(len(served.catalogue), np.bool_))
    served.answer([served.nobody], replace(options, allowed_I=every_I, filter_seen=not options.filter_seen))
