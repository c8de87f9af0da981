"""A world with known structure: who likes what, what follows what, and texts that tell it.

Items stand in clusters, a genre crossed with a theme. Inside a cluster they form a closed series in which each has a
successor; every item has a popularity (a power law in random order) and a quality. A user favours a few clusters.
A history is a walk: with chance ``sequels`` on to the successor, else a fresh draw by popularity, from a favoured
cluster or (``exploration``) from anywhere. So popularity, co-occurrence, order and text all carry signal.

A user's history depends on the settings and on the block of users it is generated in; blocks are independent streams.

U are the users of a block, G the clusters of items, K the favourites of a user.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base.ragged import list_array, offsets, places_in_rows
from recsys_ray.base.types import BoolArray, DoubleArray, FloatArray, LongArray
from recsys_ray.data.synthetic import drawing as posters

VERSION = 1
GENRES = (
    "Action", "Adventure", "Animation", "Biography", "Comedy", "Crime", "Documentary", "Drama", "Family", "Fantasy",
    "History", "Horror", "Music", "Musical", "Mystery", "Romance", "Science Fiction", "Sport", "Thriller", "War",
    "Western", "Noir", "Satire", "Travel",
)  # fmt: skip
THEMES = (
    "revenge", "friendship", "survival", "heist", "coming of age", "betrayal", "first love", "space voyage",
    "lost city", "courtroom", "road trip", "haunted house", "rivalry", "rebellion", "time loop", "small town",
)  # fmt: skip
PLACES = ("harbour", "desert", "mountain village", "metropolis", "island", "frontier", "palace", "submarine")
HEROES = ("a retired detective", "two sisters", "a young inventor", "an exiled king", "a stubborn pilot",
          "a travelling band", "an honest thief", "a quiet teacher")  # fmt: skip
ADJECTIVES = ("Silent", "Golden", "Broken", "Hidden", "Last", "Burning", "Distant", "Crimson", "Endless", "Hollow",
              "Midnight", "Northern", "Paper", "Restless", "Winter", "Wild")  # fmt: skip
NOUNS = ("River", "Empire", "Promise", "Garden", "Signal", "Shadow", "Harvest", "Machine", "Orchard", "Voyage",
         "Lantern", "Bridge", "Station", "Crown", "Letter", "Horizon", "Mirror", "Storm")  # fmt: skip

FAVOURITE_SHARES = (0.45, 0.25, 0.18, 0.12)
OVERSAMPLING = 1.35  # drawn beyond the wanted length, because repeats are thrown away
LENGTH_SIGMA = 0.7
FIRST_MOMENT = 1_420_070_400_000  # 2015-01-01 UTC
YEARS_OF_ARRIVALS = 8
YEAR = 365 * 86_400_000
MEAN_GAP_WITHIN, MEAN_GAP_BETWEEN = 40 * 60_000, 4 * 86_400_000


@dataclass(frozen=True, slots=True)
class WorldSettings:
    seed: int
    num_users: int
    num_items: int
    num_genres: int
    num_themes: int
    mean_length: float
    popularity_exponent: float
    exploration: float
    sequels: float


@dataclass(frozen=True, slots=True)
class World:
    """Items in slots ordered by cluster; ``item_of_slot_I`` shuffles them, so that item numbers tell nothing."""

    item_of_slot_I: LongArray
    first_slot_G1: LongArray
    """Cluster c has the slots ``first_slot_G1[c]:first_slot_G1[c + 1]``."""
    weight_before_I1: DoubleArray
    """Popularity weights of all slots before this one."""
    quality_I: FloatArray
    """By slot, in rating points."""
    cluster_of_slot_I: LongArray


@dataclass(frozen=True, slots=True)
class Interactions:
    """Users by number, each oldest first, no item twice."""

    users_E: LongArray
    items_E: LongArray
    ratings_E: FloatArray
    timestamps_E: LongArray


@lru_cache(maxsize=2)
def build(settings: WorldSettings) -> World:
    """The items' side of the world. Linear in items."""
    rng = np.random.default_rng([settings.seed, 0])
    num_items, num_clusters = settings.num_items, settings.num_genres * settings.num_themes
    cluster_sizes = rng.multinomial(num_items, rng.dirichlet(np.full(num_clusters, 6.0)))
    ranks = rng.permutation(num_items) + 1.0
    weights = (ranks + 5.0) ** -settings.popularity_exponent
    return World(
        item_of_slot_I=rng.permutation(num_items),
        first_slot_G1=offsets(cluster_sizes),
        weight_before_I1=np.concatenate([[0.0], np.cumsum(weights)]),
        quality_I=rng.normal(0, 0.4, num_items).astype(np.float32),
        cluster_of_slot_I=np.repeat(np.arange(num_clusters), cluster_sizes),
    )


def interactions_of(settings: WorldSettings, start: int, stop: int) -> Interactions:
    """The histories of users start:stop, about ``mean_length`` each. Linear in what comes out."""
    world = build(settings)
    rng = np.random.default_rng([settings.seed, 1, start])
    lengths_U = _lengths(settings, rng, stop - start)
    drawn_U = np.ceil(lengths_U * OVERSAMPLING).astype(np.int64) + 2
    rows_E = np.repeat(np.arange(stop - start), drawn_U)
    first_E = np.zeros(len(rows_E), bool)
    first_E[offsets(drawn_U)[:-1]] = True

    slots_E, liked_E, restart_E = _walk(settings, world, rng, (rows_E, first_E, stop - start))
    kept_E = _without_repeats(rows_E, slots_E, lengths_U, settings.num_items)
    rows_E, slots_E, liked_E, restart_E = rows_E[kept_E], slots_E[kept_E], liked_E[kept_E], restart_E[kept_E]
    return Interactions(
        users_E=rows_E + start,
        items_E=world.item_of_slot_I[slots_E],
        ratings_E=_ratings(rng, world.quality_I[slots_E], liked_E, rows_E, stop - start),
        timestamps_E=_timestamps(rng, restart_E, rows_E, stop - start),
    )


def _lengths(settings: WorldSettings, rng: np.random.Generator, num_users: int) -> LongArray:
    mean = max(settings.mean_length - 1, 1e-9)
    lengths = 1 + rng.lognormal(np.log(mean) - LENGTH_SIGMA**2 / 2, LENGTH_SIGMA, num_users)
    return np.clip(np.rint(lengths), 1, max(1, settings.num_items // 2)).astype(np.int64)


def _walk(
    settings: WorldSettings,
    world: World,
    rng: np.random.Generator,
    rows: tuple[LongArray, BoolArray, int],
) -> tuple[LongArray, BoolArray, BoolArray]:
    """Slots of every step, whether it is to the user's taste, and whether it was a fresh draw.

    Between two fresh draws the walk goes along a series, so step j after a draw is that slot plus j, around the
    cluster: the whole walk is one draw per step and one pass of arithmetic.
    """
    rows_E, first_E, num_users = rows
    restart_E = (rng.random(len(rows_E), np.float32) >= settings.sequels) | first_E
    starts = np.flatnonzero(restart_E)
    favourites_UK = _favourites(settings, world, rng, num_users)
    choice = np.searchsorted(np.cumsum(FAVOURITE_SHARES)[:-1], rng.random(len(starts)), side="right")
    cluster = favourites_UK[rows_E[starts], choice]
    explores = rng.random(len(starts), np.float32) < settings.exploration
    # A fresh draw each: a point of its cluster's weights (of all weights when it explores), and the slot at that point.
    first, last = world.first_slot_G1[cluster], world.first_slot_G1[cluster + 1]
    low = np.where(explores, 0.0, world.weight_before_I1[first])
    high = np.where(explores, world.weight_before_I1[-1], world.weight_before_I1[last])
    target = low + rng.random(len(starts)) * (high - low)
    slots = np.searchsorted(world.weight_before_I1, target, side="right") - 1
    slots = np.minimum(slots, np.where(explores, settings.num_items, last) - 1)  # a draw rounded up to its end

    # Every step's draw, how many steps it is behind it, and the cluster that the draw fell into.
    run_E = np.cumsum(restart_E) - 1
    step_E = np.arange(len(rows_E)) - starts[run_E]
    # Back from draws to steps: the slot of the draw, moved on by the steps since, around the cluster of that draw.
    own = world.cluster_of_slot_I[slots]
    base, size = world.first_slot_G1[own], world.first_slot_G1[own + 1] - world.first_slot_G1[own]
    slots_E = base[run_E] + (slots - base)[run_E] + step_E
    slots_E = base[run_E] + (slots_E - base[run_E]) % size[run_E]
    return slots_E, ~explores[run_E], restart_E


def _favourites(settings: WorldSettings, world: World, rng: np.random.Generator, num_users: int) -> LongArray:
    """(U, K) clusters: two themes of one favoured genre, one of a second, one of any; never an empty cluster."""
    themes = settings.num_themes
    genre_shares = rng.dirichlet(np.full(settings.num_genres, 4.0)) if settings.num_genres > 1 else np.ones(1)
    genre_shares = 0.5 * genre_shares + 0.5 / settings.num_genres
    main, second, third = (rng.choice(settings.num_genres, num_users, p=genre_shares) for _ in range(3))
    theme_UK = rng.integers(0, themes, (num_users, len(FAVOURITE_SHARES)))
    favourites_UK = np.stack([main, main, second, third], axis=1) * themes + theme_UK
    sizes_G = np.diff(world.first_slot_G1)
    filled = np.flatnonzero(sizes_G)
    nearest_G = filled[np.searchsorted(filled, np.arange(len(sizes_G))).clip(max=len(filled) - 1)]
    return np.asarray(nearest_G[favourites_UK], np.int64)


def _without_repeats(rows_E: LongArray, slots_E: LongArray, lengths_U: LongArray, num_items: int) -> LongArray:
    """Positions of each user's first ``lengths_U`` distinct items, in order."""
    # Equal pairs of user and slot follow each other, the earliest first: that one is kept, in the order of the walk.
    keys_E = rows_E * num_items + slots_E
    order = np.argsort(keys_E, kind="stable")
    fresh = np.ones(len(order), bool)
    fresh[1:] = keys_E[order[1:]] != keys_E[order[:-1]]
    kept = np.sort(order[fresh])
    counts_U = np.bincount(rows_E[kept], minlength=len(lengths_U))
    return kept[places_in_rows(counts_U) < lengths_U[rows_E[kept]]]


def _ratings(
    rng: np.random.Generator, quality_E: FloatArray, liked_E: Any, rows_E: LongArray, num_users: int
) -> FloatArray:
    """3.3 + user's mildness + item's quality + 0.6 when to their taste, with noise, in half points from 1 to 5."""
    mildness_U = rng.normal(0, 0.4, num_users).astype(np.float32)
    noise_E = rng.standard_normal(len(rows_E), np.float32) * np.float32(0.6)
    raw_E = 3.3 + mildness_U[rows_E] + quality_E + np.where(liked_E, np.float32(0.6), np.float32(-0.3)) + noise_E
    return np.asarray(np.clip(np.rint(raw_E * 2) / 2, 1, 5), np.float32)


def _timestamps(rng: np.random.Generator, restart_E: Any, rows_E: LongArray, num_users: int) -> LongArray:
    """Strictly growing within a user: minutes inside a series, days between fresh draws."""
    arrival_U = FIRST_MOMENT + rng.integers(0, YEARS_OF_ARRIVALS * YEAR, num_users)
    mean_E = np.where(restart_E, np.float32(MEAN_GAP_BETWEEN), np.float32(MEAN_GAP_WITHIN))
    gap_E = 1000 + (rng.standard_exponential(len(rows_E), np.float32) * mean_E).astype(np.int64)
    total_E1 = offsets(gap_E)  # time gone by before each event, through all users
    before_U = total_E1[offsets(np.bincount(rows_E, minlength=num_users))[:-1]]  # ... before the first of each user
    return np.asarray(arrival_U[rows_E] + total_E1[1:] - before_U[rows_E], np.int64)


def catalogue_of(settings: WorldSettings, with_posters: bool = False) -> dict[str, pa.Array]:
    """All items from number 1 on: titles, descriptions that name genre and theme, one or two genres, years, posters."""
    world = build(settings)
    rng = np.random.default_rng([settings.seed, 2])
    num_items = settings.num_items
    cluster_I = np.empty(num_items, np.int64)
    cluster_I[world.item_of_slot_I] = world.cluster_of_slot_I
    genre_I, theme_I = cluster_I // settings.num_themes, cluster_I % settings.num_themes
    other_I = rng.integers(0, settings.num_genres, num_items)
    has_two_I = (other_I != genre_I) & (rng.random(num_items) < 0.35)
    year_I = 2024 - np.minimum(rng.exponential(18, num_items), 94).astype(np.int32)
    genre_names, other_names = _words(GENRES, genre_I), _words(GENRES, other_I)
    numbers = pa.array(np.arange(1, num_items + 1))
    years = pa.array(year_I)
    name = pc.binary_join_element_wise(
        _random_words(ADJECTIVES, rng, num_items), _random_words(NOUNS, rng, num_items), numbers.cast(pa.string()), " "
    )
    title = pc.binary_join_element_wise(name, pc.binary_join_element_wise(years.cast(pa.string()), ")", ""), " (")
    subject = pc.if_else(
        pa.array(has_two_I), pc.binary_join_element_wise(genre_names, other_names, " and "), genre_names
    )
    text = pc.binary_join_element_wise(
        "A story of", pc.utf8_lower(subject), "about", _words(THEMES, theme_I), "with",
        _random_words(HEROES, rng, num_items), "in a", _random_words(PLACES, rng, num_items), " ",
    )  # fmt: skip
    pairs = np.stack([genre_I, other_I], axis=1)[np.stack([np.ones(num_items, bool), has_two_I], axis=1)]
    genres = list_array(offsets(1 + has_two_I), _words(GENRES, pairs))
    columns = {"item_id": numbers, "title": title, "text": text, "genres": genres, "year": years}
    if with_posters:
        second_I = np.where(has_two_I, other_I, genre_I)
        columns["poster"] = posters.data_uris(settings.seed, name.to_pylist(), year_I, genre_I, second_I, theme_I)
    return columns


def _words(words: tuple[str, ...], numbers: LongArray) -> pa.Array:
    return pa.array(words, pa.string()).take(pa.array(numbers))


def _random_words(words: tuple[str, ...], rng: np.random.Generator, count: int) -> pa.Array:
    return _words(words, rng.integers(0, len(words), count))
