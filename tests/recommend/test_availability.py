"""Items come and go at their dates, in batch, service and Python alike; the day of a run is part of what it is."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

import recsys_ray as rr
from recsys_ray.base.errors import ConfigError, DataError, PublishError
from recsys_ray.base.types import FitContext
from recsys_ray.data.availability import Availability
from recsys_ray.data.config import utc_milliseconds
from recsys_ray.recommend import moments
from recsys_ray.recommend.bundle import Bundle, bundle_in_memory
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.recommend.moments import Moment, dated, moment_of
from recsys_ray.recommend.options import Options, read_options
from recsys_ray.recommend.rank import rank
from recsys_ray.runs.config import GateSettings
from recsys_ray.runs.gate import check_run
from tests.data_worlds import prepare_events, write_csv
from tests.rule_worlds import ITEMS, Rules, answers, catalogue, sold

ROWS = catalogue()
DAYS = ("2026-02-01", "2026-03-01", "2026-06-30", "2026-07-01")


LIMITS = st.lists(st.tuples(*[st.one_of(st.none(), st.integers(0, 9))] * 2), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(limits=LIMITS, at=st.integers(-1, 11))
def test_a_span_has_the_items_that_are_available_at_every_moment_of_it(
    limits: list[tuple[int | None, int | None]], at: int
) -> None:
    kind = pa.timestamp("ms", "UTC")
    columns = [pa.array([row[side] for row in limits], kind) for side in (0, 1)]
    found = Availability.of(pa.table(columns, names=["available_from", "available_until"]))
    assert found is not None
    expected = [(start is None or start <= at) and (end is None or at < end) for start, end in limits]
    assert found.mask(found.span(at)).tolist() == expected


@settings(max_examples=30, deadline=None)
@given(at=st.datetimes(datetime.datetime(2026, 1, 1), datetime.datetime(2026, 12, 31)), n=st.integers(1, ITEMS))
def test_no_list_has_an_item_that_is_not_available(bundle: Bundle, at: datetime.datetime, n: int) -> None:
    moment = moment_of(bundle, utc_milliseconds(at.isoformat()))
    ids = bundle.item_ids.to_pylist()
    on_sale = {row["item_id"] for row in ROWS if sold(row, f"{at:%Y-%m-%d}")}
    rows_BK = rank(bundle, bundle.requests(0), Options(n=n, moment=moment)).rows_BK
    assert {ids[row] for row in rows_BK[rows_BK >= 0]} <= on_sale
    popular = rank(bundle, bundle.requests(0), Options(n=ITEMS, moment=moment, filter_seen=False)).rows_BK
    assert all({ids[row] for row in list_K if row >= 0} == on_sale for list_K in popular)


@pytest.mark.parametrize("day", DAYS)
def test_batch_service_and_python_list_what_is_available_that_day(rules: Rules, day: str) -> None:
    run, lists = rules.batch(f"day{DAYS.index(day)}", at=day)
    on_sale = {row["item_id"] for row in ROWS if sold(row, day)}
    assert all(set(items) <= on_sale and items for items in lists.values())
    with rules.service(rules.plain) as service:
        assert answers(service, list(lists), at=day) == lists
        assert answers(service, list(lists), at=f"{day}T23:59:59Z") == lists
        assert answers(service, [3], at=utc_milliseconds(day)) == {3: lists[3]}
        popular = service.get("/v1/popular", params={"n": ITEMS, "at": day}).json()["items"]
        assert {item["item_id"] for item in popular} == on_sale
    model = rr.load(rules.folder / "recommendations" / run.name)
    for frame in (model.recommend(sorted(lists)), rr.load(rules.folder).recommend(sorted(lists), n=8, at=day)):
        assert {user: rows["item_id"].tolist() for user, rows in frame.groupby("user_id")} == lists


def test_the_days_differ(rules: Rules, bundle: Bundle) -> None:
    moments_of_days = {day: moment_of(bundle, utc_milliseconds(day)) for day in DAYS}
    assert moments_of_days["2026-03-01"] == moments_of_days["2026-06-30"]
    assert len(set(moments_of_days.values())) == 3


def test_a_cached_answer_does_not_outlive_what_is_in_it(rules: Rules, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [utc_milliseconds("2026-06-30T23:59:59Z") / 1000]
    monkeypatch.setattr(moments.time, "time", lambda: now[0])
    ending = {row["item_id"] for row in ROWS if row["sold_until"] is not None}
    with rules.service(rules.plain) as service:
        first, again = (service.get("/v1/recommendations/5?n=36").json() for _ in range(2))
        now[0] += 1
        after = service.get("/v1/recommendations/5?n=36").json()
    assert (first["cached"], again["cached"], after["cached"]) == (False, True, False)
    assert {item["item_id"] for item in first["items"]} & ending
    assert not {item["item_id"] for item in after["items"]} & ending


@pytest.mark.parametrize("day", DAYS)
def test_likeness_and_first_questions_name_what_is_available(
    rules: Rules, monkeypatch: pytest.MonkeyPatch, day: str
) -> None:
    monkeypatch.setattr(moments.time, "time", lambda: utc_milliseconds(day) / 1000)
    on_sale = {row["item_id"] for row in ROWS if sold(row, day)}
    with rules.service(rules.plain) as service:
        for path in ("/v1/items/3/similar?n=36", "/v1/onboarding/items?n=36", "/v1/onboarding/items?n=12&seed=5"):
            found = {item["item_id"] for item in service.get(path).json()["items"]}
            assert found and found <= on_sale, path
        assert {item["item_id"] for item in service.get("/v1/onboarding/items?n=36").json()["items"]} == on_sale


def test_the_gate_refuses_a_list_of_another_day(rules: Rules, bundle: Bundle) -> None:
    with pytest.raises(PublishError, match="items that the rules of recommend forbid"):
        check_run(bundle, rules.plain, RecommendSettings(n=8, at="2026-07-01"), GateSettings())


def test_a_run_without_a_moment_gets_its_day_where_a_rule_needs_one(bundle: Bundle) -> None:
    today = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    assert dated(RecommendSettings(), bundle.items).at in (today, f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}")
    assert dated(RecommendSettings(at="2026-01-01"), bundle.items).at == "2026-01-01"
    assert dated(RecommendSettings(), bundle.items.select(["item_id", "count"])).at is None


def test_a_day_on_which_nothing_is_available_is_one_line(tmp_path: Path) -> None:
    items = write_csv(tmp_path / "items.csv", [(1, "2026-05-01"), (2, "2026-05-01")], "item_id,sold_from")
    prepared = prepare_events(
        tmp_path, [(1, 1, 1.0, 5), (2, 2, 1.0, 5)], items=str(items), item_columns={"available_from": "sold_from"}
    )
    found = rr.Popularity().fit_scorer(prepared.train_data(("train",)), FitContext())
    bundle = bundle_in_memory(found, prepared, ("train",), {"model": "popularity"})
    with pytest.raises(ConfigError, match=r"leave no item .* or set recommend\.at to a day"):
        read_options(bundle, RecommendSettings(n=1, at="2026-04-30"))
    assert read_options(bundle, RecommendSettings(n=1, at="2026-05-01")).moment == Moment(1)


FORMS: list[tuple[Any, str]] = [
    (pa.array([datetime.date(2026, 5, 1)]), "2026-05-02T00:00:00+00:00"),
    (pa.array(["2026-05-01"]), "2026-05-02T00:00:00+00:00"),
    (pa.array(["2026-05-01T06:00:00+02:00"]), "2026-05-01T04:00:00+00:00"),
    (pa.array([datetime.datetime(2026, 5, 1, 6)]), "2026-05-01T06:00:00+00:00"),
    (pa.array([1777615200000]).cast(pa.timestamp("ms", "Europe/Vienna")), "2026-05-01T06:00:00+00:00"),
]


@pytest.mark.parametrize("number", range(len(FORMS)))
def test_dates_and_times_of_every_form(number: int) -> None:
    column, expected = FORMS[number]
    items = pa.table({"item_id": [1, 2], "end": pa.concat_arrays([column, pa.nulls(1, column.type)])})
    data = rr.Dataset(pa.table({"user_id": [1], "item_id": [1]}), items=items, item_columns={"available_until": "end"})
    found = [None if row is None else row.isoformat() for row in data.prepared.items["available_until"].to_pylist()]
    assert found == [expected, None]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array(["soon", "2026-05-01"]), "column 'end', row 1: 'soon' is not a date such as"),
        (pa.array([20260501, 1]), "column 'end' must hold dates such as 2026-11-30, found int64"),
    ],
)
def test_what_is_no_date_is_one_line(column: pa.Array, message: str) -> None:
    items = pa.table({"item_id": [1, 2], "end": column})
    with pytest.raises(DataError, match=message):
        _ = rr.Dataset(
            pa.table({"user_id": [1], "item_id": [1]}), items=items, item_columns={"available_until": "end"}
        ).prepared.items


def test_python_asks_in_one_line_for_a_moment(rules: Rules) -> None:
    model = rr.load(rules.folder)
    with pytest.raises(ConfigError, match="at: 'noon' is no ISO date"):
        model.recommend([3], at="noon")
    with pytest.raises(ConfigError, match=r"context\.where\.colour"):
        model.recommend([3], context={"where": {"colour": "red"}})
    with pytest.raises(ConfigError, match=r"context\.yeer"):
        model.recommend([3], context={"yeer": 3})
    np.testing.assert_array_equal(
        model.recommend([3], context={"any_genres": ["Drama"]}, allow=[1, 2, 3, 4, 5, 6, 7, 8], n=3)["user_id"], 3
    )
