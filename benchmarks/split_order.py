"""Was a given split drawn at random, or is it a cut in time? For files of ``user item item ...`` lines; no model.

    python benchmarks/split_order.py --data DIRECTORY

Two signs. *Dispersion*: over items with at least 50 interactions, the variance of how many are in a part, relative to
a draw of that share at random (a binomial); 1 says random, more says that items have a time. *Likeness*: the mean
cosine between an event of the part and the last, the middle and the first training event of the same user, on the
leading singular vectors of the training interactions; what follows the last is nearest to it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from recsys_ray.base.types import FitContext, Histories
from recsys_ray.models.linalg.graph import normalised_interactions
from recsys_ray.models.pure_svd import right_singular_vectors
from recsys_ray.models.scorers.base import with_length_power

LEAST_INTERACTIONS = 50
DIMENSION = 128
WITH = {"last": 1.0, "middle": 0.5, "first": 0.0}  # places in the training line

Lists = dict[int, list[int]]


def read(file: Path) -> Lists:
    rows = (list(map(int, line.split())) for line in file.read_text().splitlines() if line.strip())
    return {user: items for user, *items in rows}


def counts(lists: Lists, num_items: int) -> np.ndarray:
    return np.bincount([item for items in lists.values() for item in items], minlength=num_items)


def dispersion(part_I: np.ndarray, all_I: np.ndarray) -> float:
    kept = all_I >= LEAST_INTERACTIONS
    part_I, all_I = part_I[kept], all_I[kept]
    share = part_I.sum() / all_I.sum()
    return float(((part_I - all_I * share) ** 2 / (all_I * share * (1 - share))).mean())


def item_vectors(train: Lists, num_items: int) -> np.ndarray:
    pairs = Histories.from_lists(list(train.values())).matrix(num_items)
    return with_length_power(right_singular_vectors(normalised_interactions(pairs), DIMENSION, FitContext()), 0)


def likeness(part: Lists, train: Lists, vectors: np.ndarray) -> dict[str, float]:
    """Of the part's first event in file order, to three of the training events."""
    users = [user for user, items in part.items() if items and len(train.get(user, ())) >= 3]
    first = vectors[[part[user][0] for user in users]]
    found = {}
    for name, place in WITH.items():
        other = [train[user][min(int(place * len(train[user])), len(train[user]) - 1)] for user in users]
        found[name] = float((first * vectors[other]).sum(axis=1).mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    directory = parser.parse_args().data
    parts = {
        name: read(directory / f"{name}.txt")
        for name in ("train", "valid", "test")
        if (directory / f"{name}.txt").exists()
    }
    num_items = 1 + max(max(items, default=0) for lists in parts.values() for items in lists.values())
    of_parts = {name: counts(lists, num_items) for name, lists in parts.items()}
    vectors = item_vectors(parts["train"], num_items)
    result = {
        name: {
            "dispersion": dispersion(of_parts[name], sum(of_parts.values())),
            **likeness(lists, parts["train"], vectors),
        }
        for name, lists in parts.items()
        if name != "train"
    }
    print(
        json.dumps({name: {key: round(value, 3) for key, value in values.items()} for name, values in result.items()})
    )


if __name__ == "__main__":
    main()
