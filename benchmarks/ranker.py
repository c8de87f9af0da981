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
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

import recsys_ray as rr
from recsys_ray.models.lambdamart import PATIENCE, TOP, LambdaMART, _from, _Labelled, _quality

CONFIG = Path(__file__).parent.parent / "configs" / "movielens-small-ranker.yaml"


class Part(NamedTuple):
    """What trees learn from: features, labels, the start, and the size of each user's group."""

    labelled: _Labelled
    start_P: np.ndarray


class Captured(LambdaMART):
    """The ranker, which leaves what its trees are given."""

    def _boosted(self, lightgbm: Any, train: _Labelled, watched: _Labelled, names: list[str], context: Any) -> Any:
        LEFT.append((train, watched))
        return super()._boosted(lightgbm, train, watched, names, context)


LEFT: list[tuple[_Labelled, _Labelled]] = []


def of_users(part: _Labelled, chosen_B: np.ndarray) -> _Labelled:
    """The groups of these users."""
    chosen_P = np.repeat(chosen_B, part.sizes_B)
    return _Labelled(part.inputs_PF[chosen_P], part.hits_P[chosen_P], part.sizes_B[chosen_B], part.targets_B[chosen_B])


def best_member(part: _Labelled, count: int) -> int:
    return max(range(count), key=lambda place: float(_quality(_from(part, place), part).mean()))


def lightgbm_scores(train: Part, stop: Part, judged: Part, model: LambdaMART, seed: int) -> np.ndarray:
    import lightgbm

    settings = {
        "objective": "lambdarank", "metric": "ndcg", "eval_at": [TOP], "num_leaves": model.leaves, "verbosity": -1,
        "learning_rate": model.learning_rate, "min_data_in_leaf": model.least_in_leaf, "num_threads": 1,
        "deterministic": True, "seed": seed, "lambdarank_truncation_level": TOP + 10, "feature_fraction": 0.8,
        "bagging_fraction": 0.8, "bagging_freq": 1,
    }  # fmt: skip
    data, watch = (
        lightgbm.Dataset(
            part.labelled.inputs_PF, part.labelled.hits_P, group=part.labelled.sizes_B, init_score=part.start_P
        )
        for part in (train, stop)
    )
    ending = lightgbm.early_stopping(PATIENCE, verbose=False)
    booster = lightgbm.train(settings, data, model.trees, valid_sets=[watch], callbacks=[ending])
    return judged.start_P + booster.predict(judged.labelled.inputs_PF, num_threads=1)


def catboost_scores(train: Part, stop: Part, judged: Part, model: LambdaMART, seed: int) -> np.ndarray:
    import catboost

    def pool(part: Part) -> Any:
        groups = np.repeat(np.arange(len(part.labelled.sizes_B)), part.labelled.sizes_B)
        return catboost.Pool(part.labelled.inputs_PF, part.labelled.hits_P, group_id=groups, baseline=part.start_P)

    fitted = catboost.CatBoost(
        {
            "loss_function": f"YetiRank:mode=NDCG;top={TOP}", "eval_metric": f"NDCG:top={TOP};type=Base",
            "depth": round(np.log2(model.leaves + 1)), "learning_rate": model.learning_rate, "iterations": model.trees,
            "random_seed": seed, "thread_count": 1, "verbose": False, "allow_writing_files": False, "rsm": 0.8,
        }
    )  # fmt: skip
    fitted.fit(pool(train), eval_set=pool(stop), early_stopping_rounds=PATIENCE)
    return judged.start_P + fitted.predict(judged.labelled.inputs_PF)


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
    settings = {key: value for key, value in yaml.safe_load(CONFIG.read_text())["model"].items() if key != "name"}
    model = Captured(**settings)
    ratings = pd.read_csv(parsed.data / "ratings.csv").rename(columns={"userId": "user_id", "movieId": "item_id"})
    train, _, _ = rr.Dataset(ratings).split("random", test_ratio=0.1, valid_ratio=0.1)
    found: dict[str, list[float]] = {"start": [], "lightgbm": [], "catboost": []}
    seconds: dict[str, list[float]] = {"lightgbm": [], "catboost": []}
    for seed in range(parsed.seeds):
        model.fit(train, seed=seed)
        learned, others = LEFT.pop()
        odd_B = np.arange(len(others.sizes_B)) % 2 == 1
        stop, judged = of_users(others, odd_B), of_users(others, ~odd_B)
        place = best_member(stop, len(model.members))
        parts = [Part(one, _from(one, place)) for one in (learned, stop, judged)]
        found["start"].append(float(_quality(parts[2].start_P, judged).mean()))
        for name, scores in (("lightgbm", lightgbm_scores), ("catboost", catboost_scores)):
            started = time.perf_counter()
            scores_P = scores(*parts, model, seed)
            seconds[name].append(time.perf_counter() - started)
            found[name].append(float(_quality(scores_P, judged).mean()))
        print(json.dumps({name: round(values[-1], 4) for name, values in found.items()}), file=sys.stderr, flush=True)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    ratios = {
        "ratio_ndcg": means["lightgbm"] / means["catboost"],
        "ratio_seconds": sum(seconds["catboost"]) / sum(seconds["lightgbm"]),
    }
    print(json.dumps({name: round(value, 4) for name, value in (means | ratios).items()}))


if __name__ == "__main__":
    main()
