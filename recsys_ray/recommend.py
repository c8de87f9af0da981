"""Requests in, ranked rows out: the only code that masks, filters, ranks, falls back and translates ids.

The batch job maps it over user shards, an endpoint calls it on a micro-batch, tests call it on one user.
The answer to a request does not depend on the other requests beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from recsys_ray import schema
from recsys_ray.bundle import Bundle
from recsys_ray.contracts import BoolArray, FloatArray, IntArray, ItemLists, LongArray, Requests, Settings
from recsys_ray.errors import ConfigError, ModelError
from recsys_ray.retrieval import TopK, top_k_scores

FALLBACK = "popularity"
Layout = Literal["long", "nested"]


class RecommendSettings(Settings):
    """What is asked of the batch job."""

    n: int = Field(default=10, ge=1)
    """Rows per user."""
    filter_seen: bool = True
    """Never recommend what the user already has."""
    allow: str | None = None
    """File of item ids (Parquet or CSV with a column item_id, or one id a line): nothing else is recommended."""
    deny: str | None = None
    """File of item ids that are never recommended."""
    candidates: Literal["all", "cold"] = "all"
    """cold: only items that nobody has interacted with in the data the model was fitted on: a shelf of new arrivals."""
    fallback: Literal["popularity", "none"] = "popularity"
    """Who fills the rows that the model has no opinion on; "none" leaves them out."""
    layout: Layout = "long"
    """A row per recommendation, or a row per user with lists."""
    block_mib: int = Field(default=64, ge=1)
    """Upper bound on one block of scores."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to answer: ``RecommendSettings`` with its files read."""

    n: int = 10
    filter_seen: bool = True
    allowed_I: BoolArray | None = None
    """Items that may be shown at all; None for every item."""
    fallback: bool = True
    block_bytes: int = 64 << 20


def check_options(bundle: Bundle, options: Options) -> None:
    """ConfigError when no catalogue could satisfy them."""
    allowed = bundle.num_items if options.allowed_I is None else int(options.allowed_I.sum())
    if options.n > bundle.num_items:
        raise ConfigError(
            f"recommend.n={options.n} is larger than the catalogue of {bundle.num_items} items; set it lower"
        )
    if allowed == 0:
        raise ConfigError(
            "recommend.allow, recommend.deny and recommend.candidates leave no item to recommend; loosen one of them"
        )


def recommend(bundle: Bundle, requests: Requests, options: Options) -> pa.Table:
    """The top n of every request, as rows of ``schema.recommendations`` in request order, rank by rank.

    Rows of the model come first; ``fallback:popularity`` fills what is missing, its scores continuing below the
    model's (last model score - 1 + share of users who have the item), so that scores never rise with the rank.
    """
    # An inner product is searched in blocks of the index's own; only finished scores are as wide as the catalogue.
    factored = bundle.scorer.factors(requests.slice(0, 0)) is not None
    bytes_per_user = 64 * options.n if factored else 4 * max(1, bundle.num_items)
    users_per_block = max(1, options.block_bytes // bytes_per_user)
    blocks = [
        _table(bundle, block, _ranked(bundle, block, options))
        for start in range(0, len(requests), users_per_block)
        for block in [requests.slice(start, min(start + users_per_block, len(requests)))]
    ]
    return pa.concat_tables(blocks) if blocks else _schema(bundle).empty_table()


def predict(bundle: Bundle, requests: Requests, targets: ItemLists) -> FloatArray:
    """(E,) the model's score of every listed (request, item) pair, in the order of ``targets.items_E``; NaN where
    the model has no opinion."""
    rows_E = np.repeat(np.arange(len(targets)), targets.lengths_B)
    factors = bundle.scorer.factors(requests)
    if factors is None:
        scores_E = bundle.scorer.score(requests)[rows_E, targets.items_E]
    else:
        scores_E = np.einsum("ed,ed->e", factors.queries_BD[rows_E], factors.items_ID[targets.items_E])
        if factors.bias_I is not None:
            scores_E = scores_E + factors.bias_I[targets.items_E]
    known_E = bundle.scorer.answers(requests)[rows_E] & bundle.scorer.scorable_I[targets.items_E]
    return np.where(known_E & np.isfinite(scores_E), scores_E, np.nan).astype(np.float32)


def seen_items(requests: Requests) -> ItemLists:
    """History and further seen items of every request, one list each."""
    history = ItemLists(requests.histories.offsets_B1, requests.histories.items_E)
    return _joined(history, requests.seen) if len(requests.seen.items_E) else history


@dataclass(frozen=True, slots=True)
class _Ranked:
    rows_BK: IntArray
    scores_BK: FloatArray
    from_model_B: LongArray
    """How many leading columns of each row are the model's; the rest, up to the first -1, are the fallback's."""


def _ranked(bundle: Bundle, requests: Requests, options: Options) -> _Ranked:
    exclude = seen_items(requests) if options.filter_seen else ItemLists.empty(len(requests))
    top = _model_rows(bundle, requests, exclude, options)
    silent_B = ~bundle.scorer.answers(requests)
    rows_BK, scores_BK = top.rows_BK.copy(), top.scores_BK.copy()
    rows_BK[silent_B], scores_BK[silent_B] = -1, -np.inf
    from_model_B = (rows_BK >= 0).sum(axis=1)
    short = np.flatnonzero(from_model_B < options.n)
    if options.fallback and len(short):
        _fill(bundle, rows_BK, scores_BK, short, exclude, options)
    return _Ranked(rows_BK, scores_BK, from_model_B)


def _model_rows(bundle: Bundle, requests: Requests, exclude: ItemLists, options: Options) -> TopK:
    scorer = bundle.scorer
    allowed_I = scorer.scorable_I if options.allowed_I is None else scorer.scorable_I & options.allowed_I
    factors = scorer.factors(requests)
    if factors is not None:
        return bundle.index(factors).search(factors.queries_BD, options.n, exclude, allowed_I)
    scores_BI = scorer.score(requests)
    if np.isnan(scores_BI).any():
        raise ModelError(
            f"model {bundle.manifest.get('model', '?')} gave NaN scores: refit it with a lower learning rate"
        )
    return top_k_scores(scores_BI, options.n, exclude, allowed_I)


def _fill(
    bundle: Bundle, rows_BK: IntArray, scores_BK: FloatArray, short: LongArray, exclude: ItemLists, options: Options
) -> None:
    """Complete the rows numbered ``short`` in place, by popularity."""
    have_S = (rows_BK[short] >= 0).sum(axis=1)
    listed = ItemLists(_offsets(have_S), rows_BK[short][rows_BK[short] >= 0])
    taken = _joined(_rows_of(exclude, short), listed)
    factors = bundle.popularity
    queries = np.zeros((len(short), 0), np.float32)
    fill = bundle.index(factors).search(queries, options.n, taken, options.allowed_I)
    # The first of the fill goes behind the last of the model: column k of the fill becomes column have + k.
    columns_SK = have_S[:, None] + np.arange(options.n)
    fits_SK = columns_SK < options.n
    rows_SK, last_S = np.broadcast_to(short[:, None], columns_SK.shape), np.ones(len(short), np.float32)
    some = have_S > 0
    last_S[some] = scores_BK[short[some], have_S[some] - 1]
    rows_BK[rows_SK[fits_SK], columns_SK[fits_SK]] = fill.rows_BK[fits_SK]
    continued_SK = last_S[:, None] - np.float32(1.0) + fill.scores_BK
    scores_BK[rows_SK[fits_SK], columns_SK[fits_SK]] = continued_SK[fits_SK]


def _offsets(lengths: LongArray) -> LongArray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _rows_of(lists: ItemLists, rows: LongArray) -> ItemLists:
    lengths = lists.lengths_B[rows]
    return ItemLists(_offsets(lengths), lists.items_E[_positions(lists.offsets_B1[rows], lengths)])


def _joined(first: ItemLists, second: ItemLists) -> ItemLists:
    """Row by row, the items of both."""
    offsets = first.offsets_B1 + second.offsets_B1
    items_E = np.empty(int(offsets[-1]), np.int32)
    items_E[_positions(offsets[:-1], first.lengths_B)] = first.items_E
    items_E[_positions(offsets[:-1] + first.lengths_B, second.lengths_B)] = second.items_E
    return ItemLists(offsets, items_E)


def _table(bundle: Bundle, requests: Requests, ranked: _Ranked) -> pa.Table:
    present_BK = ranked.rows_BK >= 0
    rows_E, columns_E = np.nonzero(present_BK)
    is_model_E = columns_E < ranked.from_model_B[rows_E]
    names = pa.array([schema.SOURCE_MODEL, f"fallback:{FALLBACK}"])
    source = pa.DictionaryArray.from_arrays(pa.array((~is_model_E).astype(np.int8)), names)
    return pa.table(
        [
            requests.user_ids.take(pa.array(rows_E)),
            pa.array((columns_E + 1).astype(np.int32)),
            bundle.item_ids.take(pa.array(ranked.rows_BK[present_BK])),
            pa.array(ranked.scores_BK[present_BK]),
            source.dictionary_decode(),
        ],
        schema=_schema(bundle),
    )


def nested(table: pa.Table) -> pa.Table:
    """The same rows, a user a row. Users must be contiguous, as ``recommend`` leaves them."""
    ranks = table.column("rank").to_numpy()
    starts = np.append(np.flatnonzero(ranks == 1), len(ranks)).astype(np.int32)
    lists = [
        pa.ListArray.from_arrays(pa.array(starts), table.column(name).combine_chunks())
        for name in ("item_id", "score", "source")
    ]
    user_ids = table.column("user_id").combine_chunks().take(pa.array(starts[:-1]))
    fields = table.schema.field("user_id").type, table.schema.field("item_id").type
    return pa.table([user_ids, *lists], schema=schema.nested_recommendations(*fields))


def _schema(bundle: Bundle) -> pa.Schema:
    return schema.recommendations(bundle.user_id_type, bundle.item_ids.type)


def _positions(starts: LongArray, lengths: LongArray) -> LongArray:
    """Concatenated ranges start:start + length."""
    total = int(lengths.sum())
    before = np.cumsum(lengths) - lengths
    positions: LongArray = np.arange(total, dtype=np.int64) + np.repeat(starts - before, lengths)
    return positions
