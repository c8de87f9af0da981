"""Trees over the candidates of several models: LightGBM, which the ranker uses, beside CatBoost on the same features.

    python benchmarks/ranker.py --data ../shared/datasets/ml-latest-small [--seeds 3] [--catboost DIRECTORY]

The members of ``configs/movielens-small-ranker.yaml`` propose candidates for every user without a fifth of the events.
Both libraries learn their order from the same users, stop by the same second group of users, and are judged by a third:
NDCG@20 of the held-out events, settings alike (depth for leaves, rate, at most so many trees). ``--catboost`` names a
directory into which ``pip install --target`` has put it, where the environment has none. Ends with one JSON line of
ratios.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import recsys_ray as rr
from recsys_ray.base.types import FitContext, map_blocks_here
from recsys_ray.config import load_config
from recsys_ray.models.lambdamart import PATIENCE, TOP, Labelled, LambdaMART, quality_of, start_of

CONFIG = Path(__file__).parent.parent / "configs" / "movielens-small-ranker.yaml"


def of_users(part: Labelled, chosen_B: np.ndarray) -> Labelled:
    """The groups of these users."""
    chosen_P = np.repeat(chosen_B, part.sizes_B)
    return Labelled(part.inputs_PF[chosen_P], part.hits_P[chosen_P], part.sizes_B[chosen_B], part.targets_B[chosen_B])


def lightgbm_sums(model: LambdaMART, parts: list[Labelled], names: list[str], place: int, seed: int) -> np.ndarray:
    import lightgbm

    learned, stop, judged = parts
    booster = model.grown(lightgbm, learned, stop, names, place, seed)
    return np.asarray(booster.predict(judged.inputs_PF, num_threads=1))


def catboost_sums(model: LambdaMART, parts: list[Labelled], names: list[str], place: int, seed: int) -> np.ndarray:
    import catboost

    def pool(part: Labelled) -> Any:
        groups = np.repeat(np.arange(len(part.sizes_B)), part.sizes_B)
        return catboost.Pool(part.inputs_PF, part.hits_P, group_id=groups, baseline=start_of(part, place))

    learned, stop, judged = parts
    fitted = catboost.CatBoost(
        {
            "loss_function": f"YetiRank:mode=NDCG;top={TOP}", "eval_metric": f"NDCG:top={TOP};type=Base",
            "depth": round(np.log2(model.leaves + 1)), "learning_rate": model.learning_rate, "iterations": model.trees,
            "random_seed": seed, "thread_count": 1, "verbose": False, "allow_writing_files": False, "rsm": 0.8,
        }
    )  # fmt: skip
    fitted.fit(pool(learned), eval_set=pool(stop), early_stopping_rounds=PATIENCE)
    return np.asarray(fitted.predict(judged.inputs_PF))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--catboost", type=Path)
    parsed = parser.parse_args()
    if parsed.catboost is not None:
        sys.path.append(str(parsed.catboost))
    try:
        import catboost  # noqa: F401
    except ImportError:
        raise SystemExit("CatBoost is not installed: pip install catboost, or --catboost DIRECTORY") from None
    model = load_config(str(CONFIG)).chosen_model()
    assert isinstance(model, LambdaMART)
    ratings = pd.read_csv(parsed.data / "ratings.csv").rename(columns={"userId": "user_id", "movieId": "item_id"})
    train, _, _ = rr.Dataset(ratings).split("random", test_ratio=0.1, valid_ratio=0.1)
    data = train.prepared.train_data(train.parts)
    found: dict[str, list[float]] = {"start": [], "lightgbm": [], "catboost": []}
    seconds: dict[str, list[float]] = {"lightgbm": [], "catboost": []}
    for seed in range(parsed.seeds):
        context = FitContext(seed, map_blocks_here, 1, lambda message: None)
        learned, others, names = model.labelled_parts(data, context)
        odd_B = np.arange(len(others.sizes_B)) % 2 == 1
        stop, judged = of_users(others, odd_B), of_users(others, ~odd_B)
        place = max(range(len(model.members)), key=lambda one: float(quality_of(start_of(stop, one), stop).mean()))
        start_P = start_of(judged, place)
        found["start"].append(float(quality_of(start_P, judged).mean()))
        for name, sums in (("lightgbm", lightgbm_sums), ("catboost", catboost_sums)):
            started = time.perf_counter()
            sums_P = sums(model, [learned, stop, judged], names, place, seed)
            seconds[name].append(time.perf_counter() - started)
            found[name].append(float(quality_of(start_P + sums_P, judged).mean()))
        print(json.dumps({name: round(values[-1], 4) for name, values in found.items()}), file=sys.stderr, flush=True)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    ratios = {
        "ratio_ndcg": means["lightgbm"] / means["catboost"],
        "ratio_seconds": sum(seconds["catboost"]) / sum(seconds["lightgbm"]),
    }
    print(json.dumps({name: round(value, 4) for name, value in (means | ratios).items()}))


if __name__ == "__main__":
    main()
