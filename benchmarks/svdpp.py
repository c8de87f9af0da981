"""Seconds of an epoch of SVD++: ours against Surprise, where it is installed, and against the loop of the paper.

    python benchmarks/svdpp.py [--data ../shared/datasets/ml-100k] [--epochs 20] [--dim 20] [--plain-users 60]

Without --data the ratings are synthetic, of MovieLens 100K's size. The loop of the paper is plain Python: for every
rating, all implicit factors of the user move. It takes minutes, so it is run on some of the users for one epoch, and
its seconds per rating are compared. rmse_* are those of a random tenth that is held out, after all epochs, each with
the settings of its own defaults and the same dimension and epochs. ratio_* is their seconds per rating and epoch over
ours.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from recsys_ray.base.types import FitContext, Histories, ItemLists, Requests, TrainData
from recsys_ray.models.svdpp import SVDpp

USERS, ITEMS, RATINGS = 943, 1_682, 100_000


def read_ratings(folder: Path) -> pd.DataFrame:
    """user, item (both counted from 0), rating."""
    found = pd.read_csv(folder / "ratings.csv")
    user, item = (found[name].astype("category").cat.codes.to_numpy() for name in ("user_id", "movie_id"))
    return pd.DataFrame({"user": user, "item": item, "rating": found["rating"].astype(float)})


def synthetic_ratings(seed: int) -> pd.DataFrame:
    """The same of random tastes, with log-normal activity and popularity."""
    rng = np.random.default_rng(seed)
    activity, popularity = (rng.lognormal(sigma=1.0, size=size) for size in (USERS, ITEMS))
    user = rng.choice(USERS, 2 * RATINGS, p=activity / activity.sum())
    item = rng.choice(ITEMS, 2 * RATINGS, p=popularity / popularity.sum())
    pairs = rng.permutation(np.unique(user * ITEMS + item))[:RATINGS]
    user, item = pairs // ITEMS, pairs % ITEMS
    tastes, kinds = rng.normal(size=(USERS, 8)), rng.normal(size=(ITEMS, 8))
    score = 3.5 + 0.4 * (tastes[user] * kinds[item]).sum(axis=1) + rng.normal(size=len(user))
    return pd.DataFrame({"user": user, "item": item, "rating": np.clip(np.round(score), 1, 5)})


def histories(ratings: pd.DataFrame, users: int) -> Histories:
    groups = dict(list(ratings.groupby("user")))
    nothing = ratings.iloc[:0]
    rows = [groups.get(user, nothing) for user in range(users)]
    return Histories.from_lists([row["item"].tolist() for row in rows], [row["rating"].tolist() for row in rows])


def run_ours(train: pd.DataFrame, test: pd.DataFrame, model: SVDpp) -> tuple[float, float]:
    """(seconds per rating and epoch, RMSE)."""
    users, items = int(max(train["user"].max(), test["user"].max())) + 1, ITEMS
    data = TrainData(histories(train, users), pa.table({"item_id": np.arange(items)}))
    started = time.perf_counter()
    scorer = model.fit_scorer(data, FitContext())
    seconds = time.perf_counter() - started
    requests = Requests(
        pa.array(range(users)), np.arange(users, dtype=np.int32), data.histories, ItemLists.empty(users)
    )
    scores = scorer.score(requests)[test["user"], test["item"]]
    return seconds / (len(train) * model.epochs), float(np.sqrt(np.mean((scores - test["rating"]) ** 2)))


def run_surprise(train: pd.DataFrame, test: pd.DataFrame, dim: int, epochs: int) -> tuple[float, float] | None:
    try:
        from surprise import Dataset, Reader
        from surprise import SVDpp as Theirs
    except ImportError:
        return None
    data = Dataset.load_from_df(train, Reader(rating_scale=(1, 5))).build_full_trainset()
    started = time.perf_counter()
    model = Theirs(n_factors=dim, n_epochs=epochs, random_state=0).fit(data)
    seconds = time.perf_counter() - started
    errors = [model.predict(row.user, row.item).est - row.rating for row in test.itertuples()]
    return seconds / (len(train) * epochs), float(np.sqrt(np.mean(np.square(errors))))


def run_plain(train: pd.DataFrame, dim: int, users: int) -> float:
    """Seconds per rating of one epoch over the ratings of some users, as the paper writes it."""
    rng = np.random.default_rng(0)
    p, q, y = (rng.normal(scale=0.1, size=(size, dim)).tolist() for size in (USERS, ITEMS, ITEMS))
    user_bias, item_bias, mean = [0.0] * USERS, [0.0] * ITEMS, float(train["rating"].mean())
    rows = train[train["user"].isin(train["user"].unique()[:users])]
    rated = {user: group["item"].tolist() for user, group in rows.groupby("user")}
    started = time.perf_counter()
    for user, item, rating in zip(*(rows[name].tolist() for name in ("user", "item", "rating")), strict=True):
        mine = rated[user]
        share = 1 / math.sqrt(len(mine))
        total = [p[user][d] + share * sum(y[other][d] for other in mine) for d in range(dim)]
        error = rating - (
            mean + user_bias[user] + item_bias[item] + sum(a * b for a, b in zip(q[item], total, strict=True))
        )
        user_bias[user] += 0.007 * (error - 0.02 * user_bias[user])
        item_bias[item] += 0.007 * (error - 0.02 * item_bias[item])
        for d in range(dim):
            p_d, q_d = p[user][d], q[item][d]
            p[user][d] += 0.007 * (error * q_d - 0.02 * p_d)
            q[item][d] += 0.007 * (error * total[d] - 0.02 * q_d)
            for other in mine:
                y[other][d] += 0.007 * (error * share * q_d - 0.02 * y[other][d])
    return (time.perf_counter() - started) / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--dim", type=int, default=20)
    parser.add_argument("--plain-users", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    ratings = synthetic_ratings(arguments.seed) if arguments.data is None else read_ratings(arguments.data)
    held = np.random.default_rng(arguments.seed).random(len(ratings)) < 0.1
    train, test = ratings[~held], ratings[held]
    test = test[test["item"].isin(train["item"])]
    model = SVDpp(embedding_dim=arguments.dim, epochs=arguments.epochs)
    run_ours(train, test, model.model_copy(update={"epochs": 1}))  # compiled before the clock starts
    ours, rmse = run_ours(train, test, model)
    plain = run_plain(train, arguments.dim, arguments.plain_users)
    found = {"ratings": len(train), "nanoseconds": round(1e9 * ours), "nanoseconds_plain": round(1e9 * plain)}
    found |= {"rmse": round(rmse, 4), "ratio_plain": round(plain / ours, 1)}
    theirs = run_surprise(train, test, arguments.dim, arguments.epochs)
    if theirs is not None:
        found |= {"nanoseconds_surprise": round(1e9 * theirs[0]), "rmse_surprise": round(theirs[1], 4)}
        found["ratio_surprise"] = round(theirs[0] / ours, 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
