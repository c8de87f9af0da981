"""The made-up world: deterministic, of the size asked for, and with the structure it promises."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError

from recsys_ray.base.types import Histories
from recsys_ray.data.sources import open_source
from recsys_ray.data.synthetic import drawing as posters
from recsys_ray.data.synthetic import source as synthetic_source
from recsys_ray.data.synthetic import world
from tests.data_worlds import settings_of

SETTINGS = world.WorldSettings(
    seed=3,
    num_users=2000,
    num_items=600,
    num_genres=6,
    num_themes=3,
    mean_length=25.0,
    popularity_exponent=0.8,
    exploration=0.1,
    sequels=0.3,
)


@pytest.fixture(scope="module")
def made() -> world.Interactions:
    return world.interactions_of(SETTINGS, 0, SETTINGS.num_users)


def test_everybody_has_a_history_without_repeats_in_strictly_growing_time(made: world.Interactions) -> None:
    assert np.array_equal(np.unique(made.users_E), np.arange(2000)) and (np.diff(made.users_E) >= 0).all()
    assert len(np.unique(made.users_E * 600 + made.items_E)) == len(made.users_E)
    same = np.diff(made.users_E) == 0
    assert (np.diff(made.timestamps_E)[same] > 0).all()
    assert 0.9 < len(made.users_E) / (2000 * 25) < 1.1
    assert made.items_E.min() >= 0 and made.items_E.max() < 600


def test_ratings_are_half_points(made: world.Interactions) -> None:
    assert set((made.ratings_E * 2).tolist()) == set(range(2, 11))


def test_popularity_is_heavy_tailed(made: world.Interactions) -> None:
    counts = np.sort(np.bincount(made.items_E, minlength=600))[::-1]
    assert counts[:60].sum() > 0.2 * counts.sum() and counts[0] > 5 * max(1, np.median(counts))


def test_the_next_item_is_often_the_successor(made: world.Interactions) -> None:
    built = world.build(SETTINGS)
    slot_of_item = np.empty(600, np.int64)
    slot_of_item[built.item_of_slot_I] = np.arange(600)
    slots, same_user = slot_of_item[made.items_E], np.diff(made.users_E) == 0
    cluster = built.cluster_of_slot_I[slots]
    first, size = built.first_slot_G1[cluster], np.diff(built.first_slot_G1)[cluster]
    follows = (slots[1:] == first[:-1] + (slots[:-1] - first[:-1] + 1) % size[:-1])[same_user]
    assert 0.2 < follows.mean() < 0.4


def test_neighbours_know_more_than_popularity(made: world.Interactions) -> None:
    """Recall@20 of the last item: item-item cosine against popularity, both without seen items."""
    lengths = np.bincount(made.users_E)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    last = offsets[1:] - 1
    train = np.ones(len(made.users_E), bool)
    train[last] = False
    histories = Histories(
        np.concatenate([[0], np.cumsum(lengths - 1)]),
        made.items_E[train].astype(np.int32),
        made.ratings_E[train],
        made.timestamps_E[train],
    )
    matrix = histories.matrix(600).toarray()
    norms = np.maximum(np.linalg.norm(matrix, axis=0), 1e-9)
    similarity = (matrix.T @ matrix) / np.outer(norms, norms)
    np.fill_diagonal(similarity, 0)

    def recall(scores: np.ndarray[Any, Any]) -> float:
        top = np.argsort(-np.where(matrix > 0, -np.inf, scores), axis=1, kind="stable")[:, :20]
        return float((top == made.items_E[last][:, None]).any(axis=1).mean())

    assert recall(matrix @ similarity) > 2 * recall(np.broadcast_to(matrix.sum(axis=0), matrix.shape))


def test_the_catalogue_tells_genre_and_theme() -> None:
    source = open_source(settings_of(source="synthetic", users=10, items=300, genres=5))
    items = source.items()
    assert items is not None and items.column("item_id").to_pylist() == list(range(1, 301))
    for item in items.to_pylist():
        assert 1 <= len(item["genres"]) <= 2 and set(item["genres"]) <= set(world.GENRES[:5])
        assert all(genre.lower() in item["text"] for genre in item["genres"])
        assert any(theme in item["text"] for theme in world.THEMES)
        assert item["title"].endswith(f"({item['year']})") and 1930 <= item["year"] <= 2024
    assert len(set(items.column("title").to_pylist())) == 300


def test_same_seed_same_world_and_blocks_stand_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_source, "BLOCK_ROWS", 3000)
    source = open_source(settings_of(source="synthetic", users=250), seed=5)
    chunks = source.chunks()
    assert [(chunk.start, chunk.stop) for chunk in chunks] == [(0, 100), (100, 200), (200, 250)]
    alone = source.read(chunks[1]).events
    world.build.cache_clear()
    again = open_source(settings_of(source="synthetic", users=250), seed=5)
    assert [again.read(chunk).events for chunk in chunks][1].equals(alone)
    assert not open_source(settings_of(source="synthetic", users=250), seed=6).read(chunks[1]).events.equals(alone)
    fixed = settings_of(source="synthetic", users=250, seed=5)
    assert open_source(fixed, seed=6).read(chunks[1]).events.equals(alone)


@pytest.mark.parametrize(
    "values",
    [
        {"users": 1, "items": 1, "interactions_per_user": 1.0},
        {"users": 3, "items": 2, "genres": 12},
        {"users": 50, "items": 30, "genres": 1, "themes": 1, "exploration": 1.0},
        {"users": 50, "items": 30, "sequels": 0.0, "popularity_exponent": 0.0, "ratings": False},
        {"users": 20, "items": 5000, "genres": 24, "themes": 16, "id_type": "string"},
    ],
)
def test_odd_worlds(values: dict[str, Any]) -> None:
    source = open_source(settings_of(source="synthetic", **values))
    table = source.read(source.chunks()[0]).events
    items = source.items()
    assert items is not None
    assert set(table.column("item_id").to_pylist()) <= set(items.column("item_id").to_pylist())
    assert len(set(table.column("user_id").to_pylist())) == values["users"]
    if values.get("ratings") is False:
        assert set(table.column("rating").to_pylist()) == {1.0}


def drawn(**values: Any) -> pa.Table:
    table = open_source(settings_of(source="synthetic", users=10, posters=True, **values)).items()
    assert table is not None
    return table


def image(uri: str) -> Image.Image:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


def layout(picture: Image.Image) -> np.ndarray[Any, Any]:
    """Mean colours of 4 x 6 fields above the title, as one vector."""
    above = np.asarray(picture.convert("RGB"), np.float64)[: posters.TITLE_TOP]
    fields = above.reshape(6, posters.TITLE_TOP // 6, 4, posters.WIDTH // 4, 3)
    return np.asarray(fields.mean(axis=(1, 3)).ravel())


@pytest.mark.slow
def test_posters_are_small_indexed_pictures_and_change_nothing_else() -> None:
    with_posters = drawn(items=400)
    for uri in with_posters.column("poster").to_pylist():
        picture = image(uri)
        assert (picture.format, picture.mode, picture.size) == ("PNG", "P", (posters.WIDTH, posters.HEIGHT))
        assert len(base64.b64decode(uri.partition(",")[2])) < 3000
    without = open_source(settings_of(source="synthetic", users=10, items=400)).items()
    assert without is not None and without.column("poster").null_count == 400
    assert without.drop_columns(["poster"]).equals(with_posters.drop_columns(["poster"]))


def test_posters_are_the_same_for_the_same_world_only() -> None:
    first = drawn(items=60, seed=1)
    posters._background.cache_clear()
    assert drawn(items=60, seed=1).equals(first)
    titles, years = ["Paper Crown"] * 2, np.array([1999, 1999], np.int32)
    zero = np.zeros(2, np.int64)
    one, other = posters.data_uris(7, titles, years, zero, zero, zero).to_pylist()
    assert one != other  # two items of one name, genre and theme
    assert posters.data_uris(7, titles[:1], years[:1], zero[:1], zero[:1], zero[:1]).to_pylist() == [one]
    assert posters.data_uris(8, titles[:1], years[:1], zero[:1], zero[:1], zero[:1]).to_pylist() != [one]


@pytest.mark.slow
def test_posters_of_one_genre_look_alike() -> None:
    """The nearest of all other posters by colour layout, among items of one genre: mostly of the same genre."""
    table = drawn(items=600, genres=24, themes=16).to_pylist()
    single = [(item["genres"][0], layout(image(item["poster"]))) for item in table if len(item["genres"]) == 1]
    genres, layouts = np.array([genre for genre, _ in single]), np.array([vector for _, vector in single])
    distances = np.linalg.norm(layouts[:, None] - layouts[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (genres[distances.argmin(axis=1)] == genres).mean() > 0.9
    same = (genres[:, None] == genres[None]) & np.isfinite(distances)
    assert distances[same].mean() < 0.5 * distances[genres[:, None] != genres[None]].mean()


def test_a_second_genre_shows_and_every_theme_has_a_figure_of_its_own() -> None:
    assert len(posters.GENRE_STYLES) == len(world.GENRES) and len(posters.FIGURES) == len(world.THEMES)
    variation_K = np.full(posters.VARIATIONS, 0.2, np.float32)

    def pixels(genre: int, second: int, theme: int) -> np.ndarray[Any, Any]:
        data = posters.draw_poster("", 2000, genre, second, theme, variation_K)
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float64)

    both, alone, other = (
        layout(Image.fromarray(pixels(*pair, 0).astype(np.uint8))) for pair in [(1, 11), (1, 1), (11, 11)]
    )
    assert 0 < np.linalg.norm(both - alone) < np.linalg.norm(both - other)
    # The figure is what differs between two themes of one genre; a different one covers different pixels.
    figures = [pixels(2, 2, theme) for theme in range(len(world.THEMES))]
    for number, figure in enumerate(figures):
        for earlier in figures[:number]:
            assert (np.abs(figure - earlier).max(axis=2) > 60).mean() > 0.02


@pytest.mark.parametrize(
    "title", ["", "A", "Supercalifragilisticexpialidocious", "word " * 40, "\n<script>", "日本 \u202e"]
)
def test_any_title_can_be_drawn(title: str) -> None:
    variation_K = np.full(posters.VARIATIONS, 0.999999, np.float32)
    data = posters.draw_poster(title, 1999, 0, 1, 2, variation_K)
    assert Image.open(io.BytesIO(data)).size == (posters.WIDTH, posters.HEIGHT)


def test_posters_are_part_of_the_fingerprint_and_bounded() -> None:
    plain, with_posters = (open_source(settings_of(source="synthetic", posters=drawn)) for drawn in (False, True))
    assert plain.fingerprint() == {"world": world.VERSION, "seed": 0} != with_posters.fingerprint()
    with pytest.raises(
        ValidationError, match=r"drawn for at most 200,000 items, found items=200001; set data\.posters=false"
    ):
        settings_of(source="synthetic", posters=True, items=200_001)
