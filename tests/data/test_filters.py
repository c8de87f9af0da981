"""Users that no model has seen, ratings by a user's own measure, and histories that are too long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recsys_ray as rr
from recsys_ray.base.types import FitContext
from recsys_ray.data.prepared import Prepared
from recsys_ray.models import MODELS
from tests.data_worlds import histories, prepare_events

EVENTS = [
    (user, item, 1.0 + (user * item) % 5, 100 * user + item) for user in range(60) for item in range(user % 7 + 1)
]


def prepared_with(directory: Path, split: dict[str, Any], **values: Any) -> Prepared:
    return prepare_events(directory, EVENTS, split={"kind": "cold_users", **split}, **values)


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("shown", [0.0, 0.5, 0.8])
def test_cold_users_teach_nothing_and_are_shown_their_first_events(tmp_path: Path, shown: float, shards: int) -> None:
    split = {"test_ratio": 0.3, "valid_ratio": 0.2, "shown": shown}
    prepared = prepared_with(tmp_path, split, shards=shards)
    found = histories(prepared)
    kinds: dict[str, int] = {}
    for user, events in found.items():
        parts = [part for _, part in events]
        held = sorted(set(parts) & {"test", "valid"})
        assert len(held) <= 1
        kinds[held[0] if held else "train"] = kinds.get(held[0] if held else "train", 0) + 1
        if not held:
            assert set(parts) == {"train"}
            continue
        size = user % 7 + 1
        hidden = max(1, size - int(np.floor(size * shown + 0.5)))
        assert parts == ["shown"] * (size - hidden) + held * hidden
    assert 10 <= kinds["test"] <= 26 and 5 <= kinds["valid"] <= 20
    taught = prepared.train_data(("train",))
    assert taught.num_interactions == sum(len(events) for events in found.values() if events[0][1] == "train")
    for shard in range(prepared.num_shards):
        requests, targets = prepared.requests(shard, ("train",)), prepared.targets(shard, "test")
        for row, user in enumerate(requests.user_ids.to_pylist()):
            visible = [item for item, part in found[user] if part in ("train", "shown")]
            items = prepared.items.column("item_id").to_pylist()
            assert [items[item] for item in requests.histories.items_E[requests.histories.span(row)]] == visible
            assert len(targets.items.row(row)) == sum(part == "test" for _, part in found[user])
    everything = prepared.train_data(tuple(["train", "valid", "test", "shown"]))
    assert everything.num_interactions == len(EVENTS)


def test_the_split_does_not_depend_on_the_sharding(tmp_path: Path) -> None:
    one, many = (prepared_with(tmp_path / str(shards), {}, shards=shards) for shards in (1, 5))
    assert histories(one) == histories(many)


@pytest.mark.parametrize("name", ["als", "ease", "item_cf", "svd", "graph_filter", "lightgcn"])
def test_models_answer_cold_users_from_what_is_shown(name: str) -> None:
    rng = np.random.default_rng(1)
    rows = [(user, 10 * (user % 2) + item) for user in range(80) for item in rng.choice(10, 6, replace=False)]
    events = pd.DataFrame(rows, columns=["user_id", "item_id"])
    events["rating"] = rng.integers(3, 6, len(events)).astype(float)
    train, test = rr.Dataset(events).split("cold_users", test_ratio=0.3, shown=0.5)
    scorer = MODELS[name](**({"epochs": 15, "embedding_dim": 8} if name == "lightgcn" else {})).fit_scorer(
        train.prepared.train_data(("train",)), FitContext()
    )
    right = []
    for shard in range(test.prepared.num_shards):
        requests = test.prepared.requests(shard, ("train",))
        cold = np.flatnonzero(test.prepared.targets(shard, "test").items.lengths_B > 0)
        assert len(cold) > 10 and scorer.answers(requests.take(cold)).all()
        scores = scorer.score(requests.take(cold))
        groups = np.array([user % 2 for user in requests.user_ids.take(cold).to_pylist()])
        own = np.arange(20)[None, :] // 10 == groups[:, None]
        right.append(scores[own].mean() > scores[~own].mean())
    if name != "svd":  # all ratings are high: it ranks by rating, not by what is had
        assert all(right)


@settings(deadline=None, max_examples=25)
@given(
    ratings=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=25),
    kind=st.sampled_from(["centered", "z_score"]),
)
def test_ratings_by_their_own_measure(
    tmp_path_factory: pytest.TempPathFactory, ratings: list[tuple[int, int, int]], kind: str
) -> None:
    events = [(user, item, float(rating), time) for time, (user, item, rating) in enumerate(ratings)]
    filters = {"normalize": kind, "duplicates": "keep"}
    prepared = prepare_events(tmp_path_factory.mktemp("normalize"), events, filters=filters)
    frame = pd.DataFrame(events, columns=["user", "item", "rating", "time"])
    by_user = frame.groupby("user")["rating"]
    expected = frame["rating"] - by_user.transform("mean")
    if kind == "z_score":
        spread = by_user.transform(lambda values: values.std(ddof=0))
        expected /= spread.where(spread > 1e-6, 1)
    for row in prepared.shard(0).to_pylist():
        np.testing.assert_allclose(row["ratings"], expected[frame["user"] == row["user_id"]], atol=1e-5)


def test_the_measure_is_that_of_the_training_part(tmp_path: Path) -> None:
    events = [(1, item, rating, item) for item, rating in enumerate([2.0, 4.0, 5.0])]
    split = {"kind": "leave_last_out", "valid": False}
    prepared = prepare_events(tmp_path, events, filters={"normalize": "centered"}, split=split)
    assert prepared.shard(0).to_pylist()[0]["ratings"] == [-1.0, 1.0, 2.0]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 5),
)
@settings(deadline=None, max_examples=25)
def test_only_the_newest_positives_teach(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, bool]], most: int
) -> None:
    rows = list({(user, item): (user, item, good) for user, item, good in rows}.values())
    if not any(good for *_, good in rows):
        return
    events = [(user, item, 5.0 if good else 1.0, time) for time, (user, item, good) in enumerate(rows)]
    filters = {"newest_per_user": most, "min_rating": 3.0}
    prepared = prepare_events(tmp_path_factory.mktemp("cap"), events, filters=filters)
    for user, found in histories(prepared).items():
        mine = [(item, good) for owner, item, good in rows if owner == user]
        good = [item for item, is_good in mine if is_good][-most:]
        assert found == [(item, "train" if is_good and item in good else "train-") for item, is_good in mine]
