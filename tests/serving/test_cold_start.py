"""New users: onboarding that can be refreshed, personas that a configuration names."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from recsys_ray.serving import ServingSettings
from tests.rule_worlds import Rules, catalogue, shop
from tests.serving_worlds import client, prepared_world, publish_run

ROWS = {row["item_id"]: row for row in catalogue()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    publish_run(folder, prepared_world(folder, items=400, users=150))
    return folder


def items(service: Any, **params: Any) -> list[dict[str, Any]]:
    answer = service.get("/v1/onboarding/items", params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def mix(found: list[dict[str, Any]]) -> tuple[Counter[Any], Counter[Any]]:
    genres = Counter(genre for item in found for genre in item["genres"])
    return genres, Counter(None if item["year"] is None else item["year"] // 10 for item in found)


def test_a_seed_gives_other_items_of_the_same_mix(world: Path, tmp_path: Path) -> None:
    with client(world, state=str(tmp_path)) as service:
        first, lists = items(service), [items(service, seed=seed) for seed in (1, 2, 3)]
        assert items(service, seed=0) == first and items(service, seed=2) == lists[1]
        random = service.get("/v1/items", params={"n": 15, "offset": 100}).json()["items"]
    ids = [{item["item_id"] for item in found} for found in (first, *lists)]
    assert all(len(found) == 15 for found in ids)
    assert not any(ids[0] & other for other in ids[1:])
    assert len(set().union(*ids)) > 30  # the seeds differ among themselves, too

    def distance(found: list[dict[str, Any]]) -> int:
        return sum(((a - b) + (b - a)).total() for a, b in zip(mix(first), mix(found), strict=True))

    assert max(map(distance, lists)) < distance(random)


def test_personas_are_what_the_configuration_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rules = Rules(tmp_path, shop(tmp_path))
    personas = [
        {"kind": "genre", "genre": "horror", "label": "Night owl"},
        {"kind": "longest"},
        {"kind": "critical", "label": "Hard to please"},
        {"kind": "genre", "genre": "Opera"},
        {"kind": "genre", "genre": 1},
    ]
    with rules.service(rules.plain, personas=personas, demo_users=10) as service, caplog.at_level(logging.WARNING):
        users = service.get("/v1/demo/users").json()["users"]
    assert [user["label"] for user in users][:3] == ["Night owl", "Knows a lot", "Hard to please"]
    assert len(users) == 4 and users[3]["label"].endswith(" fan")
    assert "no genre 'Opera'" in caplog.text
    with rules.service(rules.plain) as service:
        default = [user["label"] for user in service.get("/v1/demo/users").json()["users"]]
    assert len(default) == 4 and default[2:] == ["Knows a lot", "Strict critic"]
    assert all(label.endswith(" fan") for label in default[:2]) and default[0] != default[1]
    with rules.service(rules.plain, demo_users=1) as service:
        assert len(service.get("/v1/demo/users").json()["users"]) == 1
    with rules.service(rules.plain, personas=[]) as service:
        assert service.get("/v1/demo/users").json()["users"] == []


@pytest.mark.parametrize(
    "persona",
    [{"kind": "genre"}, {"kind": "longest", "genre": "Drama"}, {"kind": "genre", "genre": 0}, {"kind": "rich"}],
)
def test_impossible_personas_are_refused(persona: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="personas"):
        ServingSettings.model_validate({"personas": [persona]})
