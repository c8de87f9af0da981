"""The middle of a rating scale, and the warning where low ratings count as liked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_ray.data.config import DataSettings, FilterSettings
from recsys_ray.data.rating_scale import rating_middle, share_below
from recsys_ray.data.sources.table_files import TableSettings
from tests.here import without_ray
from tests.worlds import World

WARNING = "of the ratings lie below"
STARS = [[1.0, 3.0], [3.0, 4.0], [5.0, 5.0]]


@given(counted=st.dictionaries(st.integers(-10, 10).map(float), st.integers(1, 50), min_size=2))
def test_at_least_half_of_the_ratings_are_not_below_the_middle(counted: dict[float, int]) -> None:
    rows = [[value, float(count)] for value, count in sorted(counted.items())]
    middle = rating_middle(DataSettings(), rows)
    centre = (min(counted) + max(counted)) / 2
    below = sum(count for value, count in counted.items() if value < centre)
    assert middle == (centre if 2 * below <= sum(counted.values()) else None)
    assert middle is None or share_below(middle, rows) == below / sum(counted.values())


@pytest.mark.parametrize("counted", [None, [], [[4.0, 7.0]]])
def test_without_ratings_that_differ_there_is_no_scale(counted: Any) -> None:
    assert rating_middle(DataSettings(), counted) is None


@pytest.mark.parametrize("filters", [{"min_rating": 2.0}, {"normalize": "centered"}, {"duplicates": "sum"}])
def test_what_is_no_scale_of_liking_has_no_middle(filters: dict[str, Any]) -> None:
    assert rating_middle(DataSettings(), STARS) == 3.0
    assert rating_middle(DataSettings(filters=FilterSettings(**filters)), STARS) is None


def test_weights_of_events_are_none_either() -> None:
    columns = {"user_id": "u", "item_id": "i", "event": "e"}
    settings = TableSettings.model_validate(
        {"source": "table", "path": "x", "columns": columns, "event_weights": {"view": 1, "buy": 5}}
    )
    assert rating_middle(settings, [[1.0, 10.0], [5.0, 10.0]]) is None


@pytest.mark.parametrize(
    ("low", "changes", "warned"),
    [
        (6, {}, True),
        (1, {}, False),
        (6, {"data.filters.min_rating": "3"}, False),
        (6, {"model": "{name: als, weighting: rating, embedding_dim: 2}"}, False),
        (6, {"model": "{name: als, embedding_dim: 2}"}, True),
    ],
)
def test_prepare_warns_where_low_ratings_count_as_liked(
    tmp_path: Path, low: int, changes: dict[str, str], warned: bool
) -> None:
    ratings = [1] * low + [5] * (24 - low)
    rows = [(k % 4, k // 4, rating, k) for k, rating in enumerate(ratings)]
    pd.DataFrame(rows, columns=["u", "i", "r", "t"]).to_csv(tmp_path / "e.csv", index=False)
    columns = {"user_id": "u", "item_id": "i", "rating": "r", "timestamp": "t"}
    data = {"source": "table", "path": str(tmp_path / "e.csv"), "columns": columns, "timestamp_unit": "s"}
    world = World(tmp_path / "world", data=data)
    with without_ray():
        outcome = world.command("prepare", *(f"{key}={value}" for key, value in changes.items()))
    assert outcome.status == 0, outcome.errors
    assert (WARNING in outcome.errors) == warned
