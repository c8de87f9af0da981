"""Every metric that a well-kept evaluation library has, against that library, user by user or as a mean."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import pytrec_eval
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.metrics.pairwise import cosine_distances

from recsys_ray.base import schema
from recsys_ray.base.errors import ConfigError
from recsys_ray.base.types import ItemLists
from recsys_ray.evaluation import EvaluationSettings, ItemCounts, Report, evaluate_part, metrics
from recsys_ray.evaluation.legend import LEGEND, LESS, MORE, NEITHER

K = 10
SETTINGS = EvaluationSettings(k=[5, K], bootstrap=0, genres=["g0", "g2"])
NUM_ITEMS, NUM_GENRES = 40, 5


class World:
    """30 users with full lists of ten and up to ten rated targets each; items of up to three genres."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.lists = [rng.permutation(NUM_ITEMS)[:K].tolist() for _ in range(30)]
        self.targets = [rng.permutation(NUM_ITEMS)[: rng.integers(1, K + 1)].tolist() for _ in range(30)]
        self.ratings = [rng.integers(1, 6, len(items)).tolist() for items in self.targets]
        self.counts = rng.integers(0, 20, NUM_ITEMS)
        self.genres = [sorted(rng.permutation(NUM_GENRES)[: rng.integers(0, 4)].tolist()) for _ in range(NUM_ITEMS)]

    def report(self, settings: EvaluationSettings = SETTINGS) -> Report:
        rows = [(user, rank, item) for user, items in enumerate(self.lists) for rank, item in enumerate(items, 1)]
        shape = schema.recommendations(pa.int64(), pa.int64())
        columns = [*map(list, zip(*rows, strict=True)), [0.0] * len(rows), ["model"] * len(rows)]
        table = pa.table([pa.array(c, f.type) for c, f in zip(columns, shape, strict=True)], schema=shape)
        names = [f"g{number}" for number in range(NUM_GENRES)]
        genres = ItemLists.from_lists(self.genres)
        items = ItemCounts(pa.array(range(NUM_ITEMS)), self.counts, genres, names)
        ratings_E = np.array([rating for ratings in self.ratings for rating in ratings], np.float32)
        targets, lengths = ItemLists.from_lists(self.targets), np.ones(len(self.lists), np.int64)
        users = pa.array(range(len(self.lists)))
        part = evaluate_part(table, users, targets, lengths, items, settings, 0, ratings_E=ratings_E)
        return part.finish(settings)

    def trec(self, measures: set[str]) -> dict[str, float]:
        """The means of trec_eval, which reads grades and scores."""
        grades = {
            str(user): {str(item): int(grade) for item, grade in zip(items, ratings, strict=True)}
            for user, (items, ratings) in enumerate(zip(self.targets, self.ratings, strict=True))
        }
        runs = {
            str(user): {str(item): float(K - place) for place, item in enumerate(items)}
            for user, items in enumerate(self.lists)
        }
        found = pytrec_eval.RelevanceEvaluator(grades, measures).evaluate(runs)
        names = next(iter(found.values()))
        return {name: float(np.mean([values[name] for values in found.values()])) for name in names}


@pytest.mark.parametrize("seed", range(4))
def test_ranking_metrics_equal_trec_eval(seed: int) -> None:
    world = World(seed)
    found = world.report().metrics
    expected = world.trec({"recall.5,10", "P.5,10", "success.5,10", "map_cut.10", "recip_rank", "ndcg_cut.5,10"})
    for k in (5, K):
        assert found[f"recall@{k}"] == pytest.approx(expected[f"recall_{k}"])
        assert found[f"precision@{k}"] == pytest.approx(expected[f"P_{k}"])
        assert found[f"hit_rate@{k}"] == pytest.approx(expected[f"success_{k}"])
        assert found[f"graded_ndcg@{k}"] == pytest.approx(expected[f"ndcg_cut_{k}"])
    assert found["map@10"] == pytest.approx(expected["map_cut_10"])  # no user has more than ten targets
    assert found["mrr@10"] == pytest.approx(expected["recip_rank"])
    world.ratings = [[1] * len(items) for items in world.targets]
    assert world.report().metrics["ndcg@5"] == pytest.approx(world.trec({"ndcg_cut.5"})["ndcg_cut_5"])


@pytest.mark.parametrize("seed", range(4))
def test_f1_and_diversity_equal_scikit_learn(seed: int) -> None:
    world = World(seed)
    shown, wanted = np.zeros((2, len(world.lists), NUM_ITEMS))
    vectors = np.zeros((NUM_ITEMS, NUM_GENRES))
    for item, genres in enumerate(world.genres):
        vectors[item, genres] = 1.0
    diversity = []
    for user, (items, targets) in enumerate(zip(world.lists, world.targets, strict=True)):
        shown[user, items] = wanted[user, targets] = 1.0
        known = [item for item in items if world.genres[item]]
        distances = cosine_distances(vectors[known])
        diversity.append(distances[np.triu_indices(len(known), 1)].mean())
    found = world.report().metrics
    assert found[f"f1@{K}"] == pytest.approx(f1_score(wanted, shown, average="samples"))
    assert found[f"diversity@{K}"] == pytest.approx(np.mean(diversity))


@pytest.mark.parametrize("seed", range(6))
def test_auc_equals_scikit_learn_with_ties_and_no_opinions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores_I = rng.integers(0, 6, 50).astype(np.float32)
    scores_I[rng.random(50) < 0.2] = -np.inf
    target_I, candidate_I = rng.random(50) < 0.3, rng.random(50) < 0.8
    expected = roc_auc_score(target_I[candidate_I], np.maximum(scores_I[candidate_I], -1.0))
    assert metrics.auc(scores_I, target_I, candidate_I) == pytest.approx(expected)


def test_auc_needs_both_sides() -> None:
    nothing_I, everything_I = np.zeros(3, np.bool_), np.ones(3, np.bool_)
    assert np.isnan(metrics.auc(np.zeros(3, np.float32), nothing_I, everything_I))
    assert np.isnan(metrics.auc(np.zeros(3, np.float32), everything_I, everything_I))


def test_rated_precision_by_hand() -> None:
    # User one: scores 3 > 2 > 1, of which the first and last are liked; user two has one held-out item only; the third
    # has equal scores, where the lower item row comes first, and one without a score, which comes last.
    held_out = ItemLists.from_lists([[4, 5, 6], [7], [9, 8, 2]])
    scores_E = np.array([1, 3, 2, 5, 1, 1, np.nan], np.float32)
    liked_E = np.array([True, True, False, True, False, True, True])
    found = metrics.rated_precision(scores_E, liked_E, held_out, 2)
    assert found[[0, 2]].tolist() == [0.5, 0.5] and np.isnan(found[1])
    assert metrics.rated_precision(scores_E, liked_E, held_out, 1).tolist() == [1.0, 1.0, 1.0]


def test_a_genre_is_a_segment_of_targets() -> None:
    world = World(0)
    segment = world.report().segments["genre g2"]
    values = []
    for shown, targets in zip(world.lists, world.targets, strict=True):
        mine = {item for item in targets if 2 in world.genres[item]}
        if mine:
            values.append(len(mine & set(shown)) / len(mine))
    assert segment.users == len(values)
    assert segment.metrics[f"recall@{K}"] == pytest.approx(np.mean(values))
    strange = SETTINGS.model_copy(update={"genres": ["Opera"]})
    with pytest.raises(ConfigError, match=r"no genre 'Opera' in the catalogue; it has g0, g1, g2, g3, g4"):
        world.report(strange)


def test_equal_ratings_hide_the_graded_ndcg_from_the_table() -> None:
    world = World(1)
    assert "graded_ndcg" in world.report().table()
    world.ratings = [[4] * len(items) for items in world.targets]
    report = world.report()
    assert "graded_ndcg" not in report.table()
    assert report.metrics["graded_ndcg@5"] == pytest.approx(report.metrics["ndcg@5"])


def test_every_metric_of_a_table_is_in_its_legend() -> None:
    table = World(1).report().table()
    shown, _, told = table.partition("\nwhere\n")
    explained = {line.split()[0] for line in told.splitlines()}
    for line in shown.splitlines():
        name = line.split()[0] if line.startswith("  ") else ""
        assert name.startswith("@") or not name or name in explained, name
    assert explained <= set(LEGEND) and all(way in (MORE, LESS, NEITHER) for _, way in LEGEND.values())
