"""What every metric means, in a line, and which way is better."""

from __future__ import annotations

from collections.abc import Iterable

MORE, LESS, NEITHER = "higher is better", "lower is better", "says what the lists are like"
LEGEND: dict[str, tuple[str, str]] = {
    "recall": ("share of a user's held-out items that are in the list", MORE),
    "ndcg": ("recall that counts an item the more the higher it stands", MORE),
    "precision": ("share of the list that is held-out items", MORE),
    "f1": ("recall and precision in one", MORE),
    "hit_rate": ("share of users with a held-out item in the list", MORE),
    "map": ("precision at every held-out item, on average", MORE),
    "mrr": ("1 / rank of the first held-out item", MORE),
    "graded_ndcg": ("ndcg that counts an item by its rating", MORE),
    "serendipity": ("held-out items in the list that popularity would not have listed", MORE),
    "popularity": ("interactions of a listed item in the training data, on average", NEITHER),
    "tail_share": ("share of the list that is outside the popular items", NEITHER),
    "novelty": ("bits: 1 more is half as many users who have a listed item", NEITHER),
    "diversity": ("1 - likeness of the items of a list to each other", NEITHER),
    "rated_precision": ("share of the list's rated items that were liked", MORE),
    "coverage": ("share of the catalogue that somebody is shown", MORE),
    "gini": ("inequality of exposure: 0 all items alike, 1 one item alone", LESS),
    "auc": ("chance that a held-out item scores above another one", MORE),
    "rmse": ("error of a predicted rating, large ones count more", LESS),
    "mae": ("error of a predicted rating", LESS),
}

FORMULAS: dict[str, str] = {
    "recall": "hits / targets",
    "ndcg": "sum over hits of 1 / log2(rank + 1), over the same sum for the ranks 1 ... min(targets, k)",
    "precision": "hits / k, also where the list is shorter",
    "f1": "2 hits / (k + targets)",
    "hit_rate": "1 with a hit, else 0",
    "map": "sum over hits of (hits down to its rank / its rank), over min(targets, k)",
    "mrr": "1 / rank of the first hit, 0 without one",
    "graded_ndcg": "sum over hits of rating / log2(rank + 1), over the same sum for the k best rated targets in order",
    "serendipity": "sum over hits of max(0, (popularity rank - rank) / items), over k",
    "popularity": "mean over the listed items of their training interactions",
    "tail_share": "share of the listed items outside the fewest that hold evaluation.head_share of all interactions",
    "novelty": "mean over the listed items of -log2(users who have one / users)",
    "diversity": "mean over pairs of the list of 1 - cosine of their vectors",
    "rated_precision": "liked among the k best scored of the user's held-out rated items, over k",
    "coverage": "items in any list / items",
    "gini": "(2 sum over items, by exposure ascending, of place * exposure / (items * exposure of all)) "
    "- (items + 1) / items",
    "auc": "(targets above a candidate, equal ones half) / (targets * other candidates)",
    "rmse": "sqrt(mean of (predicted - given rating)^2)",
    "mae": "mean of |predicted - given rating|",
}
"""Of one user at k; means are over users with a target. A hit is a held-out item in the first k of the list."""


def legend(metrics: Iterable[str]) -> list[str]:
    """A line for each of these metrics."""
    names = dict.fromkeys(name.partition("@")[0] for name in metrics)
    known = [name for name in names if name in LEGEND]
    return [f"  {name:<16}{LEGEND[name][0]} ({LEGEND[name][1]})" for name in known]
