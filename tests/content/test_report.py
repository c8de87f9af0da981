"""The report on item vectors: numbers against a world counted by hand, and a page that is whole, safe and still."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys_ray.base.errors import DataError
from recsys_ray.base.types import ItemContent
from recsys_ray.content.config import ReportSettings
from recsys_ray.content.report import neighbours
from recsys_ray.content.report.embeddings import Analysis, analyse, embedding_facts
from recsys_ray.content.report.item_labels import ItemLabels
from recsys_ray.content.report.neighbours import cosines, nearest, random_others
from recsys_ray.content.report.page import embedding_report
from recsys_ray.content.report.projection import project

QUICK = {"projection": "pca", "bootstrap": 100}
VOID = {"meta", "br", "img", "link", "input", "hr"}


def table(genres: list[list[str] | None], titles: list[str | None] | None = None) -> pa.Table:
    names = [f"title {row}" for row in range(len(genres))] if titles is None else titles
    return pa.table(
        {
            "item_id": pa.array(range(100, 100 + len(genres))),
            "title": pa.array(names, pa.string()),
            "genres": pa.array(genres, pa.list_(pa.string())),
        }
    )


def unit(vectors: Any) -> ItemContent:
    """Vectors as content: normalised, and absent where zero."""
    array = np.array(vectors, np.float32)
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    return ItemContent(
        np.where(lengths > 0, array / np.maximum(lengths, 1e-9), 0).astype(np.float32), lengths[:, 0] > 0
    )


def at_angles(*degrees: float | None) -> ItemContent:
    """Vectors in the plane; None has no vector."""
    turns = [None if angle is None else np.radians(angle) for angle in degrees]
    return unit([(0.0, 0.0) if turn is None else (np.cos(turn), np.sin(turn)) for turn in turns])


def analysed(items: pa.Table, content: ItemContent, counts: Any = None, **values: Any) -> Analysis:
    everyone = np.ones(items.num_rows, np.bool_)
    counts_I = np.zeros(items.num_rows, np.int64) if counts is None else np.array(counts)
    return analyse(items, content, everyone, everyone, counts_I, ReportSettings(**(QUICK | values)))


def reported(items: pa.Table, content: ItemContent, facts: dict[str, Any] | None = None, **values: Any) -> str:
    everyone = np.ones(items.num_rows, np.bool_)
    counts_I, settings = np.arange(items.num_rows), ReportSettings(**(QUICK | values))
    return embedding_report(items, content, everyone, everyone, counts_I, settings, facts or {})[1]


# The nearest two of each row: 0: 1 4 | 1: 0 4 (a tie, by row) | 2: 5 4 | 4: 1 0 | 5: 2 4 | 6: 5 2. Row 3 has no vector.
GENRES: list[list[str] | None] = [["X"], ["X"], ["Y", "Z"], ["X"], ["Y"], ["Z"], None]
CONTENT = at_angles(0, 10, 90, None, 20, 100, 185)


def test_genre_purity_is_the_share_of_neighbours_counted_by_hand() -> None:
    found = analysed(table(GENRES), CONTENT, neighbours=2)
    assert found.purity is not None and found.purity.queries == 5
    # 0: one of two, 1: one of two, 4: none, 2: both, 5: one of two; row 6 has no genre and is no query of purity
    assert found.purity.found.mean == pytest.approx((0.5 + 0.5 + 0 + 1 + 0.5) / 5)
    assert found.purity.found.low < 0.5 < found.purity.found.high
    by_genre = {name: (purity.queries, purity.found.mean) for name, purity in found.genre_purity.items()}
    assert by_genre == {"X": (2, 0.5), "Y": (2, 0.5), "Z": (2, 0.75)}


def test_cosines_of_neighbours_by_hand() -> None:
    found = analysed(table(GENRES), CONTENT, neighbours=2).distributions["nearest neighbours"]
    degrees = [10, 20, 10, 10, 10, 20, 10, 70, 10, 80, 85, 95]
    assert found.pairs == 12 and found.mean == pytest.approx(np.cos(np.radians(degrees)).mean(), abs=1e-6)
    assert found.median == pytest.approx(np.cos(np.radians(20)), abs=0.05)
    assert sum(found.shares) == pytest.approx(1)


def test_chance_is_that_of_other_items() -> None:
    """Of two items with different genres, a random other one never shares a genre; the item itself would."""
    two = analysed(table([["X"], ["Y"]]), at_angles(0, 90))
    assert two.num_neighbours == 1 and two.purity is not None and two.purity.chance.mean == 0
    rng = np.random.default_rng(0)
    genres: list[list[str] | None] = [["X"] if row < 300 else ["Y"] for row in range(400)]
    purity = analysed(table(genres), unit(rng.normal(size=(400, 8)))).purity
    expected = (300 * 299 + 100 * 99) / (400 * 399)
    assert purity is not None
    assert purity.chance.mean == pytest.approx(expected, abs=0.04) and purity.chance.low < expected < purity.chance.high
    assert purity.found.low < purity.chance.high  # vectors that know nothing are no better than chance


def test_vectors_that_know_genres_are_far_above_chance() -> None:
    rng = np.random.default_rng(1)
    genre_I = rng.integers(0, 4, 300)
    content = unit(np.eye(16)[genre_I] + 0.1 * rng.normal(size=(300, 16)))
    found = analysed(table([[f"genre {number}"] for number in genre_I]), content)
    assert found.purity is not None and found.purity.found.low > 0.99 and found.purity.chance.high < 0.35
    kinds = found.distributions
    assert kinds["random pairs that share a genre"].p05 > kinds["random pairs"].median + 0.3


def test_nearest_is_exact_in_blocks_and_ties_go_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    vectors_PD = unit(rng.normal(size=(90, 5))).vectors_ID
    vectors_PD[40:] = vectors_PD[rng.integers(0, 40, 50)]  # many equal vectors
    queries_Q = np.array([0, 89, 3, 50, 51, 7, 8])
    expected = [
        sorted(set(range(90)) - {query}, key=lambda row: (-float(vectors_PD[query] @ vectors_PD[row]), row))[:89]
        for query in queries_Q
    ]
    whole_rows, whole_cosines = nearest(vectors_PD, queries_Q, 89)
    monkeypatch.setattr(neighbours, "BLOCK_NUMBERS", 200)
    rows_QK, cosines_QK = nearest(vectors_PD, queries_Q, 89)
    assert np.array_equal(rows_QK, whole_rows) and np.allclose(cosines_QK, whole_cosines, atol=1e-6)
    assert np.allclose(
        cosines_QK,
        [[vectors_PD[q] @ vectors_PD[row] for row in rows] for q, rows in zip(queries_Q, expected, strict=True)],
        atol=1e-6,
    )
    assert np.allclose(cosines(vectors_PD, queries_Q, rows_QK), cosines_QK, atol=1e-6)
    assert all(query not in rows for query, rows in zip(queries_Q, rows_QK, strict=True))
    square = np.array([[1, 0], [0, 1], [0, 1], [0, -1], [0, 1]], np.float32)
    assert nearest(square, np.array([0]), 4)[0].tolist() == [[1, 2, 3, 4]]


def test_random_others_are_everybody_else_evenly() -> None:
    queries_Q = np.array([0, 3, 4])
    others = random_others(np.random.default_rng(0), queries_Q, 5, 4000)
    for query, row in zip(queries_Q, others, strict=True):
        counts = np.bincount(row, minlength=5)
        assert counts[query] == 0 and (np.abs(np.delete(counts, query) - 1000) < 150).all()


def test_well_known_titles_are_those_with_most_interactions() -> None:
    found = analysed(table(GENRES), CONTENT, counts=[1, 5, 0, 99, 7, 5, 0], neighbours=2, titles=3)
    assert [(known.item.item_id, known.interactions) for known in found.known_titles] == [(104, 7), (101, 5), (105, 5)]
    first, second = found.known_titles[2].neighbours
    assert (first.item.item_id, first.item.genres, first.shares_genre) == (102, ["Y", "Z"], True)
    assert (second.item.item_id, second.shares_genre) == (104, False)
    assert first.cosine == pytest.approx(np.cos(np.radians(10)), abs=1e-6)
    assert analysed(table(GENRES), CONTENT, titles=0).known_titles == []


@pytest.mark.slow
def test_what_is_missing_is_counted_and_named() -> None:
    genres: list[list[str] | None] = [[] for _ in range(30)]
    has_text, has_image = np.ones(30, np.bool_), np.zeros(30, np.bool_)
    has_text[[4, 9]], has_image[9] = False, True
    content = unit(np.eye(30))
    items = table(genres, [None, *(f"t{row}" for row in range(1, 30))])
    found = analyse(items, content, has_text, has_image, np.zeros(30), ReportSettings(**QUICK))
    assert (found.without_text.count, found.without_image.count, found.without_both.count) == (2, 29, 1)
    assert [(item.item_id, item.title) for item in found.without_text.first] == [(104, "t4"), (109, "t9")]
    assert [item.item_id for item in found.without_image.first] == [*range(100, 109), *range(110, 121)]
    assert found.without_image.first[0].title == "100"  # no title: the id stands for it
    assert [item.title for item in found.without_both.first] == ["t4"]
    assert found.purity is None and found.genre_purity == {}
    facts, page = embedding_report(items, content, has_text, has_image, np.zeros(30), ReportSettings(**QUICK), {})
    assert facts["without_image"] == 29 and "genre_purity" not in facts
    assert "No item has a genre." in page and "The first 20 of 29, by id." in page


def test_near_duplicates_are_found_once() -> None:
    found = analysed(table([["X"]] * 5), at_angles(30, 0, 30, 90, 30))
    assert found.near_duplicates == 3
    pairs = [(pair.one.item_id, pair.other.item_id) for pair in found.duplicate_pairs]
    assert pairs == [(100, 102), (100, 104), (102, 104)]
    assert analysed(table([["X"]] * 3), at_angles(0, 3, 90)).near_duplicates == 0  # cos 3 degrees is 0.9986
    assert analysed(table([["X"]] * 3), at_angles(0, 2, 90)).near_duplicates == 2  # cos 2 degrees is 0.9994
    many = analysed(table([["X"]] * 40), at_angles(*[5.0] * 40))
    assert (many.near_duplicates, len(many.duplicate_pairs)) == (40, 20)
    twice = unit(np.repeat(np.random.default_rng(7).normal(size=(50, 64)), 2, axis=0))
    rounded = analysed(table([["X"]] * 100), twice, neighbours=1).distributions["nearest neighbours"]
    assert rounded.p95 > 1 and sum(rounded.shares) == pytest.approx(1)  # rounding takes a cosine above 1


def test_a_large_catalogue_is_measured_on_a_sample() -> None:
    rng = np.random.default_rng(3)
    items, content = table([["X"]] * 60), unit(rng.normal(size=(60, 4)))
    found = analysed(items, content, max_queries=7)
    assert (found.num_queries, found.num_with_vector) == (7, 60)
    assert found.distributions["nearest neighbours"].pairs == 70
    page = reported(items, content, max_queries=7, projected=11)
    assert "were measured on 7 drawn at random" in page and "11 items drawn at random, by first genre" in page


@pytest.mark.parametrize("content", [at_angles(None, None, None), at_angles(None, 5, None)])
def test_too_few_vectors_are_refused(content: ItemContent) -> None:
    with pytest.raises(DataError, match=r"^[01] of 3 items have a vector, and a report needs two; set content\.text"):
        analysed(table([["X"]] * 3), content)


def test_genres_are_kept_in_order_and_ranked_by_frequency() -> None:
    labels = ItemLabels.of(table([["b", "a"], None, ["a"], [], ["a", "c", "b", "a"]]))
    assert labels.genre_names == ["a", "b", "c"] and labels.first_I.tolist() == [1, -1, 0, -1, 0]
    assert [labels.genres_of(row) for row in range(3)] == [["b", "a"], [], ["a"]]
    shares = labels.share_a_genre(np.array([0, 1]), np.array([[2, 3, 4], [0, 1, 2]]))
    assert shares.tolist() == [[True, False, True], [False, False, False]]


@pytest.mark.slow
def test_projections() -> None:
    rng = np.random.default_rng(4)
    plane = rng.normal(size=(20, 2)) * [3, 1]
    turned = plane @ np.linalg.qr(rng.normal(size=(5, 2)))[0].T
    found = project(turned.astype(np.float32), "pca", 0)
    distances = [np.linalg.norm(points[:, None] - points[None], axis=2) for points in (plane, found.points_R2)]
    assert np.allclose(*distances, atol=1e-4) and found.method.endswith("hold 100% of the variance")
    side = np.repeat([0, 1], 30)
    two = (np.eye(8)[side] + 0.05 * rng.normal(size=(60, 8))).astype(np.float32)
    tsne = project(two, "tsne", 0)
    apart = np.linalg.norm(tsne.points_R2[:, None] - tsne.points_R2[None], axis=2) + np.diag(np.full(60, np.inf))
    assert (side[apart.argmin(axis=1)] == side).all() and tsne.method.startswith("t-SNE, perplexity 19.7")
    assert np.array_equal(project(two, "tsne", 0).points_R2, tsne.points_R2)
    assert project(two[:4, :1], "tsne", 0).points_R2.shape == (4, 2)  # too few for t-SNE, one dimension
    assert np.isfinite(project(np.ones((12, 3), np.float32), "tsne", 0).points_R2).all()  # no variance at all


def test_facts_are_json_ready() -> None:
    facts = embedding_facts(analysed(table(GENRES), CONTENT, neighbours=2))
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["items"], facts["with_vector"], facts["dim"], facts["genre_purity"]["mean"]) == (7, 6, 2, 0.5)
    assert facts["genre_purity_by_genre"]["Z"]["mean"] == 0.75


class Page(HTMLParser):
    """Elements, ids and addresses of a page; every element must be closed where it was opened."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            elif name in ("src", "href", "xlink:href", "srcset", "action", "data") or "url(" in str(value):
                self.addresses.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


NASTY = '<script>alert("1")</script> & $\\frac{1'


def test_names_from_the_data_are_text_wherever_they_stand() -> None:
    titles: list[str | None] = [NASTY, NASTY, "<b>bold</b>", "日本語", "_x", None]
    genres: list[list[str] | None] = [[NASTY], [NASTY, "_hidden"], ["<i>"], [""], None, ["$"]]
    page = reported(table(genres, titles), at_angles(0, 0, 50, 90, 120, 200), {"<u>name": {"a<p>": [1, [NASTY]]}})
    parsed = Page(page)
    assert not {"script", "b>bold", "i>"} & set(parsed.elements) and "<script" not in page
    assert sum(NASTY in words for words in parsed.words) > 10  # titles, genres, legend, facts
    assert "日本語" in page and "&lt;u&gt;name" in page


@pytest.mark.slow
def test_the_page_is_one_file_without_script_or_network() -> None:
    rng = np.random.default_rng(5)
    genres: list[list[str] | None] = [[f"genre {number}"] for number in rng.integers(0, 12, 80)]
    page = reported(table(genres), unit(rng.normal(size=(80, 6))), {"seconds": 1.23456, "skipped": False, "n": 12345})
    parsed = Page(page)
    assert page.lstrip().startswith("<!doctype html>")
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(parsed.elements)
    assert parsed.addresses and all(address.split("url(")[-1].startswith("#") for address in parsed.addresses)
    assert "@import" not in page and page.count("<style") == page.count("</style")
    assert len(parsed.ids) == len(set(parsed.ids))
    assert parsed.elements.count("use") > 80  # a point for every item, and ticks
    for wanted in ("1.235", "12,345", "other genres, or none", "random pairs that share a genre"):
        assert wanted in page


def test_items_without_a_vector_are_not_on_the_map() -> None:
    def drawn(items: pa.Table, content: ItemContent) -> str:
        return reported(items, content).partition("<figure>")[2].partition("</figure>")[0]

    vectors = np.random.default_rng(8).normal(size=(30, 3))
    genres: list[list[str] | None] = [["X"], ["X"], ["Y"], None, ["X"]] * 6
    kept = np.arange(30) % 4 > 0
    whole, without = unit(vectors), unit(vectors * kept[:, None])
    less = table([genre for genre, keep in zip(genres, kept, strict=True) if keep])
    assert drawn(table(genres), without) == drawn(less, unit(vectors[kept])) != drawn(table(genres), whole)


@pytest.mark.slow
def test_the_same_vectors_and_seed_give_the_same_page() -> None:
    rng = np.random.default_rng(6)
    items, content = table([["X"], ["Y"]] * 30), unit(rng.normal(size=(60, 6)))
    first = reported(items, content, projection="tsne")
    assert reported(items, content, projection="tsne") == first
    assert reported(items, content, projection="tsne", seed=1) != first
