"""Tables of features against pandas, whatever the sharding, and without a look at held-out events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recsys_ray.base.storage import Location
from recsys_ray.data.config import FeatureSettings
from recsys_ray.data.feature_tables import FeatureJob, ItemSums, item_table, newest, write_shard
from recsys_ray.data.prepared import Prepared
from tests.data_worlds import prepare_values, write_csv

DAY = 86_400
GENRES = {1: "a|b", 2: "b", 3: "c", 4: ""}


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    pairs = rng.permutation([(user, item) for user in range(1, 13) for item in range(1, 5)])[:36]
    times = 1_500_000_000 + rng.integers(0, 900 * DAY, 36)
    events = pd.DataFrame(
        {"user_id": pairs[:, 0], "item_id": pairs[:, 1], "rating": rng.integers(1, 6, 36), "timestamp": times}
    )
    return events.sort_values(["user_id", "timestamp"], ignore_index=True)


def prepare_frame(directory: Path, events: pd.DataFrame, **values: Any) -> Prepared:
    file = write_csv(directory / "events.csv", list(events.itertuples(index=False)))
    items = write_csv(directory / "items.csv", list(GENRES.items()), "item_id,genres")
    columns = {name: name for name in events.columns}
    given = {
        "source": "table",
        "path": str(file),
        "columns": columns,
        "items": str(items),
        "item_columns": {"genres": "genres"},
    }
    return prepare_values(directory / "out", **given | values)


def tables(prepared: Prepared, output: Path, **settings: Any) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    job = FeatureJob(str(prepared.location), str(output), FeatureSettings(**settings))
    total = ItemSums(np.zeros((6, prepared.num_items)), {})
    for shard in range(prepared.num_shards):
        total += write_shard(shard, job)
    assert len(total.files) == 2 * prepared.num_shards
    items = item_table(prepared.items, total.sums_SI).to_pandas()
    read = [
        pa.concat_tables(
            [Location(str(output / name)).read_parquet() for name in sorted(total.files) if name.startswith(folder)]
        )
        for folder in ("users", "interactions")
    ]
    return read[0].to_pandas(), items, read[1].to_pandas()


def slope(group: pd.DataFrame) -> float:
    years = group["timestamp"] / DAY / 365.25
    return float(np.polyfit(years, group["rating"], 1)[0]) if years.nunique() > 1 else np.nan


@pytest.mark.parametrize("shards", [1, 3])
def test_tables_against_pandas(tmp_path: Path, shards: int) -> None:
    events = frame()
    users, items, rows = tables(prepare_frame(tmp_path, events, shards=shards), tmp_path / "features")
    now = events["timestamp"].max()

    users = users.set_index("user_id").sort_index()
    by_user = events.groupby("user_id")
    np.testing.assert_array_equal(users["count"], by_user.size())
    np.testing.assert_allclose(users["rating_mean"], by_user["rating"].mean(), rtol=1e-6)
    np.testing.assert_allclose(users["rating_std"], by_user["rating"].std(ddof=0), atol=1e-6)
    np.testing.assert_allclose(users["rating_range"], by_user["rating"].max() - by_user["rating"].min())
    np.testing.assert_allclose(users["recency_days"], (now - by_user["timestamp"].max()) / DAY, rtol=1e-5)
    months = ((by_user["timestamp"].max() - by_user["timestamp"].min()) / DAY / 30.44).clip(lower=1)
    np.testing.assert_allclose(users["per_month"], by_user.size() / months, rtol=1e-5)
    np.testing.assert_allclose(users["rating_trend"], by_user.apply(slope, include_groups=False), rtol=1e-3)
    for user, group in by_user:
        counts = pd.Series(
            [genre for item in group["item_id"] for genre in GENRES[item].split("|") if genre]
        ).value_counts()
        expected = sorted(counts.index, key=lambda genre: (-counts[genre], genre))[:3]
        assert list(users.loc[user, "top_genres"]) == expected

    items = items.set_index("item_id").sort_index()
    by_item = events.groupby("item_id")
    np.testing.assert_array_equal(items["count"], by_item.size())
    np.testing.assert_allclose(items["log_popularity"], np.log1p(by_item.size()), rtol=1e-6)
    np.testing.assert_allclose(items["rating_mean"], by_item["rating"].mean(), rtol=1e-6)
    np.testing.assert_allclose(items["rating_trend"], by_item.apply(slope, include_groups=False), rtol=1e-3)

    rows = rows.sort_values(["user_id", "timestamp"], ignore_index=True)
    moments = pd.to_datetime(events["timestamp"], unit="s")
    np.testing.assert_array_equal(rows["weekday"], moments.dt.day_of_week)
    np.testing.assert_array_equal(rows["hour"], moments.dt.hour)
    spread = by_user["rating"].transform(lambda ratings: ratings.std(ddof=0))
    apart = events["rating"] - by_user["rating"].transform("mean")
    np.testing.assert_allclose(
        rows["rating_z"], np.where(spread > 0, apart / spread.where(spread > 0, 1), 0), atol=1e-5
    )
    assert set(rows["part"]) == {"train"}


def test_what_is_held_out_is_in_no_feature_of_users_and_items(tmp_path: Path) -> None:
    split = {"split": {"kind": "leave_last_out", "valid": False}, "shards": 1}
    events = frame()
    before = tables(prepare_frame(tmp_path / "a", events, **split), tmp_path / "a" / "features")
    held_out = before[2][before[2]["part"] == "test"]
    assert len(held_out) > 5
    changed = events.copy()
    is_last = changed.groupby("user_id").cumcount(ascending=False) == 0
    changed.loc[is_last & (changed.groupby("user_id")["user_id"].transform("size") >= 3), "rating"] = 1
    after = tables(prepare_frame(tmp_path / "b", changed, **split), tmp_path / "b" / "features")
    for one, other in zip(before[:2], after[:2], strict=True):
        pd.testing.assert_frame_equal(one, other)
    everything = tables(Prepared.open(Location(str(tmp_path / "a" / "out"))), tmp_path / "all", parts=["train", "test"])
    assert everything[0]["count"].sum() == len(events) > before[0]["count"].sum()


def test_recency_counts_back_from_the_newest_event_of_all(tmp_path: Path) -> None:
    events = frame()
    assert newest(prepare_frame(tmp_path, events)) == events["timestamp"].max() * 1000
