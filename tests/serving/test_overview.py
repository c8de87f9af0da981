"""What pages ask for beyond the lists: histories, descriptions, an operator's overview; and the pages themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from recsys_ray.base.storage import Location
from recsys_ray.data.prepared import Prepared
from recsys_ray.serving.http import response_models as schemas
from recsys_ray.serving.http.auth import new_key
from recsys_ray.serving.http.overview_models import Overview
from recsys_ray.serving.http.pages import PAGES, pages
from recsys_ray.serving.overview import route_loads
from tests.data_worlds import histories as read_histories
from tests.serving_worlds import client, run_ids, two_runs


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_runs(tmp_path_factory.mktemp("world"))


@pytest.fixture
def service(world: Path, tmp_path: Path) -> Any:
    with client(world, state=str(tmp_path)) as opened:
        yield opened


def test_a_page_loads_only_what_is_served_here_and_has_a_policy() -> None:
    found = pages()
    for path in PAGES:
        html = found[path].body.decode()
        for name in re.findall(r'(?:src|href)="(/page/[^"]+)"', html):
            assert name in found, f"{path} loads {name}"
        assert not re.search(r'(src|href)="(https?:)?//', html) and "style=" not in html and "<style" not in html
    scripts = [found[path].body.decode() for path in found if path.endswith(".js") and "swagger" not in path]
    for name in (name for script in scripts for name in re.findall(r'from "\./([^"]+)"', script)):
        assert f"/page/{name}" in found
    assert all(b"default-src 'self'" in one.headers[b"content-security-policy"] for one in found.values())
    assert {b"text/html; charset=utf-8", b"text/css; charset=utf-8"} < {one.content_type for one in found.values()}


@pytest.mark.parametrize(
    ("posters", "images"),
    [
        ([None, "data:image/png;base64,AA", "posters/1.png"], "'self' data:"),
        (["https://a.example/1.png", "http://b.example:81/2"], "'self' data: http://b.example:81 https://a.example"),
        (["https://a.example; script-src *"], "'self' data: https:"),
        ([f"https://{host}.example/" for host in range(11)], "'self' data: https: http:"),
    ],
)
def test_pages_load_images_of_strangers_only_where_posters_are(
    world: Path, tmp_path: Path, posters: list[str | None], images: str
) -> None:
    with client(world, state=str(tmp_path)) as service:
        application: Any = service.app
        catalogue = application.service.runs.current("default").catalogue
        catalogue.posters = posters + [None] * (len(catalogue) - len(posters))
        del catalogue.poster_origins  # of the catalogue as it was
        for path in PAGES:
            rules = service.get(path).headers["content-security-policy"].split("; ")
            assert f"img-src {images}" in rules and rules[0] == "default-src 'self'"


def test_pages_are_sent_small_to_those_who_take_them_so(service: Any) -> None:
    for path in ("/docs", "/page/swagger/swagger-ui-bundle.js", "/openapi.json"):
        plain = service.get(path, headers={"accept-encoding": "identity"})
        small = service.get(path, headers={"accept-encoding": "gzip, br"})
        assert "content-encoding" not in plain.headers and small.headers["content-encoding"] == "gzip"
        assert plain.content == small.content and len(plain.content) == int(plain.headers["content-length"])
        assert int(small.headers["content-length"]) < len(plain.content)


def test_a_history_is_what_was_prepared_newest_first_with_what_was_sent_since(world: Path, service: Any) -> None:
    prepared = Prepared.open(Location.of(world) / "prepared" / "world")
    user, events = next((user, had) for user, had in read_histories(prepared).items() if len(had) > 3)
    had = [item for item, part in events if part == "train"]
    answer = service.get(f"/v1/users/{user}/history", params={"n": 100})
    found = schemas.UserHistory.model_validate_json(answer.content)
    assert [item.item_id for item in found.items] == had[::-1]
    times = [item.timestamp or 0 for item in found.items]
    assert times == sorted(times, reverse=True) and found.history == len(had) and found.user == "known"
    assert service.get(f"/v1/users/{user}/history", params={"n": 2, "offset": 1}).json()["items"] == [
        item.model_dump() for item in found.items[1:3]
    ]
    new = next(item for item in range(1, 80) if item not in {one.item_id for one in found.items})
    service.post("/v1/feedback", json={"events": [{"user_id": str(user), "item_id": new, "rating": 5.0}]})
    after = service.get(f"/v1/users/{user}/history").json()
    assert after["items"][0]["item_id"] == new and after["user"] == "updated"
    assert service.get("/v1/users/nobody/history").json()["items"] == []


def test_what_is_only_seen_leaves_the_list_and_the_history_as_it_is(service: Any) -> None:
    before = service.get("/v1/recommendations/1").json()
    event = {"user_id": "1", "item_id": before["items"][0]["item_id"], "kind": "seen"}
    assert service.post("/v1/feedback", json={"events": [event]}).status_code == 200
    after = service.get("/v1/recommendations/1").json()
    assert [item["item_id"] for item in after["items"][:-1]] == [item["item_id"] for item in before["items"][1:]]
    assert after["history"] == before["history"]
    assert service.post("/v1/feedback", json={"events": [event | {"rating": 5.0}]}).status_code == 422


def test_an_item_is_described(service: Any) -> None:
    found = schemas.DescribedItems.model_validate_json(service.get("/v1/items/1").content).items[0]
    assert found.text and found.interactions > 0


def test_the_overview_is_for_admins_and_tells_runs_variants_and_load(world: Path, tmp_path: Path) -> None:
    (reader, one), (admin, other) = new_key(), new_key()
    keys = [{"name": "reader", "sha256": one}, {"name": "admin", "sha256": other, "role": "admin"}]
    old, new = run_ids(world)
    variants = [{"name": "a", "run": old}, {"name": "b", "weight": 3}]
    with client(world, state=str(tmp_path), keys=keys, variants=variants) as service:
        assert service.get("/v1/overview").status_code == 401
        assert service.get("/v1/overview", headers={"X-API-Key": reader}).status_code == 403
        headers = {"X-API-Key": admin}
        for user in ("1", "2", "1"):
            assert service.get(f"/v1/recommendations/{user}", headers=headers).status_code == 200
        found = Overview.model_validate_json(service.get("/v1/overview", headers=headers).content)
        _matches(found, service, old, new)


def _matches(found: Overview, service: TestClient, old: str, new: str) -> None:
    assert [run.run_id for run in found.runs] == [new, old]
    assert [run.latest for run in found.runs] == [True, False]
    assert [run.answers_for for run in found.runs] == [["b"], ["a"]]
    assert found.runs[0].metrics == {"ndcg@10": 0.5}
    assert found.load.answers == 3 and found.load.cache_hits == 1 and found.load.cache_misses == 2
    assert sum(found.load.by_variant.values()) == 3
    route = next(one for one in found.routes if one.route == "/v1/recommendations/{user_id}")
    assert route.requests == sum(route.counts) == 3 and route.errors == 0
    assert len(route.counts) == len(route.seconds) + 1
    assert found.experiment is None and found.experiment_note and len(found.replicas) == 1


def test_without_a_second_variant_there_is_no_experiment(world: Path, tmp_path: Path) -> None:
    key, digest = new_key()
    keys = [{"name": "admin", "sha256": digest, "role": "admin"}]
    with client(world, state=str(tmp_path), keys=keys) as service:
        found = service.get("/v1/overview", headers={"X-API-Key": key}).json()
    assert "serving.variants" in found["experiment_note"]


def test_loads_of_replicas_add_up_and_buckets_are_not_cumulative() -> None:
    def facts(ok: int, failed: int, below: list[int]) -> dict[str, Any]:
        bounds = ["0.1", "1.0", "+Inf"]
        counts = [["recsys_requests_total", {"route": "/a", "status": "200"}, ok]]
        counts.append(["recsys_requests_total", {"route": "/a", "status": "503"}, failed])
        buckets = [
            ["recsys_request_seconds_bucket", {"route": "/a", "le": le}, n] for le, n in zip(bounds, below, strict=True)
        ]
        return {"metrics": [["r", "", "counter", counts], ["s", "", "histogram", buckets]]}

    [route] = route_loads([facts(3, 1, [2, 3, 4]), facts(1, 0, [0, 0, 1])])
    assert route == {"route": "/a", "requests": 5, "errors": 1, "seconds": [0.1, 1.0], "counts": [2, 1, 2]}
