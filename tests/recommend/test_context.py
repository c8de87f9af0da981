"""Filters by genre, year and column: what passes is what a loop over the catalogue says, in batch and online alike."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from recsys_ray.base.errors import ConfigError
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.recommend.config import ContextSettings, RecommendSettings
from recsys_ray.recommend.context import context_mask
from recsys_ray.recommend.options import read_options
from tests.rule_worlds import AT, BRANDS, GENRES, Rules, answers, catalogue, sold

ROWS = catalogue()


def bounded(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return value in wanted
    if not isinstance(wanted, dict):
        return bool(value == wanted)
    if ("min" in wanted or "max" in wanted) and value is None:
        return False
    return (
        ("min" not in wanted or value >= wanted["min"])
        and ("max" not in wanted or value <= wanted["max"])
        and ("any" not in wanted or value in wanted["any"])
        and ("none" not in wanted or value not in wanted["none"])
    )


def passes(row: dict[str, Any], context: dict[str, Any]) -> bool:
    """The rule in plain words, an item at a time."""
    genres = {genre.casefold() for genre in row["genres"]}
    named = {key: {genre.casefold() for genre in context.get(f"{key}_genres", [])} for key in ("any", "all", "no")}
    year = row["year"]
    return (
        (not named["any"] or bool(named["any"] & genres))
        and named["all"] <= genres
        and not named["no"] & genres
        and ("year_from" not in context or (year is not None and year >= context["year_from"]))
        and ("year_to" not in context or (year is not None and year <= context["year_to"]))
        and all(bounded(row[name], wanted) for name, wanted in context.get("where", {}).items())
    )


CONTEXTS = st.fixed_dictionaries(
    {},
    optional={
        "any_genres": st.lists(st.sampled_from([*GENRES, "aCtion"]), max_size=3),
        "all_genres": st.lists(st.sampled_from([*GENRES, "DRAMA"]), max_size=2),
        "no_genres": st.lists(st.sampled_from(GENRES), max_size=2),
        "year_from": st.integers(1975, 2000),
        "year_to": st.integers(2000, 2025),
        "where": st.fixed_dictionaries(
            {},
            optional={
                "price": st.one_of(
                    st.fixed_dictionaries({"min": st.integers(0, 30)}),
                    st.fixed_dictionaries({"max": st.floats(5, 60), "none": st.lists(st.integers(1, 60), min_size=1)}),
                    st.lists(st.integers(1, 60), min_size=1),
                ),
                "brand": st.one_of(
                    st.sampled_from(BRANDS[:3]),
                    st.lists(st.sampled_from([*BRANDS[:3], "unheard of"]), min_size=1),
                    st.fixed_dictionaries({"none": st.lists(st.sampled_from(BRANDS[:3]), min_size=1)}),
                ),
                "year": st.one_of(st.lists(st.sampled_from([1990, 2001.5, 10**12]), min_size=1)),
            },
        ),
    },
)


@settings(max_examples=200, deadline=None)
@given(context=CONTEXTS)
def test_what_passes_is_what_a_loop_over_the_catalogue_says(bundle: Bundle, context: dict[str, Any]) -> None:
    found = context_mask(bundle, ContextSettings.model_validate(context))
    rows = {row["item_id"]: row for row in ROWS}
    expected = [passes(rows[item], context) for item in bundle.item_ids.to_pylist()]
    np.testing.assert_array_equal(found, expected)


AGREEING: list[dict[str, Any]] = [
    {"any_genres": ["action", "Drama"]},
    {"all_genres": ["Comedy", "DRAMA"], "no_genres": ["Horror"]},
    {"year_from": 1990, "year_to": 2010},
    {"where": {"price": {"max": 20}, "brand": ["acme", "bolt"]}},
    {"where": {"brand": {"none": ["core"]}}, "year_from": 1985, "any_genres": ["Sci-Fi", "Horror", "Action"]},
]


@pytest.mark.parametrize("number", range(len(AGREEING)))
def test_batch_and_service_filter_alike(rules: Rules, number: int) -> None:
    context = AGREEING[number]
    run, lists = rules.batch(f"context{number}", context=context)
    allowed = {row["item_id"] for row in ROWS if passes(row, context) and sold(row)}
    assert any(lists.values()) and all(set(items) <= allowed for items in lists.values())
    query = {key: ",".join(value) if isinstance(value, list) else value for key, value in context.items()}
    query = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in query.items()}
    users = list(lists)
    with rules.service(rules.plain) as service:
        assert answers(service, users, **query) == lists
        many = service.post("/v1/recommendations", json={"user_ids": users, "n": 8, "at": AT} | context).json()[
            "results"
        ]
        assert {one["user_id"]: [item["item_id"] for item in one["items"]] for one in many} == lists
        popular = service.get("/v1/popular", params={"n": 50, "at": AT} | query).json()["items"]
        assert {item["item_id"] for item in popular} == allowed
    with rules.service(run) as service:  # the run's own filters hold beside those of a request
        assert answers(service, users) == lists


REFUSED = [
    ({"any_genres": ["Opera"]}, r"any_genres: the catalogue has no genre 'Opera'; it has Action, "),
    ({"where": {"colour": "red"}}, r"where\.colour: the item table has no such column .*brand"),
    ({"where": {"genres": "Action"}}, r"where\.genres: .*any_genres"),
    ({"where": {"brand": {"max": 3}}}, r"where\.brand: min and max need a column of numbers"),
    ({"where": {"brand": [3]}}, r"where\.brand: the column holds texts; give texts"),
    ({"where": {"price": ["cheap"]}}, r"where\.price: the column holds numbers; give numbers"),
]


@pytest.mark.parametrize(("context", "message"), REFUSED)
def test_what_the_catalogue_has_not_is_one_line_in_batch_and_online(
    rules: Rules, bundle: Bundle, context: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=r"recommend\.context\." + message) as caught:
        read_options(bundle, RecommendSettings.model_validate({"n": 3, "context": context}))
    assert "\n" not in str(caught.value)
    with rules.service(rules.plain) as service:
        answer = service.post("/v1/recommendations", json={"user_id": 3} | context)
        assert answer.status_code == 422
        assert str(caught.value).replace("recommend.context.", "") == answer.json()["error"]


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"year_from": 2000, "year_to": 1990}, "year_from"),
        ({"where": {"price": {"min": 5, "max": 2}}}, "min=5 is above max=2"),
        ({"where": {"price": {}}}, "bounds nothing"),
        ({"where": {"price": {"at_most": 2}}}, "at_most"),
        ({"where": {"a\nb" * 60: {"at_most": 2}}}, "where"),
    ],
)
def test_impossible_filters_are_refused_before_anything_is_read(
    rules: Rules, context: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ContextSettings.model_validate(context)
    with rules.service(rules.plain) as service:
        for answer in (
            service.post("/v1/recommendations", json={"user_id": 3} | context),
            service.get("/v1/recommendations/3", params={k: json.dumps(v) for k, v in context.items()}),
        ):
            error = answer.json()["error"]
            assert answer.status_code == 422 and message in error and "\n" not in error and len(error) < 200
        assert service.get("/v1/recommendations/3?where=nonsense").status_code == 422


def test_filters_that_leave_nothing_say_so(rules: Rules, bundle: Bundle) -> None:
    nothing: dict[str, Any] = {"where": {"price": {"min": 1000}}}
    with pytest.raises(ConfigError, match=r"recommend\.context, .*leave no item to recommend; loosen"):
        read_options(bundle, RecommendSettings.model_validate({"n": 3, "context": nothing}))
    with rules.service(rules.plain) as service:
        answer = service.post("/v1/recommendations", json={"user_id": 3} | nothing).json()
        assert (answer["items"], answer["source"]) == ([], "none")
        assert answer["message"] == "the filters leave no item of the catalogue; loosen one of them"
        assert service.get("/v1/recommendations/3").json()["message"] is None


def test_kept_texts_and_availability_are_in_the_item_table(rules: Rules) -> None:
    items = rules.prepared.items.to_pylist()
    assert {row["item_id"]: row["brand"] for row in items} == {row["item_id"]: row["brand"] for row in ROWS}
    moments = {row["item_id"]: (row["available_from"], row["available_until"]) for row in items}
    for row in ROWS:
        start, end = moments[row["item_id"]]
        assert (None if start is None else start.isoformat()) == (row["sold_from"] and "2026-03-01T00:00:00+00:00")
        assert (None if end is None else end.isoformat()) == (row["sold_until"] and "2026-07-01T00:00:00+00:00")
