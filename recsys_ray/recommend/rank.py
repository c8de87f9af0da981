"""Requests in, ranked rows out: the only code that masks, filters, ranks, falls back and translates ids.

    retrieval -> ranker -> re-ranking -> fallback

The model finds candidates among all items; a ranker, when there is one, scores those anew; re-ranking picks the list
from the best of them. Without a ranker and re-ranking the candidates are the list.

The batch job maps it over user shards, an endpoint calls it on a micro-batch, tests call it on one user.
The answer to a request does not depend on the other requests beside it.

E are the rows of all lists end to end, R the requests with short lists.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_ray.base import schema
from recsys_ray.base.errors import ModelError
from recsys_ray.base.ragged import offsets
from recsys_ray.base.types import BoolArray, FloatArray, IntArray, ItemLists, LongArray, Requests, ScoresPairs
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.recommend.config import GENRES, POPULARITY, TRENDING
from recsys_ray.recommend.opinion import silent_queries, silent_scores, without_spread
from recsys_ray.recommend.options import Explainer, Options, shown_items
from recsys_ray.retrieval import (
    NO_ITEM,
    TopK,
    top_k_scores,
)

MODEL = 0
"""The place of the model itself in ``Bundle.sources``."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The lists of B requests, K = n ranks each, as catalogue rows: no outside id in it."""

    rows_BK: IntArray
    """Item rows in rank order; -1 behind the end of a list."""
    scores_BK: FloatArray
    """They never rise with the rank."""
    sources_BK: npt.NDArray[np.int8]
    """Who put the item there: a place in ``Bundle.sources``. The model's rows come first."""

    def part(self, lists: slice, ranks: slice = slice(None)) -> Ranked:
        """These lists, or these ranks of them, without copying."""
        return Ranked(self.rows_BK[lists, ranks], self.scores_BK[lists, ranks], self.sources_BK[lists, ranks])


def rank(bundle: Bundle, requests: Requests, options: Options) -> Ranked:
    """The top n of every request, as catalogue rows. The answer to a request does not depend on those beside it.

    Rows of the model come first. Their score is the model's, or the ranker's where it knows the request; with variety
    asked for it is the marginal relevance by which the item was picked (see ``retrieval.rerank``), in -1..1.
    The fallbacks fill what is missing, one after the other, each one's scores continuing below those before (last
    score - 1 + something between 0 and 1: for popularity the share of users who have the item, for a model a rising
    function of its score). So scores never rise with the rank, whatever made the list.
    """
    # An inner product is searched in blocks of the index's own; only finished scores are as wide as the catalogue.
    searched = bundle.vectors is not None
    bytes_per_user = 64 * options.num_candidates if searched else 4 * max(1, bundle.num_items)
    users_per_block = max(1, options.block_bytes // bytes_per_user)
    starts = range(0, max(1, len(requests)), users_per_block)
    blocks = [
        _rank_block(bundle, requests.slice(start, min(start + users_per_block, len(requests))), options)
        for start in starts
    ]
    if len(blocks) == 1:
        return blocks[0]
    parts = ([getattr(block, name) for block in blocks] for name in ("rows_BK", "scores_BK", "sources_BK"))
    return Ranked(*(np.concatenate(part) for part in parts))


def recommend(bundle: Bundle, requests: Requests, options: Options) -> pa.Table:
    """``rank`` as rows of ``schema.recommendations``, in request order, rank by rank."""
    return to_table(bundle, requests, rank(bundle, requests, options), options.explainer)


def predict(bundle: Bundle, requests: Requests, targets: ItemLists) -> FloatArray:
    """(E,) the model's score of every listed (request, item) pair, in the order of ``targets.items_E``; NaN where
    the model has no opinion."""
    rows_E = np.repeat(np.arange(len(targets)), targets.lengths_B)  # the request of each entry
    vectors = bundle.vectors
    if vectors is None:
        scores_E = bundle.scorer.score(requests)[rows_E, targets.items_E]
    else:
        items = vectors.items
        scores_E = np.einsum("ed,ed->e", vectors.queries(requests)[rows_E], items.vectors_ID[targets.items_E])
        if items.bias_I is not None:
            scores_E = scores_E + items.bias_I[targets.items_E]
    known_E = bundle.scorer.answers(requests)[rows_E] & bundle.scorer.scorable_I[targets.items_E]
    return np.where(known_E & np.isfinite(scores_E), scores_E, np.nan).astype(np.float32)


def seen_items(requests: Requests) -> ItemLists:
    """History and further seen items of every request, one list each."""
    history = ItemLists(requests.histories.offsets_B1, requests.histories.items_E)
    return history.join(requests.seen) if len(requests.seen.items_E) else history


def excluded_items(requests: Requests, options: Options) -> ItemLists:
    """What must not be in the list of every request: what it hides, and what was seen where that is filtered."""
    exclude = seen_items(requests) if options.filter_seen else ItemLists.empty(len(requests))
    return exclude if requests.hidden is None else exclude.join(requests.hidden)


def _rank_block(bundle: Bundle, requests: Requests, options: Options) -> Ranked:
    options = replace(options, allowed_I=shown_items(bundle, options))
    exclude = excluded_items(requests, options)
    instead = _instead(requests, options)
    others_B = np.any([rows_B for _, rows_B in instead], axis=0) if instead else np.zeros(len(requests), np.bool_)
    top = _model_rows(bundle, requests, exclude, options, others_B)
    rows_BK, scores_BK = top.rows_BK, top.scores_BK
    sources_BK = np.full(rows_BK.shape, MODEL, np.int8)
    everybody_B = np.ones(len(requests), np.bool_)
    for name, rows_B in [*instead, *((name, everybody_B) for name in options.fallback)]:
        short = np.flatnonzero(rows_B & ((rows_BK >= 0).sum(axis=1) < options.n))
        if len(short):
            filled_BK = (rows_BK < 0) & rows_B[:, None]
            _fill(bundle, name, requests.take(short), (rows_BK, scores_BK), short, exclude, options)
            sources_BK[filled_BK] = bundle.sources.index(f"{schema.FALLBACK}{name}")
    return Ranked(rows_BK, scores_BK, sources_BK)


def _instead(requests: Requests, options: Options) -> list[tuple[str, BoolArray]]:
    """Who answers in the place of the model, and (B,) whom: by the stage that a history has reached, or, where there is
    no history and genres are named, by these."""
    lengths_B = requests.histories.lengths_B
    stage_B = np.full(len(requests), -1)
    for number, stage in enumerate(options.stages):
        stage_B[lengths_B >= stage.ratings] = number
    if options.likes:
        stage_B[lengths_B == 0] = len(options.stages)
    names = [*(stage.answers for stage in options.stages), *([GENRES] if options.likes else [])]
    found = [(name, stage_B == number) for number, name in enumerate(names) if name != schema.SOURCE_MODEL]
    return [(name, rows_B) for name, rows_B in found if rows_B.any()]


def _model_rows(bundle: Bundle, requests: Requests, exclude: ItemLists, options: Options, others_B: BoolArray) -> TopK:
    """The part of each list that the model answers for, through all stages; nothing where others answer."""
    found, flat_B = _retrieved(bundle, requests, exclude, options)
    silent_B = ~bundle.scorer.answers(requests) | flat_B | others_B
    top = TopK(found.rows_BK.copy(), found.scores_BK.copy())
    top.rows_BK[silent_B], top.scores_BK[silent_B] = NO_ITEM, -np.inf
    if options.ranker is not None:
        top = _scored_anew(options.ranker, requests, top)
    return _picked(top, options)


def _picked(top: TopK, options: Options) -> TopK:
    """The list from its candidates: re-weighted by the time, and varied, as far as that is asked for."""
    top = _timed(top, options)
    if options.reranker is not None:
        pool = options.rerank_pool
        return options.reranker.pick(TopK(top.rows_BK[:, :pool], top.scores_BK[:, :pool]), options.n)
    return TopK(top.rows_BK[:, : options.n].copy(), top.scores_BK[:, : options.n].copy())


def _timed(found: TopK, options: Options) -> TopK:
    if options.time_of_day is None or options.moment is None or options.moment.part < 0:
        return found
    return options.time_of_day.applied(found, options.moment.part)


def _retrieved(bundle: Bundle, requests: Requests, exclude: ItemLists, options: Options) -> tuple[TopK, BoolArray]:
    """The candidates, and (B,) whose scores say nothing of them."""
    scorer, k = bundle.scorer, max(2, options.num_candidates)  # one alone does not show whether others score the same
    allowed_I = scorer.scorable_I if options.allowed_I is None else scorer.scorable_I & options.allowed_I
    if bundle.vectors is not None:
        index = bundle.index if options.index is None else options.index
        queries_BD = bundle.vectors.queries(requests)
        found = index.search(queries_BD, k, exclude, allowed_I)
        return found, silent_queries(bundle, queries_BD, found, exclude, allowed_I)
    scores_BI = scorer.score(requests)
    if np.isnan(scores_BI).any():
        raise ModelError(
            f"model {bundle.manifest.get('model', '?')} gave NaN scores: refit it with a lower learning rate"
        )
    found = top_k_scores(scores_BI, k, exclude, allowed_I)
    return found, silent_scores(scores_BI, requests.histories, found, exclude, allowed_I)


def _scored_anew(ranker: ScoresPairs, requests: Requests, found: TopK) -> TopK:
    """The candidates in the ranker's order, without those it has no opinion on; as they were for a request of whose
    candidates it knows none, or all of which it scores alike."""
    top = _by_score(found.rows_BK, ranker.score_pairs(requests, found.rows_BK))
    knows_all_B = ((top.rows_BK >= 0) == (found.rows_BK >= 0)).all(axis=1)
    alike_B = knows_all_B & without_spread(top, np.abs(top.scores_BK[:, 0]))
    silent_B = (top.rows_BK[:, 0] == NO_ITEM) | alike_B
    top.rows_BK[silent_B], top.scores_BK[silent_B] = found.rows_BK[silent_B], found.scores_BK[silent_B]
    return top


def _by_score(rows_BK: IntArray, scores_BK: FloatArray) -> TopK:
    """Each row by score, of equals the lower item row, as everywhere; what has no score (-inf) is left out."""
    rows_BK = np.where(scores_BK > -np.inf, rows_BK, NO_ITEM)
    order_BK = np.lexsort((rows_BK, -scores_BK))
    return TopK(np.take_along_axis(rows_BK, order_BK, axis=1), np.take_along_axis(scores_BK, order_BK, axis=1))


def _fill(
    bundle: Bundle,
    name: str,
    requests: Requests,
    top: tuple[IntArray, FloatArray],
    short: LongArray,
    exclude: ItemLists,
    options: Options,
) -> None:
    """Complete the rows numbered ``short`` of ``top`` (rows_BK, scores_BK) in place, by the fallback of this name;
    ``requests`` are theirs alone."""
    rows_BK, scores_BK = top
    # R: the short lists alone, and how many items are in each of them.
    listed_RK = rows_BK[short]
    have_R = (listed_RK >= 0).sum(axis=1)
    # What must not come again: what is excluded anyway, and these items.
    taken = exclude.take(short).join(ItemLists(offsets(have_R), listed_RK[listed_RK >= 0]))
    fill = _timed(_found_by(bundle, name, requests, taken, options), options)
    if options.reranker is not None:
        fill = options.reranker.within_caps(fill, listed_RK, options.n)
    # No more than 1, whatever the time adds: the list goes on below what it has.
    fill = TopK(fill.rows_BK[:, : options.n], np.minimum(fill.scores_BK[:, : options.n], np.float32(1)))
    # The first of the fill goes behind the last of the model: column k of the fill becomes column have + k.
    columns_RK = have_R[:, None] + np.arange(options.n)
    fits_RK = columns_RK < options.n
    # Each entry of the fill with its row among all B; scores go on from the model's last, from 1 where it has none.
    rows_RK, last_R = np.broadcast_to(short[:, None], columns_RK.shape), np.ones(len(short), np.float32)
    some = have_R > 0
    last_R[some] = scores_BK[short[some], have_R[some] - 1]
    rows_BK[rows_RK[fits_RK], columns_RK[fits_RK]] = fill.rows_BK[fits_RK]
    continued_RK = last_R[:, None] - np.float32(1.0) + fill.scores_BK
    scores_BK[rows_RK[fits_RK], columns_RK[fits_RK]] = continued_RK[fits_RK]


def _found_by(bundle: Bundle, name: str, requests: Requests, taken: ItemLists, options: Options) -> TopK:
    """What a fallback gives each request, best first, scores between 0 and 1."""
    index, allowed_I = bundle.popularity_index, options.allowed_I
    if name == TRENDING:
        assert options.trending is not None  # read_options has read it
        index, recent_I = options.trending.index, options.trending.recent_I
        allowed_I = recent_I if allowed_I is None else recent_I & allowed_I
    if name in (POPULARITY, TRENDING):
        queries = np.zeros((len(requests), 0), np.float32)
        return index.search(queries, options.rerank_pool, taken, allowed_I)
    if name == GENRES:
        scores_BI = bundle.genre_profiles.of_histories(requests.histories)
        if options.likes:
            scores_BI[requests.histories.lengths_B == 0] = bundle.genre_profiles.of_genres(options.likes)
        return top_k_scores(scores_BI, options.rerank_pool, taken, allowed_I)
    scorer = bundle.fallbacks[name]
    allowed_I = scorer.scorable_I if allowed_I is None else scorer.scorable_I & allowed_I
    scores_BI = np.where(scorer.answers(requests)[:, None], scorer.score(requests), np.float32(-np.inf))
    found = top_k_scores(scores_BI, max(2, options.rerank_pool), taken, allowed_I)
    silent_B = silent_scores(scores_BI, requests.histories, found, taken, allowed_I)
    found.rows_BK[silent_B], found.scores_BK[silent_B] = NO_ITEM, -np.inf
    with np.errstate(invalid="ignore"):  # of -inf where a list has no more items
        squashed_BK = 0.5 + 0.5 * found.scores_BK / (1 + np.abs(found.scores_BK))
    return TopK(found.rows_BK, np.where(found.rows_BK >= 0, squashed_BK, np.float32(-np.inf)).astype(np.float32))


def to_table(bundle: Bundle, requests: Requests, ranked: Ranked, explainer: Explainer | None = None) -> pa.Table:
    """The lists with outside ids, a row a recommendation, as ``schema.recommendations``."""
    present_BK = ranked.rows_BK >= 0
    # E: the entries that are there, list by list and rank by rank; a mask picks them from an array in the same order.
    rows_E, columns_E = np.nonzero(present_BK)
    source = pa.DictionaryArray.from_arrays(pa.array(ranked.sources_BK[present_BK]), pa.array(bundle.sources))
    columns = [
        requests.user_ids.take(pa.array(rows_E)),
        pa.array((columns_E + 1).astype(np.int32)),
        bundle.item_ids.take(pa.array(ranked.rows_BK[present_BK])),
        pa.array(ranked.scores_BK[present_BK]),
        source.dictionary_decode(),
    ]
    if explainer is not None:
        columns.append(pa.array(explainer(bundle, requests, ranked.rows_BK, ranked.sources_BK), pa.string()))
    return pa.table(columns, schema=_schema(bundle, explainer))


def nested(table: pa.Table) -> pa.Table:
    """The same rows, a user a row. Users must be contiguous, as ``recommend`` leaves them."""
    ranks = table.column("rank").to_numpy()
    starts = np.append(np.flatnonzero(ranks == 1), len(ranks)).astype(np.int32)
    names = [name for name in ("item_id", "score", "source", "reason") if name in table.schema.names]
    lists = [pa.ListArray.from_arrays(pa.array(starts), table.column(name).combine_chunks()) for name in names]
    user_ids = table.column("user_id").combine_chunks().take(pa.array(starts[:-1]))
    fields = table.schema.field("user_id").type, table.schema.field("item_id").type
    return pa.table([user_ids, *lists], schema=schema.nested_recommendations(*fields, reasons="reason" in names))


def _schema(bundle: Bundle, explainer: Explainer | None) -> pa.Schema:
    return schema.recommendations(bundle.user_id_type, bundle.item_ids.type, reasons=explainer is not None)
