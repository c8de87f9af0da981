"""The page about the data and the doctor: counts against plain loops, each symptom against a world that has it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import recsys_ray as rr
from recsys_ray.content.config import ImageSettings
from recsys_ray.content.posters.check import poster_symptoms
from recsys_ray.data.checks import Symptom, drift, examine, stability
from recsys_ray.data.prepared import Prepared
from recsys_ray.data.report.exploration import Explored, bucket, density, explore
from recsys_ray.data.report.page import data_page
from recsys_ray.data.report.statistics import histogram, statistics
from tests.data_worlds import COLUMNS, prepare_values, settings_of

DAY = 86_400


def world(seed: int = 0, users: int = 40, items: int = 30) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Random ratings with distinct pairs over some months, and a catalogue with genres and a missing title."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(users * items)[: users * items // 4]
    events = pd.DataFrame({"user_id": pairs // items, "item_id": pairs % items})
    events["rating"] = rng.choice([1.0, 2.0, 3.0, 4.0, 5.0], len(events))
    events["timestamp"] = 1_600_000_000 + rng.permutation(len(events)) * (DAY // 2)
    genres = [["Drama", "War"], ["Comedy"], ["Drama"], []]
    names = [f"film {item}" for item in range(items)]
    catalogue = pd.DataFrame(
        {"item_id": range(items), "title": names, "genres": [genres[item % 4] for item in range(items)]}
    )
    return events, catalogue


def prepared_from(folder: Path, events: pd.DataFrame, catalogue: pd.DataFrame, **data: Any) -> Prepared:
    folder.mkdir(exist_ok=True)
    events.to_parquet(folder / "events.parquet")
    catalogue.to_parquet(folder / "items.parquet")
    return prepare_values(folder / "out", **(_settings(folder) | data))


def _settings(folder: Path) -> dict[str, Any]:
    events, items = folder / "events.parquet", folder / "items.parquet"
    named = {"title": "title", "genres": "genres"}
    files = {"path": str(events), "items": str(items), "item_columns": named}
    return {"source": "table", "shards": 3, "columns": COLUMNS} | files


def seen(prepared: Prepared) -> tuple[Explored, dict[str, Any]]:
    explored = explore(prepared)
    return explored, statistics(prepared, explored)


def test_every_count_equals_a_plain_count_of_the_frame(tmp_path: Path) -> None:
    events, catalogue = world()
    prepared = prepared_from(tmp_path, events, catalogue)
    explored, facts = seen(prepared)
    assert facts["interactions"] == len(events) == sum(entry["count"] for entry in facts["ratings"])
    assert facts["sparsity"] == pytest.approx(1 - len(events) / (facts["users"] * facts["items"]))
    assert facts["rating"]["mean"] == pytest.approx(events["rating"].mean())
    assert facts["rating"]["deviation"] == pytest.approx(events["rating"].std(ddof=0))
    assert {e["value"]: e["count"] for e in facts["ratings"]} == events["rating"].value_counts().to_dict()
    lengths = events["user_id"].value_counts()
    assert facts["per_user"]["mean"] == pytest.approx(lengths.mean())
    assert facts["per_user"]["quantiles"]["1.0"] == lengths.max()
    assert facts["per_user"]["quantiles"]["0.0"] == lengths.min()
    assert sum(facts["per_user"]["doubling"]) == len(lengths)
    times = pd.to_datetime(events["timestamp"], unit="s")
    by_month = times.dt.strftime("%Y-%m").value_counts().to_dict()
    assert {month: count for month, count in facts["time"]["months"].items() if count} == by_month
    assert facts["time"]["hours"] == [int((times.dt.hour == hour).sum()) for hour in range(24)]
    assert list(facts["time"]["weekdays"].values()) == [int((times.dt.day_of_week == day).sum()) for day in range(7)]
    first = events.groupby("user_id")["timestamp"].min()
    assert sum(facts["time"]["new_users"].values()) == len(first)
    drama = events[events["item_id"] % 4 % 2 == 0]
    listed = {genre["name"]: genre for genre in facts["genres"]["listed"]}
    assert listed["Drama"]["interactions"] == len(drama)
    assert listed["Drama"]["mean_rating"] == pytest.approx(drama["rating"].mean(), rel=1e-6)
    names = [genre["name"] for genre in facts["genres"]["listed"]]
    war, drama_place = names.index("War"), names.index("Drama")
    assert facts["genres"]["together"][war][drama_place] == 1.0
    assert facts["genres"]["together"][drama_place][names.index("Comedy")] == 0.0
    counts_I = explored.sums["item_counts"]
    best = np.sort(counts_I)[::-1]
    assert facts["long_tail"][2]["interactions"] == pytest.approx(best[: round(0.1 * len(best))].sum() / best.sum())
    assert density(prepared, counts_I).sum() == len(events)
    json.dumps(facts, allow_nan=False)


def test_shards_add_up_in_any_order(tmp_path: Path) -> None:
    prepared = prepared_from(tmp_path, *world())
    parts = explore(prepared, lambda fn, blocks, shared, what: [fn(b, shared) for b in reversed(list(blocks))])
    whole = explore(prepared)
    assert {name: count for name, count in parts.counts.items()} == dict(whole.counts)
    assert (
        all(np.allclose(parts.sums[name], array) for name, array in whole.sums.items()) and parts.times == whole.times
    )


def test_many_values_become_bins_that_hold_them_all() -> None:
    values: Counter[float] = Counter(np.round(np.random.default_rng(0).random(5000), 4).tolist())
    bins = histogram(values)
    assert len(bins) == 50 and sum(entry["count"] for entry in bins) == 5000
    assert bucket(np.array([0, 1, 2, 3, 4, 7, 8, 10**9])).tolist() == [0, 0, 1, 1, 2, 2, 3, 11]


def found(symptoms: list[Symptom]) -> dict[str, Symptom]:
    return {symptom.check: symptom for symptom in symptoms}


def examined(folder: Path, events: pd.DataFrame, catalogue: pd.DataFrame, **data: Any) -> dict[str, Symptom]:
    prepared = prepared_from(folder, events, catalogue, **data)
    explored, facts = seen(prepared)
    settings = settings_of(**(_settings(folder) | data))
    return found(examine(prepared, explored, settings, facts))


def test_a_clean_world_has_no_symptom(tmp_path: Path) -> None:
    events, catalogue = world()
    events["rating"] = 1.0
    assert examined(tmp_path, events, catalogue, split={"kind": "temporal"}) == {}


def _with_leak(events: pd.DataFrame, items: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    again = events.assign(timestamp=events["timestamp"] + 500 * DAY)
    data = {"split": {"kind": "temporal", "test_ratio": 0.4}, "filters": {"duplicates": "keep"}}
    return pd.concat([events, again]), items, data


def _with_ties(events: pd.DataFrame, items: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    return events.assign(timestamp=1_600_000_000), items, {"split": {"kind": "leave_last_out"}}


def _random(events: pd.DataFrame, items: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    return events, items, {"split": {"kind": "random", "test_ratio": 0.3}}


def _with_orphans(events: pd.DataFrame, items: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    return events, items[items["item_id"] > 2], {"unknown_items": "drop"}


def _with_twins(events: pd.DataFrame, items: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    return events, items.assign(title=["twin", "twin", *items["title"][2:]]), {}


def _with_collisions(events: pd.DataFrame, items: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    names = events["user_id"].map(lambda user: {0: "Ann", 1: " ann"}.get(user, f"user {user}"))
    return events.assign(user_id=names), items, {}


def _in_the_future(events: pd.DataFrame, items: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    return events.assign(timestamp=events["timestamp"] + 40_000 * DAY), items, {"filters": {"future": "keep"}}


def _long_ago(events: pd.DataFrame, items: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    return events.assign(timestamp=events["timestamp"] - 1_500_000_000), items, {}


@pytest.mark.parametrize(
    ("change", "check", "severity", "words"),
    [
        (_with_leak, "leak", "error", "training has, too"),
        (_with_ties, "ties at the cut", "warning", "100% of the users have equal times"),
        (_random, "look ahead", "note", "older than what training knows"),
        (_with_orphans, "orphans", "note", "that the catalogue does not have"),
        (_with_twins, "duplicates", "note", "'twin' to 0 and 1"),
        (_with_collisions, "id collisions", "warning", "for example 'ann'"),
        (_in_the_future, "times", "error", "in the future"),
        (_long_ago, "times", "warning", "1973"),
        (lambda events, items: (events, items, {}), "ratings", "warning", "lie below 3, the middle"),
    ],
)
def test_each_symptom_is_found_where_it_is(tmp_path: Path, change: Any, check: str, severity: str, words: str) -> None:
    events, catalogue = world()
    events, catalogue, data = change(events, catalogue)
    symptom = examined(tmp_path, events, catalogue, **data)[check]
    assert symptom.severity == severity and words in symptom.found and symptom.cure
    assert "\n" not in str(symptom)


def test_a_robot_and_untimed_rows_are_symptoms(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    few = pd.DataFrame({"user_id": np.arange(200), "item_id": rng.integers(0, 300, 200)})
    robot = pd.DataFrame({"user_id": 999, "item_id": np.arange(300)})
    events = pd.concat([few, robot]).assign(rating=1.0, timestamp=np.arange(500) * DAY + 1_600_000_000)
    events.loc[events["user_id"] < 3, "timestamp"] = 0
    titles = [f"title {item}" for item in range(300)]
    catalogue = pd.DataFrame({"item_id": range(300), "title": titles, "genres": [["Drama"]] * 300})
    symptoms = examined(tmp_path, events, catalogue)
    assert "one user has 300 interactions" in symptoms["crowds"].found
    assert "3 interactions have no time" in symptoms["times"].found


def test_drift_is_seen_and_sameness_is_not(tmp_path: Path) -> None:
    events, catalogue = world()
    _, before = seen(prepared_from(tmp_path / "before", events, catalogue))
    assert drift(before, before) == []
    changed = events.assign(rating=5.0)[events["user_id"] < 20]
    _, after = seen(prepared_from(tmp_path / "after", changed, catalogue))
    words = " ".join(map(str, drift(before, after)))
    assert "users became" in words and "the distribution of ratings changed" in words
    # By hand: shares .5 and .5 against .9 and .1.
    index = stability(Counter(a=50, b=50), Counter(a=90, b=10))
    assert index == pytest.approx(0.4 * np.log(1.8) - 0.4 * np.log(0.2))


def test_posters_that_are_missing_or_belong_to_nobody(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.png", "stray.jpg"):
        (tmp_path / name).write_bytes(b"x")
    catalogue = pd.DataFrame({"item_id": [1, 2, 3], "title": ["a", "b", "c"], "poster": ["1.jpg", "2.png", "3.jpg"]})
    events = pd.DataFrame({"user_id": [1, 1, 1], "item_id": [1, 2, 3]})
    items = rr.Dataset(events, items=catalogue).prepared.items
    symptoms = found(poster_symptoms(items, ImageSettings(root=str(tmp_path))))
    assert "1 of 3 poster files are not there" in symptoms["posters"].found and "3.jpg" in symptoms["posters"].found
    assert "1 image files belong to no item" in symptoms["orphan posters"].found
    assert "stray.jpg" in symptoms["orphan posters"].found
    (tmp_path / "3.jpg").write_bytes(b"x")
    (tmp_path / "stray.jpg").unlink()
    assert poster_symptoms(items, ImageSettings(root=str(tmp_path))) == []


@pytest.mark.slow
def test_the_page_escapes_what_comes_from_data_and_draws_everything(tmp_path: Path) -> None:
    events, catalogue = world()
    catalogue["genres"] = [["<b>Drama</b>"]] * len(catalogue)
    prepared = prepared_from(tmp_path, events, catalogue)
    explored, facts = seen(prepared)
    counts_I = explored.sums["item_counts"]
    symptom = Symptom("note", "check", "<i>found</i>", "cure")
    page = data_page("<name>", facts, counts_I, density(prepared, counts_I), [symptom])
    assert "<b>Drama</b>" not in page and "<i>found</i>" not in page and "<name>" not in page
    assert "&lt;b&gt;Drama&lt;/b&gt;" in page and page.count("<svg") == 10 and "http" not in page.replace("www.w3", "")
    assert page.rstrip().endswith("</html>")
