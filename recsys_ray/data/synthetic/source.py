"""A made-up world as a source: users in blocks of fixed size, each block generated on its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from recsys_ray.data.config import DataSettings
from recsys_ray.data.prepare.files import Chunk
from recsys_ray.data.sources.base import Rows, catalogue, interactions
from recsys_ray.data.synthetic import drawing as posters
from recsys_ray.data.synthetic import world

BLOCK_ROWS = 1_000_000
"""Interactions a block of users holds on average. Part of the world: another number makes another world."""
MOST_POSTERS = 200_000
"""They travel inside the item table, 4 kB each."""


class SyntheticSettings(DataSettings):
    """Deterministic by seed, any size, with structure that collaborative, sequential and text models can find."""

    source: Literal["synthetic"]
    users: int = Field(default=5000, ge=1)
    """How many there are."""
    items: int = Field(default=2000, ge=1)
    """How many there are, each with a title and a text."""
    interactions_per_user: float = Field(default=30.0, ge=1)
    """Mean; how many a user has follows a heavy-tailed law around it."""
    genres: int = Field(default=12, ge=1, le=len(world.GENRES))
    """How many there are; an item has one or two."""
    themes: int = Field(default=4, ge=1, le=len(world.THEMES))
    """Clusters inside each genre; taste is for a theme, not only for a genre."""
    popularity_exponent: float = Field(default=0.8, ge=0)
    """Items are drawn by rank to the minus this power; 0 makes all equally popular."""
    exploration: float = Field(default=0.1, ge=0, le=1)
    """Share of interactions outside the user's tastes, drawn by popularity."""
    sequels: float = Field(default=0.3, ge=0, lt=1)
    """Chance that the next interaction is with the item that follows the last one in its series."""
    ratings: bool = True
    """Ratings from 1 to 5 in half steps; without, every interaction counts 1."""
    posters: bool = False
    """Draw a small poster for every item, which shows genre and theme; takes about a millisecond an item."""
    seed: int | None = Field(default=None, ge=0)
    """Seed of the world; by default that of the run."""

    @model_validator(mode="after")
    def _posters_fit_into_a_table(self) -> Self:
        if self.posters and self.items > MOST_POSTERS:
            raise ValueError(
                f"posters: drawn for at most {MOST_POSTERS:,} items, found items={self.items}; set data.posters=false"
            )
        return self

    def world_of(self, seed: int) -> world.WorldSettings:
        return world.WorldSettings(
            seed=seed if self.seed is None else self.seed,
            num_users=self.users,
            num_items=self.items,
            num_genres=self.genres,
            num_themes=self.themes,
            mean_length=self.interactions_per_user,
            popularity_exponent=self.popularity_exponent,
            exploration=self.exploration,
            sequels=self.sequels,
        )


@dataclass(frozen=True, slots=True)
class SyntheticSource:
    settings: SyntheticSettings
    seed: int = 0

    def chunks(self) -> list[Chunk]:
        block = max(1, int(BLOCK_ROWS / self.settings.interactions_per_user))
        total = self.settings.users
        return [Chunk("synthetic", start, min(start + block, total)) for start in range(0, total, block)]

    def read(self, chunk: Chunk) -> Rows:
        made = world.interactions_of(self.settings.world_of(self.seed), chunk.start, chunk.stop)
        users, items = pa.array(made.users_E + 1), pa.array(made.items_E + 1)
        if self.settings.id_type == "string":
            users, items = users.cast(pa.string()), items.cast(pa.string())
        ratings = pa.array(made.ratings_E) if self.settings.ratings else None
        return Rows(interactions(users, items, ratings, pa.array(made.timestamps_E)))

    def items(self) -> pa.Table | None:
        id_type = pa.string() if self.settings.id_type == "string" else pa.int64()
        columns = world.catalogue_of(self.settings.world_of(self.seed), self.settings.posters)
        return catalogue(columns.pop("item_id").cast(id_type), columns)

    def fingerprint(self) -> dict[str, Any]:
        drawn = {"posters": posters.VERSION} if self.settings.posters else {}
        return {"world": world.VERSION, "seed": self.settings.world_of(self.seed).seed} | drawn

    def estimated_rows(self) -> int:
        return round(self.settings.users * self.settings.interactions_per_user)
