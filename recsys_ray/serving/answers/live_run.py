"""One published run, opened for answering: bundle, the options its batch job ran with, users, catalogue."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_ray.base.errors import PublishError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import BoolArray, Histories, ItemLists, Requests
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.recommend.config import ContextSettings
from recsys_ray.recommend.context import context_mask
from recsys_ray.recommend.hidden import HIDDEN
from recsys_ray.recommend.moments import Moment, moment_of
from recsys_ray.recommend.options import Options, shown_items, varied
from recsys_ray.recommend.rank import Ranked, rank
from recsys_ray.retrieval import Reranker
from recsys_ray.runs import publish
from recsys_ray.runs.publish import RECOMMENDATIONS, valid_run_id
from recsys_ray.runs.published import is_published
from recsys_ray.serving.answers.item_catalogue import ItemCatalogue
from recsys_ray.serving.answers.profile import Profiler
from recsys_ray.serving.users.events import RATED, SEEN, Event
from recsys_ray.serving.users.histories import UserHistories, typed_id

MOST_MASKS = 64


@dataclass
class LiveRun:
    """Everything a response is made of; it never changes, so a request that started on it ends on it."""

    run_id: str
    model: str
    bundle: Bundle
    options: Options
    catalogue: ItemCatalogue
    users: UserHistories
    min_rating: float | None
    """Interactions rated below are only filtered as seen, as the data was prepared."""
    published_at: str
    evaluation: dict[str, Any] | None
    degraded: bool = False
    """Its model can't be opened: only fallbacks answer."""
    _masks: dict[ContextSettings, BoolArray] = field(default_factory=dict, repr=False)
    """Of the filters that were asked for last."""

    @property
    def first_users(self) -> Requests | None:
        """The users of the first shard that has any."""
        shards = [shard for shard, count in enumerate(self.bundle.users_per_shard) if count]
        return self.users.shard(shards[0]) if shards else None

    @cached_property
    def profiler(self) -> Profiler:
        """What the users of this catalogue are like."""
        return Profiler(self.catalogue)

    @cached_property
    def rating_scale(self) -> tuple[float, float]:
        """Lowest and highest rating of the data; of a run of a version before, of the first shard that has any."""
        if (known := self.bundle.manifest.get("rating_range")) is not None:
            return float(known[0]), float(known[1])
        for shard in range(self.bundle.num_shards):
            ratings_E = self.users.shard(shard).histories.ratings_E
            if len(ratings_E):
                return float(ratings_E.min()), float(ratings_E.max())
        return 1.0, 1.0

    def request(self, known: Requests | None, events: list[Event]) -> tuple[Requests, int]:
        """One request: what the bundle knows of a user, and what came after; how many events name unknown items.

        A history that changed is answered from itself alone: the fit has not seen such a user.
        """
        base = known or self.empty_request
        rows = [self.catalogue.rows.get(event.item) for event in events]
        found = [(row, event) for row, event in zip(rows, events, strict=True) if row is not None]
        newer = {row: event for row, event in found if event.kind == RATED}
        wishes = {row: event.kind for row, event in found if event.kind not in (RATED, SEEN)}
        base = self._with_wishes(base, wishes) if wishes else base
        only_seen = [row for row, event in found if event.kind == SEEN]
        if only_seen:
            seen = np.union1d(base.seen.items_E, np.array(only_seen, np.int32)).astype(np.int32)
            base = replace(base, seen=ItemLists(np.array([0, len(seen)]), seen))
        for row, time in zip(base.histories.items_E.tolist(), base.histories.timestamps_E.tolist(), strict=True):
            if row in newer and newer[row].timestamp <= time:
                del newer[row]
        return (self._merged(base, newer) if newer else base), rows.count(None)

    def with_lists(self, base: Requests, user: str) -> Requests:
        """The same request of a user, who hides what the lists say that the run was made with."""
        hidden, key = self.options.hidden, typed_id(user, self.bundle.user_id_type)
        return base if hidden is None or key is None else replace(base, hidden=hidden.of(key))

    def _with_wishes(self, base: Requests, wishes: dict[int, str]) -> Requests:
        """The last wish for an item counts, whatever lists say."""
        before = [] if base.hidden is None else base.hidden.items_E.tolist()
        listed = {row for row in before if row not in wishes} | {row for row, kind in wishes.items() if kind == HIDDEN}
        return replace(base, hidden=ItemLists.from_lists([sorted(listed)]))

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
            base.attributes,
            base.hidden,
        )

    @cached_property
    def empty_request(self) -> Requests:
        """A request without a history, of no user: its id is null."""
        user_ids = pa.nulls(1, self.bundle.user_id_type)
        return Requests(user_ids, np.array([-1], np.int32), Histories.from_lists([[]]), ItemLists.empty(1))

    def reranker(self, diversity: float | None, max_per_genre: int | None) -> Reranker | None:
        """Re-ranking by these, what is None as in the run. Raises ConfigError where the catalogue can't be varied."""
        return varied(self.bundle, self.options, diversity, max_per_genre)

    def context_mask(self, filters: ContextSettings) -> BoolArray:
        """(I,) items that pass. Raises ConfigError where the catalogue has nothing to filter by."""
        found_I = self._masks.get(filters)
        if found_I is None:
            found_I = context_mask(self.bundle, filters)
            while len(self._masks) >= MOST_MASKS:
                self._masks.pop(next(iter(self._masks)))
            self._masks[filters] = found_I
        return found_I

    def moment(self, at: int | None) -> Moment:
        """A moment in UTC milliseconds as the rules of the run see it; None is now."""
        return moment_of(self.bundle, at, self.options.time_of_day)

    def allowed(self, moment: Moment, *masks_I: BoolArray | None) -> BoolArray | None:
        """(I,) items that may be shown at a moment and pass all of these masks and the run's own; None for all."""
        allowed_I = shown_items(self.bundle, replace(self.options, moment=moment))
        for mask_I in masks_I:
            if mask_I is not None:
                allowed_I = mask_I if allowed_I is None else allowed_I & mask_I
        return allowed_I

    def rank(self, requests: list[Requests], options: Options) -> list[Ranked]:
        """``rank`` once for all of these requests of one row each; the list of every one of them."""
        ranked = rank(self.bundle, Requests.concatenate(requests), options)
        return [ranked.part(slice(row, row + 1)) for row in range(len(requests))]


def open_run(
    output: Location, run_id: str, user_cache_bytes: int, *, degraded: bool = False, posters_by_item: bool = False
) -> LiveRun:
    """Open a published run and rank some requests with it, so that the first real one finds it warm; ``degraded``:
    without its model.

    Raises:
        PublishError: no such published run, or its record can't be read. BundleError, StorageError, DataError: its
            model can't be opened.
    """
    run = output / RECOMMENDATIONS / run_id
    if not valid_run_id(run_id) or not is_published(run):
        raise PublishError(f"{run_id!r} is not a published run; published are those under {RECOMMENDATIONS}/")
    found = publish.open_degraded(output, run) if degraded else publish.open_published(output, run, verify=True)
    opened = LiveRun(
        run_id=run_id,
        model=found.record.model.name,
        bundle=found.bundle,
        options=found.options,
        catalogue=ItemCatalogue(found.bundle.items, by_item=posters_by_item),
        users=UserHistories(found.bundle, user_cache_bytes),
        min_rating=found.record.min_rating,
        published_at=found.record.published_at,
        evaluation=found.record.evaluation,
        degraded=degraded,
    )
    _warm(opened)
    return opened


def _warm(run: LiveRun) -> None:
    """Rank every kind of request there is and look where the posters are, so that no user waits for kernels, indexes
    and a walk over the catalogue."""
    run.catalogue.poster_origins  # noqa: B018
    users = run.first_users
    known = [] if users is None else [users.slice(0, 1)]
    options = replace(run.options, n=min(10, len(run.catalogue)))
    run.rank([*known, run.empty_request], options)
    every_I = run.allowed(Moment(), np.ones(len(run.catalogue), np.bool_))
    run.rank([run.empty_request], replace(options, allowed_I=every_I, filter_seen=not options.filter_seen))
