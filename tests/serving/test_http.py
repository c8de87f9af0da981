"""The service over HTTP, without Ray: every call, every kind of user, every refusal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel
from starlette.testclient import TestClient

from recsys_ray.base.storage import Location
from recsys_ray.serving.http import response_models as schemas
from recsys_ray.serving.http.auth import new_key
from tests.data_worlds import histories as read_histories
from tests.data_worlds import prepare_events, prepare_values
from tests.serving_worlds import client, counted, prepared_world, publish_run, published_rows


@pytest.fixture
def service(world: Path, tmp_path: Path) -> Any:
    with client(world, state=str(tmp_path)) as opened:
        yield opened


def get(service: TestClient, path: str, model: type[BaseModel], **params: Any) -> dict[str, Any]:
    answer = service.get(path, params=params)
    assert answer.status_code == 200, answer.text
    model.model_validate_json(answer.content)
    found: dict[str, Any] = answer.json()
    return found


def post(service: TestClient, path: str, model: type[BaseModel], body: Any) -> dict[str, Any]:
    answer = service.post(path, json=body)
    assert answer.status_code == 200, answer.text
    model.model_validate_json(answer.content)
    found: dict[str, Any] = answer.json()
    return found


def ids(answer: dict[str, Any]) -> list[Any]:
    return [item["item_id"] for item in answer["items"]]


def recommendations(service: TestClient, user: Any, **params: Any) -> dict[str, Any]:
    return get(service, f"/v1/recommendations/{user}", schemas.Recommendations, **params)


def histories(world: Path) -> dict[int, list[int]]:
    """User id -> item ids, as the fit saw them."""
    folder = world / "models" / "item_cf-a"
    items = pq.ParquetFile(folder / "items.parquet").read(["item_id"]).column("item_id").to_pylist()
    parts = [pq.ParquetFile(file).read() for file in sorted((world / "prepared" / "world" / "users").iterdir())]
    rows = pa.concat_tables(parts).to_pylist()
    return {row["user_id"]: [items[item] for item in row["items"]] for row in rows}


def test_paging_continues_the_list(service: TestClient) -> None:
    whole = recommendations(service, 5, n=9)
    parts = [recommendations(service, 5, n=3, offset=offset) for offset in (0, 3, 6)]
    assert [item for part in parts for item in ids(part)] == ids(whole)
    assert [item["rank"] for item in parts[1]["items"]] == [4, 5, 6]


def test_an_unknown_user_gets_the_fallback_and_its_name(service: TestClient) -> None:
    answer = recommendations(service, "nobody/ever 🎬")
    popular = get(service, "/v1/popular", schemas.PopularItems)
    assert (answer["user"], answer["source"], answer["stage"]) == ("unknown", "fallback:popularity", "trending")
    assert ids(answer) == ids(popular)


def test_genre_allow_and_deny_bound_what_is_recommended(service: TestClient, world: Path) -> None:
    genre = get(service, "/info", schemas.Info)["genres"][0]
    answer = recommendations(service, 5, genre=genre.upper(), n=5)
    assert answer["items"] and all(genre in item["genres"] for item in answer["items"])
    free = ids(recommendations(service, 5))
    body = {"user_id": 5, "allow": free[:4], "deny": [free[1], "never heard of"]}
    bounded = post(service, "/v1/recommendations", schemas.Recommendations, body)
    assert ids(bounded) == [free[0], free[2], free[3]]
    nothing = {"user_id": 5, "allow": ["never heard of"]}
    assert post(service, "/v1/recommendations", schemas.Recommendations, nothing)["source"] == "none"


def test_seen_items_are_left_out_unless_asked_for(service: TestClient, world: Path) -> None:
    user, items = next((user, items) for user, items in histories(world).items() if len(items) > 5)
    assert not set(ids(recommendations(service, user, n=60))) & set(items)
    assert set(ids(recommendations(service, user, n=80, exclude_seen=False))) >= set(items)


def test_a_history_without_a_user_is_answered_like_the_user_who_has_it(service: TestClient, world: Path) -> None:
    user, items = next((user, items) for user, items in histories(world).items() if len(items) > 5)
    body = {"history": [{"item_id": item} for item in items] + [{"item_id": "unheard of"}], "n": 7}
    answer = post(service, "/v1/recommendations", schemas.Recommendations, body)
    assert ids(answer) == ids(recommendations(service, user, n=7))
    assert (answer["user_id"], answer["user"], answer["ignored"]) == (None, "new", 1)


def test_feedback_counts_in_the_next_answer_and_becomes_a_file(world: Path, tmp_path: Path) -> None:
    with client(world, state=str(tmp_path), feedback={"unknown_items": "keep"}) as service:
        before = recommendations(service, 7)
        events = [
            {"user_id": 7, "item_id": before["items"][0]["item_id"], "rating": 5.0},
            {"user_id": "7", "item_id": 999},
        ]
        taken = post(service, "/v1/feedback", schemas.FeedbackAnswer, {"events": events})
        assert (taken["accepted"], taken["unknown_items"]) == (2, 1)
        after = recommendations(service, 7)
        assert (after["user"], after["history"], after["cached"]) == ("updated", before["history"] + 1, False)
        assert ids(after)[0] != ids(before)[0] and before["items"][0]["item_id"] not in ids(after)
        assert ids(recommendations(service, 8)) == published_ids(world, 8)
    files = sorted((world / "feedback").iterdir())
    rows = pa.concat_tables([pq.ParquetFile(file).read() for file in files]).to_pylist()
    assert {(row["user_id"], row["item_id"], row["rating"]) for row in rows} >= {
        (7, ids(before)[0], 5.0),
        (7, 999, 1.0),
    }
    assert all(abs(row["timestamp"] - time.time() * 1000) < 60_000 for row in rows)
    with client(world, state=str(tmp_path), feedback={"unknown_items": "keep"}) as service:
        # Another process finds what the first one took.
        assert ids(recommendations(service, 7)) == ids(after)
    assert sorted((world / "feedback").iterdir()) == files  # nothing is written twice


def test_the_next_batch_run_reads_feedback_as_interactions(world: Path, tmp_path: Path) -> None:
    with client(world, state=str(tmp_path)) as service:
        events = [
            {"user_id": user, "item_id": item, "rating": 4.0, "timestamp": 10**12}
            for user in (500, 501)
            for item in (1, 2)
        ]
        post(service, "/v1/feedback", schemas.FeedbackAnswer, {"events": events})
    columns = {name: name for name in ("user_id", "item_id", "rating", "timestamp")}
    read = prepare_values(tmp_path / "next", source="table", path=str(world / "feedback"), columns=columns)
    mine = {user: items for user, items in read_histories(read).items() if user >= 500}
    assert mine == {500: [(1, "train"), (2, "train")], 501: [(1, "train"), (2, "train")]}


def test_an_output_directory_may_be_moved(tmp_path: Path) -> None:
    publish_run(tmp_path / "made", prepared_world(tmp_path / "made"))
    (tmp_path / "made").rename(tmp_path / "moved")
    with client(tmp_path / "moved") as service:
        assert recommendations(service, 5)["user"] == "known"


def published_ids(world: Path, user: int) -> list[int]:
    run = Location.of(world) / "recommendations" / (world / "recommendations" / "LATEST").read_text().strip()
    return [row["item_id"] for row in published_rows(run)[user]]


def test_answers_come_from_the_cache_until_the_user_or_the_question_changes(service: TestClient) -> None:
    first = recommendations(service, 9)
    again = recommendations(service, 9)
    assert (first["cached"], again["cached"]) == (False, True)
    assert first["items"] == again["items"]
    assert recommendations(service, 9, n=3)["cached"] is False
    service.post("/v1/feedback", json={"events": [{"user_id": 9, "item_id": ids(first)[0]}]})
    assert recommendations(service, 9)["cached"] is False
    assert get(service, "/info", schemas.Info)["cache"]["hit_rate"] == pytest.approx(1 / 4)


def test_onboarding_makes_a_temporary_user_with_recommendations(service: TestClient, world: Path) -> None:
    offered = get(service, "/v1/onboarding/items", schemas.OnboardingItems)
    assert len(set(ids(offered))) == 15
    assert len({genre for item in offered["items"] for genre in item["genres"]}) > 5
    liked = [{"item_id": item, "rating": 5.0} for item in ids(offered)[:10]]
    answer = post(service, "/v1/onboarding/ratings", schemas.OnboardingAnswer, {"ratings": liked, "n": 4})
    assert answer["strength"] == {"ratings": 10, "level": "good", "value": 0.5}
    assert answer["recommendations"]["user"] == "new" and answer["recommendations"]["stage"] == "full"
    assert answer["expires_at"] == pytest.approx((time.time() + 24 * 3600) * 1000, abs=60_000)
    later = recommendations(service, answer["user_id"], n=4)
    assert ids(later) == ids(answer["recommendations"]) and not set(ids(later)) & set(ids(offered)[:10])
    few = service.post("/v1/onboarding/ratings", json={"ratings": liked[:4] + liked[:1]})
    assert few.status_code == 422 and "at least 5" in few.json()["error"]


def test_temporary_users_are_forgotten_and_never_exported(world: Path, tmp_path: Path) -> None:
    with client(world, state=str(tmp_path), onboarding={"hours": 1e-4}) as service:
        before = set((world / "feedback").glob("*"))
        ratings = [{"item_id": item} for item in ids(get(service, "/v1/onboarding/items", schemas.OnboardingItems))]
        user = post(service, "/v1/onboarding/ratings", schemas.OnboardingAnswer, {"ratings": ratings})["user_id"]
        time.sleep(0.4)
        assert recommendations(service, user)["user"] == "unknown"
    assert set((world / "feedback").glob("*")) == before


def test_similar_search_item_and_demo_users(service: TestClient) -> None:
    found = get(service, "/v1/items", schemas.Items, search="", n=3)
    assert ids(found) == ids(get(service, "/v1/popular", schemas.PopularItems, n=3))
    title = found["items"][0]["title"]
    assert ids(found)[0] in ids(get(service, "/v1/items", schemas.Items, search=title.upper(), n=50))
    assert ids(get(service, f"/v1/items/{ids(found)[1]}", schemas.DescribedItems)) == ids(found)[1:2]
    similar = get(service, f"/v1/items/{ids(found)[0]}/similar", schemas.SimilarItems, n=5)
    assert len(similar["items"]) == 5 and ids(found)[0] not in ids(similar)
    users = get(service, "/v1/demo/users", schemas.DemoUsers)["users"]
    assert len(users) == 4 == len({user["user_id"] for user in users})
    assert recommendations(service, users[0]["user_id"])["user"] == "known"


def test_health_info_and_metrics(service: TestClient) -> None:
    recommendations(service, 3)
    assert get(service, "/health/live", schemas.Health)["status"] == "live"
    assert get(service, "/health/ready", schemas.Health)["status"] == "ready"
    info = get(service, "/info", schemas.Info)
    assert (info["users"], info["items"], info["evaluation"]) == (200, 80, {"ndcg@10": 0.5})
    assert counted(service, "recsys_requests_total", route="/v1/recommendations/{user_id}", status="200") == 1
    labels = {"cached": "false", "model": "item_cf", "source": "model", "variant": "default"}
    assert counted(service, "recsys_answers_total", **labels) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/recommendations/5?n=0", None, 422),
        ("GET", "/v1/recommendations/5?n=ten", None, 422),
        ("GET", "/v1/recommendations/5?n=5&n=6", None, 422),
        ("GET", "/v1/recommendations/5?nn=5", None, 422),
        ("GET", "/v1/recommendations/5?n=900&offset=900", None, 422),
        ("GET", "/v1/recommendations/5?genre=nonsense", None, 422),
        ("GET", "/v1/recommendations/5?variant=nonsense", None, 422),
        ("GET", "/v1/recommendations/%ff", None, 400),
        ("GET", "/v1/recommendations/5?genre=%ff", None, 400),
        ("GET", f"/v1/recommendations/{'x' * 600}", None, 422),
        ("GET", "/v1/recommendations/", None, 404),
        ("GET", "/v1/items/nothing", None, 404),
        ("GET", "/v1/items/nothing/similar", None, 404),
        ("GET", "/v1/items/1/poster", None, 404),
        ("GET", "/../../etc/passwd", None, 404),
        ("GET", "/page/..%2f..%2fsettings.py", None, 404),
        ("DELETE", "/v1/recommendations/5", None, 405),
        ("POST", "/", {}, 405),
        ("POST", "/v1/recommendations", {}, 422),
        ("POST", "/v1/recommendations", {"user_id": 5, "history": []}, 422),
        ("POST", "/v1/recommendations", {"user_ids": []}, 422),
        ("POST", "/v1/recommendations", {"user_ids": [1] * 201}, 422),
        ("POST", "/v1/recommendations", {"user_id": 1.5}, 422),
        ("POST", "/v1/recommendations", {"user_id": 5, "context": {"hour": 20}}, 422),
        ("POST", "/v1/recommendations", {"history": [{"item_id": 1, "rating": 1e300}]}, 422),
        ("POST", "/v1/recommendations", {"user_id": "x" * 400_000}, 422),
        ("POST", "/v1/recommendations", {"user_id": "x" * 600_000}, 413),
        ("POST", "/v1/feedback", {"events": []}, 422),
        ("POST", "/v1/feedback", {"events": [{"user_id": "not a number", "item_id": 1}]}, 422),
        ("POST", "/v1/feedback", {"events": [{"user_id": 1, "item_id": "not a number"}]}, 422),
        ("POST", "/v1/models/activate", {}, 403),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(
    service: TestClient, method: str, path: str, body: Any, status: int
) -> None:
    answer = service.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    error = schemas.Error.model_validate_json(answer.content)
    assert error.status == status and "\n" not in error.error and len(error.error) < 200
    assert "Traceback" not in answer.text and str(Path.cwd()) not in answer.text


def test_a_body_that_is_not_json_is_refused(service: TestClient) -> None:
    for content in (b"", b"{", b"\xff", b'{"user_id": "\\ud800"}', b"[" * 10_000):
        declared = {"content-type": "application/json; charset=utf-8"}
        assert service.post("/v1/recommendations", content=content, headers=declared).status_code == 422


def test_a_page_elsewhere_can_not_send_feedback_without_being_asked_for_leave(service: TestClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        sent = service.post("/v1/feedback", content=b'{"events": []}', headers={"content-type": kind})
        assert sent.status_code == 415
    assert service.options("/v1/feedback", headers={"origin": "https://else.example"}).status_code == 405


def test_a_context_varies_the_list(service: TestClient) -> None:
    plain = ids(recommendations(service, 5, n=8))
    for context, changes in (
        ({}, False),
        ({"diversity": 0.0}, False),
        ({"diversity": 0.9}, True),
        ({"max_per_genre": 1}, True),
    ):
        body = {"user_id": 5, "n": 8, "context": context}
        varied = post(service, "/v1/recommendations", schemas.Recommendations, body)
        assert (ids(varied) != plain) == changes
    genres = [genre for item in varied["items"] for genre in item["genres"]]
    assert len(genres) == len(set(genres))


STRANGE = ["a/b", "a", "../../etc", "%2F", "søren ☃/日本", "a?b#c", "x/similar", "poster", " "]


def test_ids_may_hold_slashes_and_any_unicode(tmp_path: Path) -> None:
    events = [(user, item, 1.0, 100 + at) for user in STRANGE for at, item in enumerate(STRANGE) if user != item]
    prepared = prepare_events(tmp_path, [(f'"{user}"', f'"{item}"', *rest) for user, item, *rest in events])
    published = published_rows(publish_run(tmp_path, prepared, n=2))
    assert set(published) == set(STRANGE)
    with client(tmp_path) as service:
        for name in STRANGE:
            answer = recommendations(service, quote(name, safe=""), n=2)
            assert (answer["user_id"], answer["user"]) == (name, "known")
            assert ids(answer) == [row["item_id"] for row in published[name]]
            assert ids(get(service, f"/v1/items/{quote(name, safe='')}", schemas.DescribedItems)) == [name]
            similar = get(service, f"/v1/items/{quote(name, safe='')}/similar", schemas.SimilarItems)
            assert similar["item"]["item_id"] == name and similar["items"]


def test_keys_guard_everything_but_health_and_admin_calls_need_an_admin(world: Path, tmp_path: Path) -> None:
    (reader, read_digest), (admin, admin_digest) = new_key(), new_key()
    keys = [
        {"name": "page", "sha256": read_digest},
        {"name": "ops", "role": "admin", "sha256": admin_digest},
    ]
    with client(world, state=str(tmp_path), keys=keys) as service:
        assert service.get("/health/live").status_code == 200
        for headers, reading, switching in (
            ({}, 401, 401),
            ({"X-API-Key": "guess"}, 401, 401),
            ({"Authorization": f"Basic {reader}"}, 401, 401),
            ({"X-API-Key": reader}, 200, 403),
            ({"Authorization": f"Bearer {admin}"}, 200, 200),
        ):
            assert service.get("/v1/recommendations/5", headers=headers).status_code == reading
            assert service.get("/metrics", headers=headers).status_code == reading
            assert service.post("/v1/models/activate", json={}, headers=headers).status_code == switching


def test_other_origins_may_call_only_when_they_are_named(world: Path, tmp_path: Path) -> None:
    origin = {"Origin": "https://shop.example"}
    with client(world, state=str(tmp_path / "a")) as service:
        assert "access-control-allow-origin" not in service.get("/v1/popular", headers=origin).headers
    with client(world, state=str(tmp_path / "b"), cors_origins=[origin["Origin"]]) as service:
        assert service.get("/v1/popular", headers=origin).headers["access-control-allow-origin"] == origin["Origin"]
        other = service.get("/v1/popular", headers={"Origin": "https://else.example"})
        assert "access-control-allow-origin" not in other.headers


def test_the_page_and_the_description_are_served(service: TestClient) -> None:
    for path, kind in (("/", "text/html"), ("/page/page.js", "text/javascript"), ("/page/page.css", "text/css")):
        answer = service.get(path)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
    assert "script-src" not in service.get("/").headers["content-security-policy"]  # so default-src holds: own only
    head = service.head("/v1/popular")
    assert head.status_code == 200 and head.content == b""
