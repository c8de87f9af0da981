"""Runs that were published by the version before: verified, served, rolled back, pruned, and published upon."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from recsys_ray.base.errors import BundleError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import map_blocks_here
from recsys_ray.recommend.bundle import open_bundle
from recsys_ray.recommend.config import RankerSettings, RecommendSettings
from recsys_ray.retrieval import RerankSettings
from recsys_ray.runs import history, publish
from recsys_ray.runs.config import GateSettings
from recsys_ray.runs.gate import check_run
from recsys_ray.runs.published import read_run
from recsys_ray.runs.verify import verify
from tests.data_worlds import prepare_values
from tests.serving_worlds import client, publish_run, published_rows

FORMAT_0 = Path(__file__).parent.parent / "old_runs" / "format0.zip"
FIRST, SECOND = "20261126T012741-14de9903b6", "20261126T013255-933446cb38"
DATA = {
    "source": "synthetic",
    "users": 30,
    "items": 20,
    "interactions_per_user": 5,
    "shards": 2,
    "filters": {"min_rating": 2.0},
    "split": {"kind": "leave_last_out"},
}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Two runs; the latest has a ranker, the first is re-ranked."""
    with zipfile.ZipFile(FORMAT_0) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def root_of(old: Path) -> Location:
    return Location.of(old) / "recommendations"


def test_it_is_read_as_if_it_were_published_today(old: Path) -> None:
    first, second = (read_run(root_of(old) / name) for name in (FIRST, SECOND))
    assert (first.run_id, first.previous, second.previous) == (FIRST, None, FIRST)
    assert (first.model.name, second.model.name) == ("item_cf", "ease")
    assert first.recommend == RecommendSettings(n=4, rerank=RerankSettings(diversity=0.3, pool=8))
    assert second.recommend == RecommendSettings(n=4, ranker=RankerSettings(pool=10))
    assert first.gate == GateSettings(min_coverage=0.1) and first.min_rating == 2.0
    assert first.checks["users"] == 30 and first.checks["rows"] == 120
    assert sorted(first.parts) == ["part-00000.parquet", "part-00001.parquet"]
    assert "prepared/b786602facb8" in first.made_with and second.evaluation is not None


def test_verify_passes_and_sees_what_changed(old: Path) -> None:
    run, findings = verify(Location.of(old), map_blocks_here)
    assert run.name == SECOND and [finding.check for finding in findings] == ["parts", "bundle", "ranker", "lists"]
    assert all(finding.good for finding in findings), findings
    part = old / "recommendations" / SECOND / "part-00001.parquet"
    part.write_bytes(part.read_bytes() + b"?")
    users = next((old / "models").glob("ease-*/users/part-00000.parquet"))
    users.write_bytes(users.read_bytes()[:-1] + b"?")
    shown = {finding.check: finding.good for finding in verify(Location.of(old), map_blocks_here)[1]}
    assert not shown["parts"]
    with pytest.raises(BundleError, match="checksum differs"):
        open_bundle(Location.of(users.parent.parent), verify=True)


@pytest.mark.parametrize("run_id", [FIRST, SECOND])
def test_the_service_answers_the_published_lists(old: Path, run_id: str) -> None:
    (root_of(old) / publish.LATEST).write_bytes(f"{run_id}\n".encode())
    published = published_rows(root_of(old) / run_id)
    assert len(published) == 30
    with client(old) as service:
        for user, rows in published.items():
            answer = service.get(f"/v1/recommendations/{user}", params={"n": len(rows)}).json()
            assert answer["run_id"] == run_id
            assert [item["item_id"] for item in answer["items"]] == [row["item_id"] for row in rows]
            np.testing.assert_allclose(
                [item["score"] for item in answer["items"]], [row["score"] for row in rows], rtol=1e-5, atol=1e-6
            )
        runs = service.get("/v1/models").json()["variants"][0]
        assert runs["runs"] == [FIRST, SECOND]
        assert runs["previous_run_id"] == (None if run_id == FIRST else FIRST)


def test_rollback_goes_back_to_it(old: Path) -> None:
    assert publish.rollback(root_of(old)) == (SECOND, FIRST)
    assert publish.latest(root_of(old)) == FIRST
    assert all(finding.good for finding in verify(Location.of(old), map_blocks_here)[1])


def test_a_run_of_today_on_top_compares_with_it_goes_back_to_it_and_prunes_it(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "YOUNG_SECONDS", 0)
    prepared = prepare_values(old / "prepared" / "today", **DATA)
    run = publish_run(old, prepared, "item_cf", n=4)
    assert read_run(run).previous == SECOND
    findings = verify(Location.of(old), map_blocks_here)[1]
    assert all(finding.good for finding in findings), findings
    bundle = open_bundle(publish.bundle_of(Location.of(old), read_run(run).model))
    checked = check_run(bundle, run, read_run(run).recommend, GateSettings(), root_of(old) / SECOND)
    overlap = checked.facts["overlap"]
    assert overlap is not None and 0 < overlap <= 1
    assert publish.rollback(root_of(old)) == (run.name, SECOND)
    assert publish.rollback(root_of(old), run.name) == (SECOND, run.name)
    assert history.prune(root_of(old), keep=1) == [FIRST]
    assert (old / "prepared" / "b786602facb8").exists()  # the other one needs it
    monkeypatch.setattr(history, "KEPT_AT_LEAST", 1)
    assert history.prune(root_of(old), keep=1) == [SECOND]
    assert {path.name for path in (old / "prepared").iterdir()} == {"today"}
    assert [path.name for path in (old / "models").iterdir()] == ["item_cf-a"]
