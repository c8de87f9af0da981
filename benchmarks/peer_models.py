"""Lists of one library for the interactions of a file; run by peers.py in an environment that has that library.

    python peer_models.py LIBRARY < jobs

A job is one line of JSON: ``train`` (a file of lines ``user item place``, the place in the user's history), ``model``,
``settings``, ``seed``, ``k`` and ``out``, where the (U, k) lists go as an .npy file of item ids, users ascending, -1
where a list ends. Each is answered by a line: ``seconds`` of the fit and the lists together, or ``error``. Users see
nothing that is in their history.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

Job = dict[str, Any]


def ours(rows_E3: np.ndarray, job: Job) -> np.ndarray:
    import pandas as pd

    import recsys_ray as rr

    frame = pd.DataFrame(rows_E3, columns=["user_id", "item_id", "timestamp"])
    model = rr.fit(rr.Dataset(frame), job["model"], seed=job["seed"], **job["settings"])
    found = model.recommend(n=job["k"])
    return _lists(rows_E3, found["user_id"], found["item_id"], found["rank"], job["k"])


def implicit(rows_E3: np.ndarray, job: Job) -> np.ndarray:
    import scipy.sparse as sp
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.cpu.bpr import BayesianPersonalizedRanking
    from implicit.nearest_neighbours import BM25Recommender, CosineRecommender

    kinds = {
        "als": AlternatingLeastSquares,
        "bpr": BayesianPersonalizedRanking,
        "bm25": BM25Recommender,
        "cosine": CosineRecommender,
    }
    seeded = {"random_state": job["seed"]} if job["model"] in ("als", "bpr") else {}
    model = kinds[job["model"]](**job["settings"], **seeded)
    users_U, rows_E = np.unique(rows_E3[:, 0], return_inverse=True)
    items_I, columns_E = np.unique(rows_E3[:, 1], return_inverse=True)
    matrix = sp.csr_matrix((np.ones(len(rows_E), np.float32), (rows_E, columns_E)), (len(users_U), len(items_I)))
    matrix.data[:] = 1
    model.fit(matrix, show_progress=False)
    found_UK, scores_UK = model.recommend(np.arange(len(users_U)), matrix, job["k"], filter_already_liked_items=True)
    real_UK = (found_UK >= 0) & (scores_UK > np.finfo(np.float32).min)
    return np.where(real_UK, items_I[np.maximum(found_UK, 0)], -1)


def rectools(rows_E3: np.ndarray, job: Job) -> np.ndarray:
    import pandas as pd
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.nearest_neighbours import BM25Recommender
    from rectools.dataset import Dataset
    from rectools.models import (
        EASEModel,
        ImplicitALSWrapperModel,
        ImplicitItemKNNWrapperModel,
        PureSVDModel,
        SASRecModel,
    )

    settings, seed = job["settings"], job["seed"]
    makers: dict[str, Callable[[], Any]] = {
        "ease": lambda: EASEModel(**settings),
        "pure_svd": lambda: PureSVDModel(random_state=seed, **settings),
        "bm25": lambda: ImplicitItemKNNWrapperModel(BM25Recommender(**settings)),
        "als": lambda: ImplicitALSWrapperModel(AlternatingLeastSquares(random_state=seed, **settings)),
        "sasrec": lambda: SASRecModel(recommend_torch_device="cpu", **settings),
    }
    if job["model"] == "sasrec":
        import logging

        import torch

        torch.manual_seed(seed)
        np.random.seed(seed)
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    frame = pd.DataFrame(rows_E3[:, :2], columns=["user_id", "item_id"])
    frame["weight"] = 1.0
    frame["datetime"] = pd.Timestamp("2000-01-01") + pd.to_timedelta(rows_E3[:, 2], unit="s")
    dataset = Dataset.construct(frame)
    model = makers[job["model"]]().fit(dataset)
    found = model.recommend(np.unique(rows_E3[:, 0]), dataset, k=job["k"], filter_viewed=True)
    return _lists(rows_E3, found["user_id"], found["item_id"], found["rank"], job["k"])


def lenskit(rows_E3: np.ndarray, job: Job) -> np.ndarray:
    import pandas as pd
    from lenskit.als import ImplicitMFScorer
    from lenskit.batch import recommend
    from lenskit.data import from_interactions_df
    from lenskit.knn import EASEScorer, ItemKNNScorer, SLIMScorer
    from lenskit.pipeline import topn_pipeline
    from lenskit.training import TrainingOptions

    kinds = {"als": ImplicitMFScorer, "item_knn": ItemKNNScorer, "ease": EASEScorer, "slim": SLIMScorer}
    more = {"feedback": "implicit"} if job["model"] == "item_knn" else {}
    pipeline = topn_pipeline(kinds[job["model"]](**job["settings"], **more), n=job["k"])
    data = from_interactions_df(pd.DataFrame(rows_E3[:, :2], columns=["user_id", "item_id"]))
    pipeline.train(data, TrainingOptions(rng=job["seed"]))
    users_U = np.unique(rows_E3[:, 0])
    found = recommend(pipeline, users_U.tolist(), job["k"], n_jobs=1).to_df()
    return _lists(rows_E3, found["user_id"], found["item_id"], found["rank"], job["k"])


def _lists(rows_E3: np.ndarray, users: Any, items: Any, ranks: Any, k: int) -> np.ndarray:
    """(U, k) from rows of lists, ranks from 1."""
    users_U = np.unique(rows_E3[:, 0])
    lists_UK = np.full((len(users_U), k), -1, np.int64)
    ranks_R = np.asarray(ranks, np.int64)
    lists_UK[np.searchsorted(users_U, np.asarray(users)), ranks_R - 1] = np.asarray(items, np.int64)
    return lists_UK


LIBRARIES = {"ours": ours, "implicit": implicit, "rectools": rectools, "lenskit": lenskit}


def main() -> None:
    warnings.simplefilter("ignore")
    library = LIBRARIES[sys.argv[1]]
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    for line in sys.stdin:
        job = json.loads(line)
        rows_E3 = np.loadtxt(job["train"], np.int64)
        started = time.perf_counter()
        try:
            lists_UK = library(rows_E3, job)
            np.save(job["out"], lists_UK)
            answer = {"seconds": round(time.perf_counter() - started, 2)}
        except Exception as error:  # a library may refuse a setting; that trial is lost, and is said
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
