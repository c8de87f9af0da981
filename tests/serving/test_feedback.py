"""What users send to the service is learned by the next run: ``data.feedback``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recsys_ray.base.errors import DataError
from recsys_ray.data.prepare.driver import open_source
from tests.data_worlds import COLUMNS, histories, prepare_values, settings_of, write_csv
from tests.serving_worlds import client, prepared_world, publish_run, published_rows


def test_what_users_sent_is_in_the_next_run_and_not_recommended_again(tmp_path: Path) -> None:
    feedback = str(tmp_path / "feedback")
    before = prepared_world(tmp_path, feedback=feedback)  # there is none yet
    publish_run(tmp_path, before, tag="a")
    with client(tmp_path, feedback={"unknown_items": "keep"}) as service:
        first = service.get("/v1/recommendations/7").json()["items"]
        liked, again = first[0]["item_id"], histories(before)[7][0][0]
        new = [{"user_id": 9001, "item_id": first[1]["item_id"]}, {"user_id": 9001, "item_id": 999}]
        sent = [{"user_id": 7, "item_id": item, "rating": 4.5} for item in (liked, again)]
        assert service.post("/v1/feedback", json={"events": sent + new}).status_code == 200
        later = service.get("/v1/recommendations/7").json()["items"]

    after = prepared_world(tmp_path, "next", feedback=feedback)
    old, found = histories(before)[7], histories(after)
    assert found[7] == [one for one in old if one[0] != again] + [(liked, "train"), (again, "train")]
    assert sorted(item for item, _ in found[9001]) == sorted(one["item_id"] for one in new)
    assert (after.num_users, after.num_items) == (before.num_users + 1, before.num_items + 1)
    rows = published_rows(publish_run(tmp_path, after, tag="b"))
    assert liked not in [row["item_id"] for row in rows[7]] and 9001 in rows
    assert later[0]["item_id"] in [row["item_id"] for row in rows[7]]
    with client(tmp_path) as service:  # the journal still has the events, and the new run knows them
        answer = service.get("/v1/recommendations/7").json()
    assert answer["user"] == "known"
    assert [item["item_id"] for item in answer["items"]] == [row["item_id"] for row in rows[7]]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """Interactions of text ids that look like numbers, and a catalogue, as files."""
    rows = [(1, 10, 4, 1000), (1, 11, 3, 2000), (2, 10, 5, 1000)]
    path = write_csv(tmp_path / "events.csv", rows)
    items = write_csv(tmp_path / "items.csv", [(10, "Ten"), (11, "Eleven")], "item_id,title")
    return {
        "source": "table",
        "path": str(path),
        "items": str(items),
        "columns": COLUMNS,
        "item_columns": {"title": "title"},
    }


def send(folder: Path, events: list[dict[str, Any]], files: dict[str, Any], name: str) -> None:
    """Serve a run of these files, and take events."""
    publish_run(folder, prepare_values(folder / f"prepared-{name}", **files), tag=name, n=2)
    with client(folder, feedback={"unknown_items": "keep"}) as service:
        assert service.post("/v1/feedback", json={"events": events}).status_code == 200


def test_more_feedback_is_another_fingerprint_and_unknown_items_are_as_asked(
    tmp_path: Path, files: dict[str, Any]
) -> None:
    values = files | {"feedback": str(tmp_path / "out" / "feedback")}

    def prints() -> dict[str, Any]:
        return open_source(settings_of(**values)).fingerprint()

    nothing = prints()
    send(tmp_path / "out", [{"user_id": 3, "item_id": 12, "timestamp": 1_700_000_000_000}], values, "a")
    once = prints()
    send(tmp_path / "out", [{"user_id": 3, "item_id": 10}], values, "b")
    assert len({str(one) for one in (nothing, once, prints())}) == 3
    added = prepare_values(tmp_path / "added", **values)
    assert added.items.column("title").to_pylist() == ["Ten", "Eleven", None]
    assert [item for item, _ in histories(added)[3]] == [12, 10]
    dropped = prepare_values(tmp_path / "dropped", **values, unknown_items="drop")
    assert [item for item, _ in histories(dropped)[3]] == [10] and dropped.num_items == 2
    # The source's own unknown items are an error still.
    write_csv(tmp_path / "events.csv", [(1, 13, 4, 1000)])
    with pytest.raises(DataError, match=r"1 items with 1 interactions are not in the catalogue, for example 13"):
        prepare_values(tmp_path / "wrong", **values)


def test_feedback_of_another_type_of_ids_is_one_clear_line(tmp_path: Path, files: dict[str, Any]) -> None:
    values = files | {"feedback": str(tmp_path / "out" / "feedback"), "id_type": "string"}
    send(tmp_path / "out", [{"user_id": "x", "item_id": "10"}], values, "a")
    assert "x" in histories(prepare_values(tmp_path / "same", **values))
    with pytest.raises(DataError, match=r"set data\.id_type=string"):
        prepare_values(tmp_path / "other", **values | {"id_type": "auto"})


def test_feedback_does_not_go_with_given_parts() -> None:
    with pytest.raises(ValueError, match=r"feedback belongs to none of the parts"):
        settings_of(source="table", train="a", test="b", split={"kind": "given"}, feedback="c")
