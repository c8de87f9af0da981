"""Groups that are chosen more at a part of the week rise a little then, in batch, service and Python alike."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

import recsys_ray as rr
from recsys_ray.base.errors import ConfigError
from recsys_ray.base.storage import Location
from recsys_ray.data.config import utc_milliseconds
from recsys_ray.recommend.bundle import Bundle, open_bundle
from recsys_ray.recommend.config import RecommendSettings, TimeOfDaySettings
from recsys_ray.recommend.learned import PARTS, TimeOfDay, parts_of_week, read_time_of_day, shrunk_lifts
from recsys_ray.recommend.moments import at_of, moment_of
from recsys_ray.recommend.options import Options, read_options
from recsys_ray.recommend.rank import rank
from recsys_ray.retrieval import TopK
from recsys_ray.runs.config import GateSettings
from recsys_ray.runs.gate import check_run
from tests.rule_worlds import GENRES, Rules, answers, shop

NIGHT, AFTERNOON = 0, 2
STRONG: dict[str, Any] = {"weight": 1.0, "shrink": 1.0}


@settings(max_examples=100, deadline=None)
@given(
    at=st.integers(0, 4 * 10**12), zone=st.sampled_from(["UTC", "Europe/Vienna", "America/New_York", "Asia/Kolkata"])
)
def test_many_moments_and_one_are_in_the_same_part(at: int, zone: str) -> None:
    local = datetime.fromtimestamp(at / 1000, UTC).astimezone(ZoneInfo(zone))
    expected = local.hour // 6 + 4 * (local.weekday() >= 5)
    one = TimeOfDay(TimeOfDaySettings(timezone=zone), np.zeros((1, PARTS), np.float32))
    assert one.part(at) == expected == parts_of_week(np.array([at]), zone)[0]


COUNTS = st.lists(st.lists(st.integers(0, 50), min_size=PARTS, max_size=PARTS), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None)
@given(counts=COUNTS)
def test_lifts_are_shrunk_towards_as_usual(counts: list[list[int]]) -> None:
    counts_GJ = np.array(counts)
    free, shrunk, frozen = (shrunk_lifts(counts_GJ, shrink) for shrink in (1e-3, 20.0, 1e9))
    assert np.isfinite(free).all()
    assert (np.abs(shrunk) <= np.abs(free) + 1e-6).all() and (free * shrunk >= -1e-9).all()
    assert np.abs(frozen).max() < 1e-5
    doubled = np.outer(counts_GJ.sum(axis=1), np.arange(1, PARTS + 1))  # every group alike in every part
    np.testing.assert_allclose(shrunk_lifts(doubled, 1.0), 0, atol=1e-5)


def test_what_is_learned_is_what_a_loop_counts(bundle: Bundle) -> None:
    found = read_time_of_day(bundle, TimeOfDaySettings(shrink=2.0))
    genres = bundle.items.column("genres").to_pylist()
    counts = {genre: [0] * PARTS for genre in GENRES}
    for shard in range(bundle.num_shards):
        histories = bundle.requests(shard).histories
        for item, time in zip(histories.items_E.tolist(), histories.timestamps_E.tolist(), strict=True):
            moment = datetime.fromtimestamp(time / 1000, UTC)
            for genre in genres[item]:
                counts[genre][moment.hour // 6 + 4 * (moment.weekday() >= 5)] += 1
    total = sum(map(sum, counts.values()))
    columns = [sum(row[part] for row in counts.values()) for part in range(PARTS)]
    lift = {
        (genre, part): np.log((row[part] + 2.0) / (columns[part] * sum(row) / total + 2.0))
        for genre, row in counts.items()
        for part in range(PARTS)
    }
    for item, named in enumerate(genres):
        expected = [np.mean([lift[genre, part] for genre in named]) for part in range(PARTS)]
        np.testing.assert_allclose(found.lifts_IJ[item], expected, rtol=1e-5, atol=1e-6)
    horror = np.array([named == ["Horror"] or "Horror" in named for named in genres])
    assert found.lifts_IJ[horror, NIGHT].mean() > 0.3 > 0 > found.lifts_IJ[~horror, NIGHT].mean()
    again = read_time_of_day(bundle, TimeOfDaySettings(shrink=2.0))  # from the file that the first left
    np.testing.assert_array_equal(again.lifts_IJ, found.lifts_IJ)
    assert (bundle.location / "rules").names()


def test_small_counts_and_no_weight_change_nothing(bundle: Bundle) -> None:
    requests = bundle.requests(0)
    plain = rank(bundle, requests, Options(n=8))
    for changes in ({"shrink": 1e12}, {"weight": 0.0, "shrink": 1.0}):
        asked = RecommendSettings(n=8, at="2026-02-02", time_of_day=TimeOfDaySettings(**changes))  # type: ignore[arg-type]
        options = read_options(bundle, asked)
        found = rank(bundle, requests, Options(n=8, time_of_day=options.time_of_day, moment=options.moment))
        available = rank(bundle, requests, Options(n=8, moment=moment_of(bundle, at_of(asked))))
        np.testing.assert_array_equal(found.rows_BK, available.rows_BK)
        np.testing.assert_array_equal(found.sources_BK, available.sources_BK)
    assert len(plain.rows_BK) == len(requests)


LISTS = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(scores=LISTS, weight=st.floats(0, 1))
def test_a_rise_reorders_and_never_adds(scores: list[float], weight: float) -> None:
    rng = np.random.default_rng(len(scores))
    lifts_IJ = rng.normal(size=(10, PARTS)).astype(np.float32)
    rows_BK = np.append(rng.permutation(10)[: len(scores)], -1).astype(np.int32)[None]
    found = TopK(rows_BK, np.append(np.sort(np.array(scores, np.float32))[::-1], -np.inf).astype(np.float32)[None])
    timed = TimeOfDay(TimeOfDaySettings(weight=weight), lifts_IJ).applied(found, 3)
    assert sorted(timed.rows_BK[0].tolist()) == sorted(rows_BK[0].tolist()) and timed.rows_BK[0, -1] == -1
    assert not (np.diff(timed.scores_BK[0][:-1]) > 0).any()


def horror(rules: Rules, lists: dict[int, list[int]]) -> float:
    genres = {row["item_id"]: row["genres"] for row in rules.prepared.items.to_pylist()}
    return float(np.mean(["Horror" in genres[item] for items in lists.values() for item in items[:3]]))


@pytest.mark.parametrize("model", ["item_cf", "popularity"])
def test_batch_service_and_python_re_weight_alike(tmp_path: Any, model: str) -> None:
    rules = Rules(tmp_path, shop(tmp_path), model)
    found = {}
    for day, hour in (("2026-02-02", 2), ("2026-02-02", 15), ("2026-02-01", 15)):  # a Monday, and the Sunday before
        tag, asked = f"{day[-2:]}x{hour}", STRONG | {"hour": hour, "timezone": "Europe/Vienna"}
        run, lists = rules.batch(tag, at=day, time_of_day=asked)
        found[day, hour] = lists
        recommend = RecommendSettings.model_validate({"n": 8, "at": day, "time_of_day": asked})
        bundle = open_bundle(Location.of(rules.folder) / "models" / f"{model}-{tag}")
        assert check_run(bundle, run, recommend, GateSettings()).facts["users"] == len(lists)
        local = f"{day}T{hour:02}:30:00+01:00"
        with rules.service(run) as service:
            assert answers(service, list(lists), at=local) == lists
            assert answers(service, list(lists), at=utc_milliseconds(local)) == lists
        frame = rr.load(rules.folder / "recommendations" / run.name).recommend(sorted(lists))
        assert {user: rows["item_id"].tolist() for user, rows in frame.groupby("user_id")} == lists
    assert horror(rules, found["2026-02-02", 2]) > horror(rules, found["2026-02-02", 15])
    with rules.service(rules.plain) as service:  # without the setting the hour does nothing
        assert answers(service, [3], at="2026-02-02T02:00:00Z") == answers(service, [3], at="2026-02-02T15:00:00Z")


def test_other_groups_and_what_can_not_be_grouped(bundle: Bundle, tmp_path: Any) -> None:
    by_brand = read_time_of_day(bundle, TimeOfDaySettings(by="brand", shrink=1.0))
    brands = bundle.items.column("brand").to_pylist()
    for brand in {*brands} - {None}:
        rows = [row for row, name in enumerate(brands) if name == brand]
        assert (by_brand.lifts_IJ[rows] == by_brand.lifts_IJ[rows[0]]).all()
    assert not by_brand.lifts_IJ[[row for row, name in enumerate(brands) if name is None]].any()
    with pytest.raises(ConfigError, match=r"time_of_day\.by=price: no such column of texts"):
        read_time_of_day(bundle, TimeOfDaySettings(by="price"))
    with pytest.raises(ValueError, match="'Mars/North' is no time zone"):
        TimeOfDaySettings(timezone="Mars/North")


def test_data_without_times_is_refused_in_one_line() -> None:
    items = pa.table({"item_id": [1, 2], "genres": ["a", "b"]})
    model = rr.Popularity().fit(rr.Dataset(pa.table({"user_id": [1, 2], "item_id": [1, 2]}), items=items))
    for asked in (
        {"time_of_day": {}},
        {"fallback": "trending"},
        {"stages": [{"name": "new", "ratings": 0, "answers": "trending"}]},
    ):
        with pytest.raises(ConfigError, match=r"the data has no times .* set data\.columns\.timestamp"):
            read_options(model.bundle, RecommendSettings.model_validate({"n": 1} | asked))
