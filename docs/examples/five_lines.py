"""The Python face on MovieLens latest-small, from two frames to lists, numbers and reasons. No Ray.

    python docs/examples/five_lines.py [DIRECTORY WITH ratings.csv AND movies.csv] [FILE.parquet FOR ALL LISTS]

The lists are those of ``recsys-ray run configs/movielens-small-ease.yaml``.
"""

from __future__ import annotations

import sys

import pandas as pd

import recsys_ray as rr

NAMES = {"userId": "user_id", "movieId": "item_id"}


def main(folder: str = "../shared/datasets/ml-latest-small", out: str | None = None) -> None:
    ratings = pd.read_csv(f"{folder}/ratings.csv").rename(columns=NAMES)
    movies = pd.read_csv(f"{folder}/movies.csv").rename(columns=NAMES)

    data = rr.Dataset(ratings, items=movies, filters={"min_rating": 3.5})
    train, test = data.split("leave_last_out")
    print(rr.evaluate(rr.EASE(regularization=500.0).fit(train), test, k=[10]).table())

    model = rr.EASE(regularization=500.0).fit(data)
    print(model)
    print(model.recommend([1, 414], n=5).merge(movies, on="item_id").sort_values(["user_id", "rank"]))
    print(model.recommend(history=[2571, 1196], n=3).merge(movies, on="item_id"))
    print(model.similar_items(2571, n=3).merge(movies, left_on="similar_item_id", right_on="item_id"))
    print(model.explain(user=1, item=260))

    lists = model.recommend(n=20)
    print(f"{len(lists):,} rows for {lists['user_id'].nunique():,} users")
    if out is not None:
        lists.to_parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
