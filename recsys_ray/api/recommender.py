"""What a fit gives: a finished recommender, in memory, saved, or published by a run. It answers by ``rank``, as a batch
job and the service do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.api.frames import Kind, to_kind
from recsys_ray.base.errors import BundleError, ConfigError, DataError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import BoolArray, FitContext, Histories, IntArray, ItemContent, ItemLists, Requests
from recsys_ray.data.prepared import Prepared
from recsys_ray.models import Model, check_size
from recsys_ray.recommend.bundle import ARRAYS, Bundle, bundle_in_memory, open_bundle, save_bundle
from recsys_ray.recommend.config import POPULARITY
from recsys_ray.recommend.context import context_mask, read_context
from recsys_ray.recommend.explain import Reason, explain, explain_texts
from recsys_ray.recommend.hidden import with_hidden
from recsys_ray.recommend.moments import milliseconds, moment_of
from recsys_ray.recommend.options import Options, check_options, varied
from recsys_ray.recommend.rank import rank, to_table
from recsys_ray.recommend.similar import similar_items
from recsys_ray.runs.publish import RECOMMENDATIONS, latest_run, open_published
from recsys_ray.runs.published import is_published

DEFAULT_ROWS = 10


@dataclass(frozen=True)
class Recommender:
    """A finished model with the users and items it knows. It never changes.

    Known users are answered from the histories the model was fitted on, anybody else from a history that is given.
    """

    bundle: Bundle
    options: Options
    kind: Kind = "pandas"
    """The kind of frame that comes back."""

    @property
    def name(self) -> str:
        """Of the algorithm, as in ``model.name`` of a configuration."""
        return str(self.bundle.manifest["model"])

    @property
    def num_users(self) -> int:
        return int(self.bundle.manifest["num_users"])

    @property
    def num_items(self) -> int:
        return self.bundle.num_items

    def __repr__(self) -> str:
        return f"Recommender({self.name}, {self.num_users:,} users, {self.num_items:,} items)"

    def recommend(
        self,
        users: Any = None,
        n: int | None = None,
        *,
        history: Sequence[Any] | Mapping[Any, float] | None = None,
        filter_seen: bool | None = None,
        allow: Sequence[Any] | None = None,
        deny: Sequence[Any] | None = None,
        fallback: bool | None = None,
        diversity: float | None = None,
        max_per_genre: int | None = None,
        context: Mapping[str, Any] | None = None,
        at: str | None = None,
        explain: bool = False,
    ) -> Any:
        """The best items of each user: a frame user_id, rank (from 1), item_id, score, source.

        ``source`` is "model", or "fallback:popularity" for rows that the model has no opinion on. Scores never rise
        with the rank. What is None is as the model was fitted or published with: ten rows, seen items left out.

        Args:
            users: ids, one or many; None for everybody.
            n: rows for each user.
            history: instead of users, the item ids of somebody new, oldest first, or a mapping from item ids to
                ratings; the frame then has no user_id.
            filter_seen: leave out what the user already has.
            allow: item ids; nothing else is recommended. deny: item ids that are not.
            fallback: fill up with popular items what the model leaves open.
            diversity: 0 ranks by score alone, 1 by variety alone. max_per_genre: at most so many items of one genre.
            context: which items of the catalogue, as ``recommend.context`` of a configuration: any_genres, all_genres,
                no_genres, year_from, year_to, where.
            at: ISO date or time (UTC) that items must be available at; the day of a published run, else now.
            explain: add a column reason.

        Raises:
            DataError: a user or item is not known. ConfigError: n, or what is combined, is impossible.

        >>> import pandas as pd
        >>> import recsys_ray as rr
        >>> events = pd.DataFrame({"user_id": ["ann", "ann", "bob"], "item_id": [1, 2, 2]})
        >>> rr.ItemCF().fit(rr.Dataset(events)).recommend("bob", n=1)[["user_id", "item_id", "source"]]
          user_id  item_id source
        0     bob        1  model
        """
        requests = self.requests(users) if history is None else self._stranger(users, history)
        options = self._options(n, filter_seen, allow, deny, fallback, diversity, max_per_genre, context, at)
        explainer = explain_texts if explain else None
        table = to_table(self.bundle, requests, rank(self.bundle, requests, options), explainer)
        return to_kind(table if history is None else table.drop_columns("user_id"), self.kind)

    def similar_items(self, items: Any, n: int = DEFAULT_ROWS) -> Any:
        """The items most like each of these: a frame item_id, rank (from 1), similar_item_id, score.

        What a score means is the model's: a cosine where items have vectors, an entry of the item-item matrix where
        there is one.

        Args:
            items: ids, one or many. n: rows for each.

        Raises:
            DataError: an item is not known. ConfigError: n is not between 1 and the number of items.

        >>> import pandas as pd
        >>> import recsys_ray as rr
        >>> events = pd.DataFrame({"user_id": [1, 1, 2, 2], "item_id": [10, 20, 10, 20]})
        >>> rr.ItemCF().fit(rr.Dataset(events)).similar_items(10, n=1)["similar_item_id"].tolist()
        [20]
        """
        self._check_rows(n)
        return to_kind(similar_items(self.bundle, self._item_rows(items), n), self.kind)

    def explain(
        self, user: Any = None, item: Any = None, *, history: Sequence[Any] | Mapping[Any, float] | None = None
    ) -> Reason:
        """Why the model would list an item for a user: what of the history speaks for it, with ratings and shares.

        Args:
            user: an id. item: an id. history: instead of user, as in ``recommend``.

        Raises:
            DataError: the user or the item is not known.

        >>> import pandas as pd
        >>> import recsys_ray as rr
        >>> events = pd.DataFrame({"user_id": [1, 1, 2, 2, 3], "item_id": [10, 20, 10, 20, 10]})
        >>> reason = rr.ItemCF().fit(rr.Dataset(events)).explain(user=3, item=20)
        >>> reason.kind, [cited.item_id for cited in reason.cited]
        ('contribution', [10])
        >>> print(reason)
        Because of "10" (100%).
        """
        if item is None or (user is None) == (history is None):
            raise ConfigError("explain: give item, and either user or history")
        requests = self.requests([user]) if history is None else self._stranger(user, history)
        rows_11 = self._item_rows(item).reshape(1, 1)
        return explain(self.bundle, requests, rows_11)[0][0]

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model with its users and items into a directory, local or any address fsspec knows; what is there
        is replaced. ``recsys_ray.load`` opens it.

        Raises:
            StorageError: the path can't be written.
        """
        save_bundle(self.bundle, Location.of(path))

    # -- arguments as requests and options --

    @cached_property
    def _all_requests(self) -> Requests:
        requests = Requests.concatenate([self.bundle.requests(shard) for shard in range(self.bundle.num_shards)])
        return with_hidden(requests, self.options.hidden)

    def requests(self, users: Any = None) -> Requests:
        """What the model is asked for these users, in this order; None for all. DataError for an unknown one."""
        if users is None:
            return self._all_requests
        known = self._all_requests.user_ids
        ids = _ids(users, known.type, "user")
        rows = pc.index_in(ids, value_set=known)
        if rows.null_count:
            missing = ids.filter(pc.is_null(rows))[0].as_py()
            raise DataError(
                f"user {missing!r} is not one of the {len(known):,} users the model knows; give history=[...] for "
                "somebody new"
            )
        return self._all_requests.take(rows.to_numpy())

    def _stranger(self, users: Any, history: Sequence[Any] | Mapping[Any, float]) -> Requests:
        if users is not None:
            raise ConfigError("give either users or a history, not both")
        rows = self._item_rows(list(history)).tolist() if len(history) else []
        ratings = [[float(rating) for rating in history.values()]] if isinstance(history, Mapping) else None
        histories = Histories.from_lists([rows], ratings)
        no_id = pa.array([None], self.bundle.user_id_type)
        return Requests(no_id, np.array([-1], np.int32), histories, ItemLists.empty(1))

    def _options(
        self,
        n: int | None,
        filter_seen: bool | None,
        allow: Sequence[Any] | None,
        deny: Sequence[Any] | None,
        fallback: bool | None,
        diversity: float | None,
        max_per_genre: int | None,
        context: Mapping[str, Any] | None,
        at: str | None,
    ) -> Options:
        changes: dict[str, Any] = {"explainer": None}
        if n is not None:
            self._check_rows(n)
            changes["n"] = n
        if filter_seen is not None:
            changes["filter_seen"] = filter_seen
        if fallback is not None:
            changes["fallback"] = (self.options.fallback or (POPULARITY,)) if fallback else ()
        if allow is not None or deny is not None:
            changes["allowed_I"] = self._allowed(allow, deny)
        if context is not None:
            mask_I, before_I = context_mask(self.bundle, read_context(context), "context."), changes.get("allowed_I")
            before_I = self.options.allowed_I if before_I is None else before_I
            changes["allowed_I"] = mask_I if before_I is None else mask_I & before_I
        if at is not None or self.options.moment is None:
            changes["moment"] = moment_of(
                self.bundle, None if at is None else milliseconds(at), self.options.time_of_day
            )
        if diversity is not None or max_per_genre is not None:
            changes["reranker"] = varied(self.bundle, self.options, diversity, max_per_genre)
        options = replace(self.options, **changes)
        check_options(self.bundle, options)
        return options

    def _check_rows(self, n: int) -> None:
        if not 1 <= n <= self.num_items:
            raise ConfigError(f"n must be between 1 and the {self.num_items:,} items, found {n}")

    def _allowed(self, allow: Sequence[Any] | None, deny: Sequence[Any] | None) -> BoolArray:
        allowed_I = np.ones(self.num_items, np.bool_) if allow is None else np.zeros(self.num_items, np.bool_)
        if allow is not None:
            allowed_I[self._item_rows(allow)] = True
        if deny is not None:
            allowed_I[self._item_rows(deny)] = False
        return allowed_I if self.options.allowed_I is None else allowed_I & self.options.allowed_I

    def _item_rows(self, items: Any) -> IntArray:
        return self.bundle.item_rows(_ids(items, self.bundle.item_ids.type, "item"), "items")


def _ids(given: Any, kind: pa.DataType, what: str) -> pa.Array:
    """One id or many as an array of the type that the data has.

    Raises:
        DataError: they are of another type.
    """
    if isinstance(given, str | int | np.integer):
        given = [given]
    try:
        array = pa.array(given, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{what} ids mix types; those of the data are {kind}") from error
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if len(array) == 0 or array.type == kind:
        return array.cast(kind)
    if pa.types.is_integer(array.type) and pa.types.is_integer(kind):
        return array.cast(kind)
    if pa.types.is_large_string(array.type) and pa.types.is_string(kind):
        return array.cast(kind)
    raise DataError(f"{what} ids of the data are {kind}, found {array[0].as_py()!r}; give them in that type")


def fit_prepared(
    model: Model,
    prepared: Prepared,
    parts: tuple[str, ...],
    content: ItemContent | None,
    kind: Kind,
    *,
    seed: int = 0,
    memory_limit_gib: float | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> Recommender:
    """See ``recsys_ray.fit``."""
    counts = prepared.counts(parts)
    if not counts.num_interactions:
        raise DataError("fit: there is no interaction to learn from; loosen filters or the split")
    if memory_limit_gib is not None:
        check_size(model, counts, int(memory_limit_gib * 2**30))
    train = replace(prepared.train_data(parts), content=content)
    scorer = model.fit_scorer(train, FitContext(seed=seed, progress=progress))
    facts = {"model": model.key, "settings": model.model_dump(mode="json"), "predicts_ratings": model.predicts_ratings}
    bundle = bundle_in_memory(scorer, prepared, parts, facts, train.item_counts())
    return Recommender(bundle, Options(n=min(DEFAULT_ROWS, bundle.num_items)), kind)


def load(path: str | PathLike[str], *, models: Sequence[type[Model]] = (), kind: Kind = "pandas") -> Recommender:
    """A saved model, or the published run of an output directory, with the options it was published with.

    Args:
        path: what ``Recommender.save`` wrote, an ``output`` of a configuration, or one run under its
            ``recommendations/``; local or any address fsspec knows.
        models: classes of your own models, whose scorers the product does not know.
        kind: of the frames that come back: "pandas", "polars" or "arrow".

    Raises:
        BundleError: there is no model at the path, or it is incomplete, corrupt or of another version.
        PublishError: the pointer to the published run leads nowhere, or its record can't be read.

    >>> import tempfile
    >>> import pandas as pd
    >>> import recsys_ray as rr
    >>> model = rr.Popularity().fit(rr.Dataset(pd.DataFrame({"user_id": [1, 2], "item_id": [5, 5]})))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(folder)
    ...     rr.load(folder)
    Recommender(popularity, 2 users, 1 items)
    """
    place = Location.of(path)
    if (place / ARRAYS).exists():
        bundle = open_bundle(place, models=models)
        return Recommender(bundle, Options(n=min(DEFAULT_ROWS, bundle.num_items)), kind)
    if is_published(place):
        return _published(place, place.parent.parent, models, kind)
    run = latest_run(place / RECOMMENDATIONS)
    if run is None:
        raise BundleError(
            f"{place}: no model here; give the directory that save() wrote, or the output of a run that was published"
        )
    return _published(run, place, models, kind)


def _published(run: Location, output: Location, models: Sequence[type[Model]], kind: Kind) -> Recommender:
    found = open_published(output, run, models)
    return Recommender(found.bundle, found.options, kind)
