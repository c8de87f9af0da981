"""Evaluation: worked by hand, against a slow independent oracle, and statistically."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from recsys_ray.base import schema
from recsys_ray.base.errors import DataError
from recsys_ray.base.types import ItemLists
from recsys_ray.evaluation import EvaluationSettings, ItemCounts, Partial, Report, evaluate_part, rating_errors
from recsys_ray.evaluation.metrics import gini, head_items

Lists = Sequence[Sequence[Any]]
STRING = pa.string()


def table_of(users: Sequence[Any], lists: Lists, item_type: pa.DataType = STRING, nested: bool = False) -> pa.Table:
    """A recommendations table; users with an empty list have no row."""
    rows = [(user, items) for user, items in zip(users, lists, strict=True) if items]
    user_type = pa.array(list(users)).type
    if nested:
        columns = [
            [user for user, _ in rows],
            [list(items) for _, items in rows],
            [[0.0] * len(items) for _, items in rows],
            [["model"] * len(items) for _, items in rows],
        ]
        shape = schema.nested_recommendations(user_type, item_type)
    else:
        flat = [(user, rank, item) for user, items in rows for rank, item in enumerate(items, 1)]
        columns = [list(column) for column in zip(*flat, strict=True)] if flat else [[], [], []]
        columns += [[0.0] * len(flat), ["model"] * len(flat)]
        shape = schema.recommendations(user_type, item_type)
    return pa.table([pa.array(c, field.type) for c, field in zip(columns, shape, strict=True)], schema=shape)


# Six items; a, b, c hold 6 of the 8 interactions (the head at a share of 0.7), d, e, f are the tail.
CATALOGUE = ItemCounts(pa.array(list("abcdef")), np.array([3, 2, 1, 1, 1, 0]))
SETTINGS = EvaluationSettings(k=[2, 3], head_share=0.7, history_edges=[1, 5], bootstrap=50)
USERS = pa.array(["one", "two", "three"])
SHOWN = [list("adb"), list("ca"), list("abc")]
TARGETS = ItemLists.from_lists([[3, 1], [2, 4, 5], []])  # one: d b   two: c e f   three: nothing
HISTORY = np.array([1, 0, 5])  # on the edges of their segments
L = math.log2(3)


@pytest.fixture(scope="module")
def report() -> Report:
    part = evaluate_part(table_of(USERS.to_pylist(), SHOWN), USERS, TARGETS, HISTORY, CATALOGUE, SETTINGS, shard=0)
    return part.finish(SETTINGS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # User one hits at ranks 2 and 3 and has 2 targets, user two hits at rank 1 of a list of two and has 3 targets;
        # user three has no target and does not count.
        ("recall@2", (1 / 2 + 1 / 3) / 2),
        ("recall@3", (2 / 2 + 1 / 3) / 2),
        ("precision@2", (1 / 2 + 1 / 2) / 2),
        ("precision@3", (2 / 3 + 1 / 3) / 2),
        ("hit_rate@2", 1.0),
        ("hit_rate@3", 1.0),
        # Gains by rank: 1, 1/log2(3), 1/2. Ideal: two hits for user one; two at k=2 and three at k=3 for user two.
        ("ndcg@2", ((1 / L) / (1 + 1 / L) + 1 / (1 + 1 / L)) / 2),
        ("ndcg@3", ((1 / L + 1 / 2) / (1 + 1 / L) + 1 / (1 + 1 / L + 1 / 2)) / 2),
        # Precision at the hits: user one 1/2 at rank 2 and 2/3 at rank 3, user two 1 at rank 1.
        ("map@2", ((1 / 2) / 2 + 1 / 2) / 2),
        ("map@3", ((1 / 2 + 2 / 3) / 2 + 1 / 3) / 2),
        ("mrr@2", (1 / 2 + 1) / 2),
        ("mrr@3", (1 / 2 + 1) / 2),
        # Lists of all three users. Counts shown at k=2: 3 1 | 1 3 | 3 2; at k=3: 3 1 2 | 1 3 | 3 2 1.
        ("popularity@2", (2 + 2 + 2.5) / 3),
        ("popularity@3", 2.0),
        ("tail_share@2", (1 / 2) / 3),
        ("tail_share@3", (1 / 3) / 3),
        # -log2(count / 3): a 0, b L - 1, c and d L.
        ("novelty@2", ((0 + L) / 2 + (L + 0) / 2 + (0 + L - 1) / 2) / 3),
        ("novelty@3", ((0 + L + L - 1) / 3 + (L + 0) / 2 + (0 + L - 1 + L) / 3) / 3),
        # Users that see a b c d e f: 3 1 1 1 0 0 at k=2, 3 2 2 1 0 0 at k=3.
        ("coverage@2", 4 / 6),
        ("coverage@3", 4 / 6),
        ("gini@2", (-1 * 1 + 1 * 1 + 3 * 1 + 5 * 3) / (6 * 6)),
        ("gini@3", (-1 * 1 + 1 * 2 + 3 * 2 + 5 * 3) / (6 * 8)),
    ],
)
def test_three_users_by_hand(report: Report, name: str, expected: float) -> None:
    assert report.metrics[name] == pytest.approx(expected, abs=1e-12)


def test_segments_by_hand(report: Report) -> None:
    # User three, the only one with a long history, has no target: that segment is left out.
    assert set(report.segments) == {"history 0", "history 1-4", "head items", "tail items"}
    assert report.segments["history 0"].metrics["recall@3"] == pytest.approx(1 / 3)
    assert report.segments["history 1-4"].metrics["ndcg@2"] == pytest.approx((1 / L) / (1 + 1 / L))
    assert {name: segment.users for name, segment in report.segments.items() if "history" in name} == {
        "history 0": 1,
        "history 1-4": 1,
    }
    # Head targets: b of one (rank 3), c of two (rank 1). Tail targets: d of one (rank 2), e and f of two (never).
    head, tail = report.segments["head items"].metrics, report.segments["tail items"].metrics
    assert (head["recall@2"], head["recall@3"]) == (0.5, 1.0)
    assert (tail["recall@2"], tail["recall@3"]) == (0.5, 0.5)


def test_counts(report: Report) -> None:
    expected = {
        "users": 3,
        "users_with_targets": 2,
        "users_without_targets": 1,
        "users_without_list": 0,
        "targets_seen": 0,
    }
    assert report.counts == expected


def test_a_perfect_list_and_an_empty_one() -> None:
    users, targets = pa.array([7, 8]), ItemLists.from_lists([[0, 4], [5, 1]])
    perfect = evaluate_part(
        table_of([7, 8], [list("ea"), list("bf")]), users, targets, np.array([1, 1]), CATALOGUE, SETTINGS, 0
    ).finish(SETTINGS)
    for metric in ("recall", "precision", "ndcg", "hit_rate", "map", "mrr"):
        assert perfect.metrics[f"{metric}@2"] == 1.0
    empty = evaluate_part(table_of([7, 8], [[], []]), users, targets, np.array([1, 1]), CATALOGUE, SETTINGS, 0)
    found = empty.finish(SETTINGS)
    for metric in ("recall", "precision", "ndcg", "hit_rate", "map", "mrr", "coverage"):
        assert found.metrics[f"{metric}@3"] == 0.0
    assert "gini@3" not in found.metrics and "popularity@3" not in found.metrics
    assert found.counts["users_without_list"] == 2


def test_recall_counts_a_repeated_target_once() -> None:
    part = evaluate_part(
        table_of(["u"], [["a"]]),
        pa.array(["u"]),
        ItemLists.from_lists([[0, 0, 1]]),
        np.array([1]),
        CATALOGUE,
        SETTINGS,
        0,
    )
    assert part.finish(SETTINGS).metrics["recall@2"] == 0.5


# A random world, and an evaluator written with lists and sets only.

WORLD = EvaluationSettings(k=[1, 4, 10], head_share=0.6, history_edges=[1, 3, 9], bootstrap=20)


class World:
    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.num_users, self.num_items = int(rng.integers(3, 40)), int(rng.integers(12, 60))
        self.item_ids = rng.permutation(10 * self.num_items)[: self.num_items].tolist()
        self.user_ids = [f"u{number}" for number in rng.permutation(1000)[: self.num_users]]
        self.counts = rng.integers(0, 9, self.num_items).tolist()
        self.history = rng.integers(0, 15, self.num_users).tolist()
        sizes = rng.integers(0, 13, (self.num_users, 2))
        sizes[0] = 5, 5
        self.lists = [rng.permutation(self.item_ids)[:size].tolist() for size, _ in sizes]
        self.targets = [rng.permutation(self.num_items)[:size].tolist() for _, size in sizes]
        self.rng = rng

    def part(self, rows: Sequence[int], shard: int, nested: bool = False) -> Partial:
        users = [self.user_ids[row] for row in rows]
        table = table_of(users, [self.lists[row] for row in rows], pa.int64(), nested)
        return evaluate_part(
            table.take(self.rng.permutation(table.num_rows)),
            pa.array(users),
            ItemLists.from_lists([self.targets[row] for row in rows]),
            np.array([self.history[row] for row in rows]),
            ItemCounts(pa.array(self.item_ids), np.array(self.counts)),
            WORLD,
            shard,
        )

    def oracle(self) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        exposure = {k: {item: 0 for item in self.item_ids} for k in WORLD.k}
        count = dict(zip(self.item_ids, self.counts, strict=True))
        for user, shown in enumerate(self.lists):
            relevant = {self.item_ids[row] for row in self.targets[user]}
            for k in WORLD.k:
                top = shown[:k]
                for item in top:
                    exposure[k][item] += 1
                if top:
                    found.setdefault(f"popularity@{k}", []).append(sum(count[item] for item in top) / len(top))
                    surprise = [math.log2(self.num_users / max(1, count[item])) for item in top]
                    found.setdefault(f"novelty@{k}", []).append(sum(surprise) / len(top))
                if relevant:
                    for name, value in self._ranking(top, relevant, k).items():
                        found.setdefault(f"{name}@{k}", []).append(value)
                    found.setdefault(f"serendipity@{k}", []).append(self._serendipity(top, relevant) / k)
        metrics = {name: sum(values) / len(values) for name, values in found.items()}
        for k, seen in exposure.items():
            metrics[f"coverage@{k}"] = sum(1 for times in seen.values() if times) / self.num_items
            differences = sum(abs(x - y) for x in seen.values() for y in seen.values())
            metrics[f"gini@{k}"] = differences / (2 * self.num_items * sum(seen.values()))
        return metrics

    def _serendipity(self, top: list[int], relevant: set[int]) -> float:
        order = sorted(range(self.num_items), key=lambda row: (-self.counts[row], row))
        place = {self.item_ids[row]: rank for rank, row in enumerate(order, 1)}
        chances = [(self.num_items + 1 - rank, self.num_items + 1 - place[item]) for rank, item in enumerate(top, 1)]
        hits = [item in relevant for item in top]
        return sum(
            max(0, mine - usual) / self.num_items * hit for (mine, usual), hit in zip(chances, hits, strict=True)
        )

    @staticmethod
    def _ranking(top: list[int], relevant: set[int], k: int) -> dict[str, float]:
        ranks = [rank for rank, item in enumerate(top, 1) if item in relevant]
        best = range(1, min(k, len(relevant)) + 1)
        return {
            "recall": len(ranks) / len(relevant),
            "precision": len(ranks) / k,
            "f1": 2 / (len(relevant) / len(ranks) + k / len(ranks)) if ranks else 0.0,
            "hit_rate": 1.0 if ranks else 0.0,
            "ndcg": sum(1 / math.log2(r + 1) for r in ranks) / sum(1 / math.log2(r + 1) for r in best),
            "map": sum((hits + 1) / rank for hits, rank in enumerate(ranks)) / len(best),
            "mrr": 1 / ranks[0] if ranks else 0.0,
        }


@pytest.mark.parametrize("seed", range(12))
def test_equals_a_slow_evaluator_on_random_worlds(seed: int) -> None:
    world = World(seed)
    found = world.part(range(world.num_users), 0, nested=bool(seed % 2)).finish(WORLD).metrics
    expected = world.oracle()
    assert {name for name in found if not name.startswith("tail_share")} == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("seed", range(4))
def test_merged_parts_equal_the_whole_in_any_order_and_grouping(seed: int) -> None:
    world = World(seed)
    whole = world.part(range(world.num_users), 0).finish(WORLD)
    cuts = [0, 1, world.num_users // 2, world.num_users]
    one, two, three = (world.part(range(low, high), n) for n, (low, high) in enumerate(pairwise(cuts)))
    reports = [
        one.merge(two).merge(three).finish(WORLD),
        three.merge(one.merge(two)).finish(WORLD),
        Partial().merge(two).merge(three.merge(one)).merge(Partial()).finish(WORLD),
    ]
    for report in reports:
        assert report.counts == whole.counts
        assert report.metrics == pytest.approx(whole.metrics, abs=1e-12)
        for name, segment in whole.segments.items():
            assert report.segments[name].users == segment.users
            assert report.segments[name].metrics == pytest.approx(segment.metrics, abs=1e-12)
        for name, interval in reports[0].intervals.items():
            assert report.intervals[name] == pytest.approx(interval, abs=1e-12)


def test_long_and_nested_tables_say_the_same() -> None:
    world = World(3)
    rows = range(world.num_users)
    long, nested = world.part(rows, 5).finish(WORLD), world.part(rows, 5, nested=True).finish(WORLD)
    assert long.to_json() == nested.to_json()


# Confidence intervals. Every user is shown one item; it is the target with a known probability.


def coin_part(hits: np.ndarray, settings: EvaluationSettings, shard: int) -> Partial:
    users = pa.array(np.arange(len(hits)))
    return evaluate_part(
        table_of(users.to_pylist(), [["a"]] * len(hits)),
        users,
        ItemLists.from_lists([[0] if hit else [1] for hit in hits]),
        np.ones(len(hits), np.int64),
        CATALOGUE,
        settings,
        shard,
    )


def test_a_95_percent_interval_covers_the_truth_in_about_95_percent_of_samples() -> None:
    settings = EvaluationSettings(k=[1], bootstrap=200)
    rng = np.random.default_rng(0)
    covered = 0
    for sample in range(200):
        hits = rng.random(150) < 0.3
        low, high = coin_part(hits, settings, sample).finish(settings).intervals["recall@1"]
        covered += low <= 0.3 <= high
    assert 180 <= covered <= 198  # 190 expected, standard deviation 3


def test_the_interval_has_the_width_of_the_theory_and_shrinks_with_users() -> None:
    settings = EvaluationSettings(k=[1], bootstrap=1000)
    widths = {}
    for users in (400, 1600, 6400):
        hits = np.arange(users) % 5 == 0
        low, high = coin_part(hits, settings, 0).finish(settings).intervals["recall@1"]
        widths[users] = high - low
        deviation = math.sqrt(0.2 * 0.8 / users)
        assert (0.2 - low, high - 0.2) == pytest.approx((1.96 * deviation, 1.96 * deviation), rel=0.12)
    assert widths[6400] < widths[1600] < widths[400]


def test_shards_draw_different_weights_and_a_seed_draws_the_same() -> None:
    settings = EvaluationSettings(k=[1], bootstrap=30)
    hits = np.arange(50) % 3 == 0

    def replicates(shard: int, seed: int) -> list[float]:
        seeded = settings.model_copy(update={"seed": seed})
        return coin_part(hits, seeded, shard).finish(seeded).replicates["recall@1"].tolist()

    assert replicates(4, 1) == replicates(4, 1)
    assert replicates(4, 1) != replicates(5, 1)
    assert replicates(4, 1) != replicates(4, 2)


def test_no_bootstrap_no_intervals() -> None:
    settings = EvaluationSettings(k=[1], bootstrap=0)
    report = coin_part(np.array([True, False]), settings, 0).finish(settings)
    assert report.metrics["recall@1"] == 0.5 and report.intervals == {}
    assert "[" not in report.table()


def test_a_paired_difference_sees_what_two_intervals_hide() -> None:
    settings = EvaluationSettings(k=[1], bootstrap=400)
    better = np.arange(500) % 2 == 0
    worse = better & (np.arange(500) >= 20)  # ten users fewer are served well
    one, two = (coin_part(hits, settings, 0).finish(settings) for hits in (better, worse))
    assert one.intervals["recall@1"][0] < two.intervals["recall@1"][1]  # the intervals overlap
    difference, low, high = one.compare(two)["recall@1"]
    assert difference == pytest.approx(10 / 500)
    assert 0 < low < 10 / 500 < high
    assert one.compare(one)["recall@1"] == (0.0, 0.0, 0.0)


def test_comparing_different_users_or_seeds_is_refused() -> None:
    settings = EvaluationSettings(k=[1], bootstrap=20)
    other = settings.model_copy(update={"seed": 9})
    report = coin_part(np.array([True, False]), settings, 0).finish(settings)
    for against in (
        coin_part(np.array([True]), settings, 0).finish(settings),
        coin_part(np.array([True, False]), other, 0).finish(other),
    ):
        with pytest.raises(DataError, match="can't compare"):
            report.compare(against)


# Single metrics, ratings, output.


def test_gini_of_known_distributions() -> None:
    assert gini(np.array([5, 5, 5, 5])) == 0.0
    assert gini(np.array([0, 0, 0, 9])) == pytest.approx(3 / 4)
    assert gini(np.array([0, 1])) == pytest.approx(1 / 2)
    assert math.isnan(gini(np.zeros(3, np.int64)))


def test_the_head_is_the_fewest_items_that_hold_the_share() -> None:
    counts = np.array([1, 4, 0, 3, 2])  # 4 + 3 = 7 of 10, 4 + 3 + 2 = 9 of 10
    assert np.flatnonzero(head_items(counts, 0.7)).tolist() == [1, 3]
    assert np.flatnonzero(head_items(counts, 0.71)).tolist() == [1, 3, 4]
    assert np.flatnonzero(head_items(np.arange(100) % 2, 0.5)).tolist() == list(range(1, 50, 2))
    assert not head_items(np.zeros(3, np.int64), 0.8).any()


def test_rating_errors_by_hand_and_merged() -> None:
    # Errors 1, -1, 2 and 0: squares 1 + 1 + 4 + 0, absolute 1 + 1 + 2 + 0.
    one = rating_errors(np.array([4.0, 2.0, 5.0]), np.array([3.0, 3.0, 3.0]))
    two = rating_errors(np.array([3.0]), np.array([3.0]), 5)
    report = two.merge(one).finish(SETTINGS)
    assert report.metrics == {"rmse": pytest.approx(math.sqrt(6 / 4)), "mae": pytest.approx(4 / 4)}
    assert report.counts == {"ratings": 4, "ratings_unpredicted": 5}
    assert "4 held-out ratings are predicted, 5 are not" in report.table()
    assert "rmse" in report.table() and "recall" not in report.table()


def test_ratings_and_lists_merge_into_one_report(report: Report) -> None:
    part = evaluate_part(table_of(USERS.to_pylist(), SHOWN), USERS, TARGETS, HISTORY, CATALOGUE, SETTINGS, shard=0)
    both = part.merge(rating_errors(np.array([4.0]), np.array([3.0]))).finish(SETTINGS)
    assert both.metrics == report.metrics | {"rmse": 1.0, "mae": 1.0}
    assert both.intervals == report.intervals


def test_json_has_plain_finite_numbers_and_the_table_all_metrics(report: Report) -> None:
    text = json.dumps(report.to_json(), allow_nan=False)
    loaded = json.loads(text)
    assert loaded["metrics"]["recall@3"] == report.metrics["recall@3"]
    assert loaded["intervals"]["recall@3"] == list(report.intervals["recall@3"])
    assert loaded["segments"]["history 0"]["users"] == 1
    table = report.table()
    for name in {name.partition("@")[0] for name in report.metrics}:
        assert f"  {name} " in table
    low, high = report.intervals["recall@3"]
    assert f"{report.metrics['recall@3']:.4f} [{low:.4f}, {high:.4f}]" in table
    assert all(len(line) <= 120 for line in table.splitlines())


# What must not pass.


def evaluate(table: pa.Table, users: Sequence[Any] = ("u", "v"), targets: Lists = ([0], [1])) -> Partial:
    lengths = np.ones(len(users), np.int64)
    return evaluate_part(table, pa.array(list(users)), ItemLists.from_lists(targets), lengths, CATALOGUE, SETTINGS, 0)


def with_ranks(ranks: Sequence[int | None]) -> pa.Table:
    table = table_of(["u", "v"], [list("ab"), ["c"]])
    return table.set_column(1, "rank", pa.array(ranks, pa.int32()))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (table_of(["u", "stranger"], [["a"], ["b"]]), "'stranger' is not in the shard"),
        (table_of(["u", "v"], [["a"], ["zebra"]]), "'zebra' is not in the catalogue"),
        (table_of(["u", "v"], [["a"], [None]]), "None is not in the catalogue"),
        (table_of(["u", "v"], [list("aba"), ["b"]]), "'u': an item occurs twice"),
        (table_of(["u", "v"], [["a"], list("bcc")], nested=True), "'v': an item occurs twice"),
        (table_of(["u", "v", "v"], [["a"], ["b"], ["c"]], nested=True), "'v': two rows"),
        (table_of(["u", "v", "v"], [["a"], ["b"], ["c"]]), "'v': a rank occurs twice"),
        (with_ranks([2, 2, 1]), "'u': a rank occurs twice"),
        (with_ranks([0, 1, 1]), "rank 0"),
        (with_ranks([None, 1, 1]), "rank 0"),
        (table_of([1, 2], [["a"], ["b"]]), "must be string"),
        (pa.table({"user_id": ["u"], "item": ["a"]}), "column 2 must be 'item_ids'"),
    ],
)
def test_a_broken_table_is_refused(table: pa.Table, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        evaluate(table)
    assert "\n" not in str(caught.value)


def test_broken_targets_are_refused() -> None:
    table = table_of(["u", "v"], [["a"], ["b"]])
    with pytest.raises(DataError, match="row 6 is outside the catalogue of 6"):
        evaluate(table, targets=[[0], [6]])
    with pytest.raises(DataError, match="row -1 is outside"):
        evaluate(table, targets=[[0], [-1]])
    with pytest.raises(DataError, match=r"must agree, got \(2, 1, 2\)"):
        evaluate(table, targets=[[0]])
    with pytest.raises(DataError, match="'u': the shard has it twice"):
        evaluate(table_of(["u"], [["a"]]), users=["u", "u"])


def test_a_report_over_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="nothing was evaluated"):
        Partial().finish(SETTINGS)
    with pytest.raises(DataError, match="none of 2 users has a held-out item"):
        evaluate(table_of(["u", "v"], [["a"], ["b"]]), targets=[[], []]).finish(SETTINGS)


def test_parts_of_different_settings_do_not_merge() -> None:
    table = table_of(["u", "v"], [["a"], ["b"]])
    other = SETTINGS.model_copy(update={"k": [2]})
    part = evaluate_part(
        table, pa.array(["u", "v"]), ItemLists.from_lists([[0], [1]]), np.ones(2, np.int64), CATALOGUE, other, 0
    )
    with pytest.raises(DataError, match="can't merge"):
        evaluate(table).merge(part)


def test_rating_errors_refuse_what_is_not_a_number() -> None:
    with pytest.raises(DataError, match=r"was predicted as nan \(row 1\)"):
        rating_errors(np.array([1.0, np.nan]), np.array([1.0, 2.0]))
    with pytest.raises(DataError, match="predicted and"):
        rating_errors(np.array([1.0]), np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": []},
        {"k": [0]},
        {"k": [10, 5]},
        {"k": [5, 5]},
        {"history_edges": [5, 1]},
        {"confidence": 1.0},
        {"on": "train"},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EvaluationSettings(**wrong)


def test_names_of_history_segments() -> None:
    assert EvaluationSettings().history_segments == ["history 0", "history 1-4", "history 5-19", "history 20+"]
    assert EvaluationSettings(history_edges=[2, 3]).history_segments == ["history 0-1", "history 2", "history 3+"]
    assert EvaluationSettings(history_edges=[]).history_segments == ["history 0+"]


# --- what users have seen before ---


def test_a_target_that_no_list_can_hold_counts_for_no_metric() -> None:
    """User one has b already, so d alone is asked for; user two has all of the targets, and counts for no ranking."""
    seen = ItemLists.from_lists([[1, 0], [2, 4, 5], [3]])
    table = table_of(USERS.to_pylist(), SHOWN)
    ratings_E = np.array([4, 1, 2, 3, 5], np.float32)
    part = evaluate_part(
        table, USERS, TARGETS, HISTORY, CATALOGUE, SETTINGS, 0, ratings_E=ratings_E, seen=seen
    )  # fmt: skip
    only = ItemLists.from_lists([[3], [], []])
    expected = evaluate_part(table, USERS, only, HISTORY, CATALOGUE, SETTINGS, 0, ratings_E=ratings_E[:1])
    found, plain = part.finish(SETTINGS), expected.finish(SETTINGS)
    assert found.metrics == plain.metrics and found.intervals == plain.intervals
    assert found.metrics["recall@3"] == 1.0
    assert (found.counts["targets_seen"], plain.counts["targets_seen"]) == (4, 0)
    assert "4 held-out items were seen before" in found.table() and "seen before" not in plain.table()


def test_where_all_targets_were_seen_before_one_line_says_what_to_set() -> None:
    part = evaluate_part(
        table_of(USERS.to_pylist(), SHOWN), USERS, TARGETS, HISTORY, CATALOGUE, SETTINGS, 0, seen=TARGETS
    )
    with pytest.raises(DataError, match=r"all 5 held-out items .* set recommend\.filter_seen=false"):
        part.finish(SETTINGS)
