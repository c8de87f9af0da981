"""Lists against what was held out, as a run evaluates them: full ranking, every user counts, intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from recsys_ray.api.dataset import Dataset, validated
from recsys_ray.api.frames import to_arrow
from recsys_ray.api.recommender import Recommender
from recsys_ray.base import schema
from recsys_ray.base.errors import ConfigError, DataError
from recsys_ray.data.genres import item_genres
from recsys_ray.data.prepared import Prepared, Targets
from recsys_ray.evaluation import EvaluationSettings, ItemCounts, Partial, Report, UserValues, evaluate_part
from recsys_ray.recommend.rank import seen_items
from recsys_ray.runs.scored import scored_values


def evaluate(
    recs: Any, test: Dataset, k: Sequence[int] = (10,), *, filter_seen: bool = True, **settings: Any
) -> Report:
    """How well lists rank what ``test`` holds out: metrics with intervals, over all users with a held-out item.

    A user without a list counts as a miss, so lists of some users measure badly against a test part of all. A held-out
    item that its user has seen before can't be listed: it counts for no metric (``counts["targets_seen"]``).

    Args:
        recs: what ``recommend`` gave (user_id, rank, item_id, score, source), for every user; or a model, which is
            then asked for as many rows as the largest k.
        test: the held-out part, from ``Dataset.split``.
        k: lengths of the top of a list, ascending.
        filter_seen: False where the lists may hold what their users have seen; a model is asked for such lists.
        settings: further keys of the section ``evaluation``: ``bootstrap=0`` leaves the intervals out.

    Returns:
        A report: ``metrics`` and ``intervals`` by name ("ndcg@10"), ``segments``, and ``table()`` for people.

    Raises:
        DataError: a user or item is not of this data, a list has an item or rank twice, or test holds nothing out.
        ConfigError: a setting is impossible, or asks for scores (auc, liked) where lists are given.

    >>> import pandas as pd
    >>> import recsys_ray as rr
    >>> events = pd.DataFrame({"user_id": [1, 1, 1, 2, 2, 2], "item_id": [1, 2, 3, 2, 1, 3]})
    >>> train, test = rr.Dataset(events).split("leave_last_out")
    >>> rr.evaluate(rr.Popularity().fit(train), test, k=[1]).metrics["hit_rate@1"]
    1.0
    """
    if not isinstance(test, Dataset) or len(test.parts) != 1:
        raise ConfigError("evaluate: test must be a held-out part of a Dataset; make one with data.split(...)")
    wanted = validated(TypeAdapter(EvaluationSettings), {"k": list(k), **settings}, "evaluate")
    prepared = test.prepared
    model = recs if isinstance(recs, Recommender) else None
    if model is None and (wanted.auc or wanted.liked is not None):
        asked = "auc" if wanted.auc else "liked"
        raise ConfigError(f"evaluate: {asked} needs the model's scores; give the model instead of its lists")
    if isinstance(recs, Recommender):
        _same_items(recs, prepared)
        recs = recs.recommend(n=min(wanted.max_k, recs.num_items), filter_seen=filter_seen)
    lists = _lists(to_arrow(recs, "recs"), prepared)
    return _measured(lists, model, prepared, test.parts[0], wanted, filter_seen).finish(wanted)


def _measured(
    lists: pa.Table,
    model: Recommender | None,
    prepared: Prepared,
    part: str,
    wanted: EvaluationSettings,
    filter_seen: bool,
) -> Partial:
    """All shards; ``model`` where its scores are asked for, too."""
    known = ("train",) if part == "valid" else ("train", "valid")
    item_ids = prepared.items.column("item_id").combine_chunks()
    items = ItemCounts(item_ids, prepared.item_counts(known), *item_genres(prepared.items))
    total = Partial()
    for shard in range(prepared.num_shards):
        targets, requests = prepared.targets(shard, part), prepared.requests(shard, known)
        total = total.merge(
            evaluate_part(
                lists.filter(pc.is_in(lists.column("user_id"), value_set=targets.user_ids)),
                targets.user_ids,
                targets.items,
                requests.histories.lengths_B,
                items,
                wanted,
                shard,
                ratings_E=targets.ratings_E,
                scored=None if model is None else _scored(model, targets, wanted),
                seen=seen_items(requests) if filter_seen else None,
            )
        )
    return total


def _scored(model: Recommender, targets: Targets, settings: EvaluationSettings) -> UserValues:
    """What the model's scores say, asked with the histories it answers from."""
    if not settings.auc and settings.liked is None:
        return {}
    return scored_values(model.bundle, model.requests(targets.user_ids.to_pylist()), targets, settings)


def _same_items(model: Recommender, prepared: Prepared) -> None:
    if model.bundle.manifest["vocabulary_sha256"] != prepared.manifest["vocabulary_sha256"]:
        raise DataError(
            f"evaluate: the model knows {model.num_items:,} other items than the {prepared.num_items:,} of test; fit "
            "it on the train part of the same split"
        )


def _lists(table: pa.Table, prepared: Prepared) -> pa.Table:
    """The leading columns of recommendations, in the types of the data."""
    item_type = prepared.items.column("item_id").type
    wanted = schema.recommendations(prepared.user_id_type, item_type)
    missing = [name for name in wanted.names if name not in table.column_names]
    if missing:
        found = ", ".join(table.column_names)
        raise DataError(f"recs: no column {missing[0]!r}; found {found}; give what recommend() returned")
    try:
        table = table.select(wanted.names).cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        kinds = f"{prepared.user_id_type} and {item_type}"
        raise DataError(f"recs: user and item ids of the data are {kinds}; the lists have others") from error
    known = pa.concat_arrays([prepared.shard(shard).column("user_id").combine_chunks() for shard in _shards(prepared)])
    strange = table.filter(pc.invert(pc.is_in(table.column("user_id"), value_set=known)))
    if strange.num_rows:
        raise DataError(f"recs: user {strange.column('user_id')[0].as_py()!r} is not a user of test")
    return table


def _shards(prepared: Prepared) -> range:
    return range(prepared.num_shards)
