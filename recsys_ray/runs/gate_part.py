"""One part of a finished run against everything that a part must be: its columns, its rows, and the model's own lists.

A random sample of users is computed again by the code of the batch job and compared item by item. Where two scores are
closer than rounding between machines can be, their items may have changed places; nothing else may differ.

S are the sampled users of a part, K = n the ranks.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError
from recsys_ray.base.ragged import of_list_array, places_in_rows
from recsys_ray.base.storage import Location
from recsys_ray.base.types import BoolArray, ItemLists, LongArray, Requests
from recsys_ray.recommend.bundle import Bundle, open_bundle
from recsys_ray.recommend.config import POPULARITY, RecommendSettings
from recsys_ray.recommend.opinion import without_spread
from recsys_ray.recommend.options import Options, read_options, shown_items, with_stages
from recsys_ray.recommend.rank import MODEL, Ranked, excluded_items, predict, rank
from recsys_ray.retrieval import TopK

TOLERANCE = np.float32(1e-4)
"""Of the largest score of a list: how far scores may be from those of another machine."""


@dataclass(frozen=True, slots=True)
class Answering:
    """What a run is checked against: places, and the options it was made with."""

    bundle: str
    settings: RecommendSettings
    ranker: str | None
    sample: float
    """Share of the users that are computed again."""


@lru_cache(maxsize=1)  # a worker checks many shards of one run
def opened(answering: Answering) -> tuple[Bundle, Options]:
    bundle = open_bundle(Location(answering.bundle))
    options = read_options(bundle, answering.settings)
    if answering.sample:
        ranker = None if answering.ranker is None else Location(answering.ranker)
        options = with_stages(bundle, answering.settings, options, ranker)
    return bundle, options


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a part as numbers, users and items as rows of the shard and the catalogue, -1 where they are neither;
    sources as places in ``Bundle.sources``, -1 where they are none that these options allow."""

    users_E: LongArray
    ranks_E: LongArray
    items_E: LongArray
    scores_E: npt.NDArray[np.float32]
    sources_E: LongArray

    def lists(self, num_users: int, width: int) -> Ranked:
        """By user and rank; ranks must run from 1 and no further than the width."""
        shape, places = (num_users, width), (self.users_E, self.ranks_E - 1)
        found = Ranked(
            np.full(shape, -1, np.int32), np.full(shape, -np.inf, np.float32), np.full(shape, MODEL, np.int8)
        )
        found.rows_BK[places], found.scores_BK[places], found.sources_BK[places] = (
            self.items_E,
            self.scores_E,
            self.sources_E,
        )
        return found


def check_columns(table: pa.Table, bundle: Bundle, settings: RecommendSettings, problems: dict[str, int]) -> pa.Table:
    """The rows in the long layout.

    Raises:
        DataError: columns other than those of the layout, or lists of different lengths in one row.
    """
    types, is_nested = (bundle.user_id_type, bundle.item_ids.type), settings.layout == "nested"
    made = schema.nested_recommendations if is_nested else schema.recommendations
    wanted = made(*types, reasons=settings.reasons)
    schema.check(table, wanted, "columns")
    if table.schema.names != wanted.names:
        raise DataError(f"columns that do not belong there: {', '.join(table.schema.names[len(wanted) :])}")
    columns = [table.column(name) for name in wanted.names]
    if is_nested:
        lengths = [pc.list_value_length(column).combine_chunks() for column in columns[1:]]
        if any(found.null_count or not found.equals(lengths[0]) for found in lengths):
            raise DataError("lists of one row that differ in length")
        columns = [columns[0], *(of_list_array(column)[1] for column in columns[1:])]
    count(problems, "empty values", sum(column.null_count for column in columns))
    if settings.reasons:
        count(problems, "rows without a reason", pc.sum(pc.equal(columns[-1], "")).as_py() or 0)
    return flat(table)


def flat(table: pa.Table) -> pa.Table:
    """A part in the long layout, whichever it was written in."""
    if "item_ids" not in table.schema.names:
        return table
    offsets, item_ids = of_list_array(table.column("item_ids"))
    lengths = np.diff(offsets)
    long = pa.table(
        {
            "user_id": table.column("user_id")
            .combine_chunks()
            .take(pa.array(np.repeat(np.arange(len(lengths)), lengths))),
            "rank": pa.array((places_in_rows(lengths) + 1).astype(np.int32)),
            "item_id": item_ids,
            "score": table.column("scores").combine_chunks().flatten(),
            "source": table.column("sources").combine_chunks().flatten(),
        }
    )
    if "reasons" in table.schema.names:
        long = long.append_column("reason", table.column("reasons").combine_chunks().flatten())
    return long


def read_rows(table: pa.Table, bundle: Bundle, requests: Requests, options: Options) -> Rows:
    """A table in the long layout as numbers."""
    allowed = {schema.SOURCE_MODEL, *(f"{schema.FALLBACK}{name}" for name in options.fallback)}
    allowed |= {f"{schema.FALLBACK}{stage.answers}" for stage in options.stages}
    known = pa.array([name if name in allowed else None for name in bundle.sources], pa.string())
    return Rows(
        _places(table.column("user_id"), requests.user_ids),
        pc.fill_null(table.column("rank"), 0).to_numpy().astype(np.int64),
        _places(table.column("item_id"), bundle.item_ids),
        pc.fill_null(table.column("score"), np.nan).to_numpy(),
        np.where(pc.is_null(table.column("source")).to_numpy(), -1, _places(table.column("source"), known)),
    )


def _places(column: pa.ChunkedArray, known: pa.Array) -> LongArray:
    return np.asarray(pc.fill_null(pc.index_in(column, value_set=known), -1).to_numpy(), np.int64)


def check_rows(
    bundle: Bundle, requests: Requests, rows: Rows, options: Options, problems: dict[str, int]
) -> tuple[LongArray, tuple[int, int]]:
    """Count every broken rule in ``problems``; the (I,) exposure, and of the lists of two rows or more that the model
    answers how many have no spread, and how many there are."""
    users, items, scores = rows.users_E, rows.items_E, rows.scores_E
    count(problems, "rows of unknown users", users < 0)
    count(problems, "items outside the catalogue", items < 0)
    count(problems, "scores not finite", ~np.isfinite(scores))
    count(problems, "rows of an unknown source", rows.sources_E < 0)
    known = (users >= 0) & (items >= 0)
    users, items, scores, ranks = users[known], items[known], scores[known], rows.ranks_E[known]
    count(problems, "rows out of order, not user by user", np.diff(users) < 0)
    first = np.append(True, users[1:] != users[:-1])[: len(users)]
    places = np.arange(len(users))
    expected = places - np.maximum.accumulate(np.where(first, places, 0)) + 1
    count(problems, "ranks that do not run 1, 2, ...", ranks != expected)
    count(problems, "scores that rise with the rank", ~first[1:] & (scores[1:] > scores[:-1]))

    pairs = users * bundle.num_items + items
    count(problems, "items repeated in one list", np.diff(np.sort(pairs)) == 0)
    excluded = excluded_items(requests, options)
    excluded_pairs = np.unique(excluded.rows_E.astype(np.int64) * bundle.num_items + excluded.items_E)
    count(problems, "items the user has already seen or hides", np.isin(pairs, excluded_pairs))
    allowed_I = shown_items(bundle, options)
    if allowed_I is not None:
        count(problems, "items that the rules of recommend forbid", ~allowed_I[items])
    rows_B = np.bincount(users, minlength=len(requests))
    expected_B = _honest_maximum(bundle, requests, excluded_pairs, allowed_I, options.n)
    cap = None if options.reranker is None else options.reranker.settings.max_per_genre
    least_B = np.minimum(expected_B, 1 if cap is not None else options.n)
    if POPULARITY not in options.fallback:  # which alone knows every item
        least_B = 0 * expected_B
    wrong_B = (rows_B < least_B) | (rows_B > expected_B)
    count(problems, f"users without exactly {options.n} rows or the honest maximum", wrong_B)
    if cap is not None:
        listed = bundle.genres[0].take(items)
        keys = np.repeat(users, listed.lengths_B) * len(bundle.genres[1]) + listed.items_E
        count(problems, "genres above recommend.rerank.max_per_genre", np.unique(keys, return_counts=True)[1] > cap)
    return np.bincount(items, minlength=bundle.num_items), (0, 0) if problems else _spread(bundle, rows, len(requests))


def _honest_maximum(
    bundle: Bundle, requests: Requests, excluded_pairs: LongArray, allowed_I: BoolArray | None, n: int
) -> LongArray:
    """(B,) n, or all that the rules and the user's own history leave when that is less."""
    allowed_I = np.ones(bundle.num_items, np.bool_) if allowed_I is None else allowed_I
    available_B = np.full(len(requests), int(allowed_I.sum()))
    allowed_pairs = excluded_pairs[allowed_I[excluded_pairs % bundle.num_items]]
    available_B -= np.bincount(allowed_pairs // bundle.num_items, minlength=len(requests))
    expected_B: LongArray = np.minimum(available_B, n)
    return expected_B


def _spread(bundle: Bundle, rows: Rows, num_users: int) -> tuple[int, int]:
    """Of a model that answers everybody alike none are counted: two items may be equally popular."""
    if not bundle.scorer.personal:
        return 0, 0
    lists = rows.lists(num_users, int(rows.ranks_E.max(initial=1)))
    by_model_BK = (lists.sources_BK == MODEL) & (lists.rows_BK >= 0)
    top = TopK(np.where(by_model_BK, lists.rows_BK, -1), np.where(by_model_BK, lists.scores_BK, -np.inf))
    return int(without_spread(top, np.abs(top.scores_BK[:, 0])).sum()), int((by_model_BK.sum(axis=1) > 1).sum())


def check_sample(bundle: Bundle, requests: Requests, rows: Rows, options: Options, share: float, data: bytes) -> int:
    """How many of a random sample of users have a list that the model would not give them. ``data`` are the bytes of
    the part: they decide who is drawn."""
    size = min(len(requests), int(np.ceil(share * len(requests))))
    if not size:
        return 0
    drawn_S = np.sort(np.random.default_rng(zlib.crc32(data)).choice(len(requests), size, replace=False))
    written = rows.lists(len(requests), options.n)
    sampled = requests.take(drawn_S)
    parts = (written.rows_BK[drawn_S], written.scores_BK[drawn_S], written.sources_BK[drawn_S])
    return int(np.count_nonzero(~_same(bundle, sampled, Ranked(*parts), rank(bundle, sampled, options), options)))


def _same(bundle: Bundle, requests: Requests, written: Ranked, model: Ranked, options: Options) -> BoolArray:
    """(S,) whether lists agree but for rounding."""
    there_SK = model.rows_BK >= 0
    sizes_S = np.where(there_SK, np.abs(model.scores_BK), 0).max(axis=1, initial=0)
    near_S = TOLERANCE * sizes_S
    with np.errstate(invalid="ignore"):  # of -inf behind the end of both lists
        close_SK = np.abs(written.scores_BK - model.scores_BK) <= near_S[:, None]
    as_long_S = ((written.rows_BK >= 0) == there_SK).all(axis=1)
    same_S = as_long_S & (close_SK | ~there_SK).all(axis=1)
    same_S &= ((written.sources_BK == model.sources_BK) | ~there_SK).all(axis=1)
    other_S = np.flatnonzero(same_S & (written.rows_BK != model.rows_BK).any(axis=1))
    for s in other_S.tolist():
        one = slice(s, s + 1)
        expected = _scores_of(bundle, requests.slice(s, s + 1), written.rows_BK[s], model.part(one), options)
        at_K = np.flatnonzero(written.rows_BK[s] != model.rows_BK[s])
        same_S[s] = bool((np.abs(expected[at_K] - model.scores_BK[s, at_K]) <= near_S[s]).all())
    return np.asarray(same_S, np.bool_)


def _scores_of(
    bundle: Bundle, request: Requests, written_K: npt.NDArray[Any], model: Ranked, options: Options
) -> npt.NDArray[np.float32]:
    """(K,) the score of each written item of one list: that of its own rank in the model's, else, where no later stage
    has changed scores, the model's of the pair; NaN where there is none."""
    found_K = np.full(len(written_K), np.nan, np.float32)
    places = {item: k for k, item in enumerate(model.rows_BK[0].tolist()) if item >= 0}
    plain = options.ranker is None and options.reranker is None and options.time_of_day is None
    for k, item in enumerate(written_K.tolist()):
        if item in places:
            found_K[k] = model.scores_BK[0, places[item]]
        elif item >= 0 and plain and model.sources_BK[0, k] == MODEL:
            found_K[k] = predict(bundle, request, ItemLists.from_lists([[item]]))[0]
    return found_K


def count(problems: dict[str, int], name: str, broken: Any) -> None:
    found = int(np.count_nonzero(broken)) if isinstance(broken, np.ndarray) else int(broken)
    if found:
        problems[name] = problems.get(name, 0) + found
