"""``recsys-ray verify`` on a published run that is whole, and on every way it may not be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys_ray.base.errors import PublishError
from recsys_ray.base.manifest import read_manifest, write_manifest
from recsys_ray.base.storage import Location
from recsys_ray.base.types import map_blocks_here
from recsys_ray.cli import main
from recsys_ray.runs import publish
from recsys_ray.runs.delta import LOG, follow_latest
from recsys_ray.runs.published import RECORD, part_stamps
from recsys_ray.runs.verify import KEY_VARIABLE, verify
from recsys_ray.serving import ServingSettings
from recsys_ray.serving.http.auth import new_key
from tests.serving_worlds import listening, prepared_world, publish_run


@pytest.fixture
def world(tmp_path: Path) -> Path:
    publish_run(tmp_path, prepared_world(tmp_path))
    return tmp_path


def found(world: Path, url: str | None = None) -> dict[str, str]:
    """Checks by name, as they are shown."""
    _, findings = verify(Location.of(world), map_blocks_here, url)
    return {finding.check: str(finding) for finding in findings}


def failed(findings: dict[str, str]) -> list[str]:
    return [name for name, text in findings.items() if text.startswith("FAILED")]


def run_of(world: Path) -> Location:
    run = publish.latest_run(Location.of(world) / "recommendations")
    assert run is not None
    return run


def test_a_whole_run_and_its_service_pass(world: Path) -> None:
    with listening(ServingSettings(), world) as url:
        findings = found(world, url)
    assert not failed(findings)
    assert "200 users with 2,000 rows" in findings["lists"]
    assert findings["service lists"].startswith("ok: service lists: 20 users get the published lists, 0 have sent")


def test_a_part_or_a_model_that_changed_is_seen(world: Path) -> None:
    run = run_of(world)
    part = Path(str(run)) / "part-00001.parquet"
    kept = part.read_bytes()
    part.write_bytes(kept[:-1])
    assert failed(found(world)) == ["parts", "lists"]
    part.unlink()
    assert failed(found(world)) == ["parts", "lists"]
    part.write_bytes(kept)
    users = next((world / "prepared" / "world" / "users").iterdir())
    users.write_bytes(users.read_bytes()[:-1] + b"?")
    assert "bundle" in failed(found(world))


def test_a_table_that_stayed_behind_is_seen(world: Path) -> None:
    pytest.importorskip("deltalake")
    root = Location.of(world) / "recommendations"
    follow_latest(root, True, print)
    assert not failed(found(world)) and "holds 3 files of" in found(world)["Delta table"]
    first = run_of(world)
    publish_run(world, prepared_world(world, "other"), tag="b")
    findings = found(world)
    assert failed(findings) == ["Delta table"] and f"holds {first.name}, not {run_of(world).name}" in str(findings)
    follow_latest(root, True, print)
    assert not failed(found(world))
    (world / "recommendations" / LOG / "00000000000000000000.json").write_text("{no json")
    assert failed(found(world)) == ["Delta table"]


def test_a_flipped_bit_is_named_also_where_the_file_stays_as_long(world: Path) -> None:
    part = Path(str(run_of(world))) / "part-00001.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    assert "1 parts are not those that were published, the first part-00001.parquet" in found(world)["parts"]


def test_lists_that_break_a_rule_or_differ_from_the_facts_are_seen(world: Path) -> None:
    run = run_of(world)
    manifest = read_manifest(run / RECORD)
    write_manifest(run / RECORD, manifest | {"checks": {"users": 200, "rows": 1999}})
    assert "rows was 1999 when the run was published, is 2000" in found(world)["lists"]
    part = run / "part-00000.parquet"
    table = part.read_parquet()
    part.write_parquet(table.slice(1))
    stamps = manifest["parts"] | part_stamps(run, ["part-00000.parquet"])
    write_manifest(run / RECORD, manifest | {"parts": stamps})
    findings = found(world)
    assert failed(findings) == ["lists"] and "ranks that do not run" in findings["lists"]


def test_a_service_that_answers_otherwise_is_seen(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_of(world).name
    key, digest = new_key()
    settings = ServingSettings.model_validate({"follow_latest": False, "keys": [{"name": "k", "sha256": digest}]})
    with listening(settings, world) as url:
        refused = found(world, url)
        assert failed(refused) == ["service runs", "service lists"] and f"set {KEY_VARIABLE}" in refused["service runs"]
        monkeypatch.setenv(KEY_VARIABLE, key)
        assert not failed(found(world, url))
        part = run_of(world) / "part-00000.parquet"
        table, kept = part.read_parquet(), part.read_bytes()
        scores = table.column("score").combine_chunks().to_numpy() * 1.001
        part.write_parquet(table.set_column(table.schema.get_field_index("score"), "score", [scores.astype("f4")]))
        assert "gets another list than the published one" in found(world, url)["service lists"]
        part.write_bytes(kept)
        publish_run(world, prepared_world(world), "popularity", tag="b")
        findings = found(world, url)
        assert failed(findings) == ["service runs", "service lists"]
        assert f"answers with run {first}, LATEST is {run_of(world).name}" in findings["service runs"]
    assert "can't be asked" in found(world, url)["service"]


@pytest.mark.ray
def test_the_command_shows_every_check_and_fails_with_one_line(
    world: Path, ray_session: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = world / "config.yaml"
    tree = {"name": "w", "output": str(world), "data": {"source": "synthetic"}, "model": {"name": "item_cf"}}
    config.write_text(yaml.safe_dump(tree))
    assert main(["verify", str(config), "--url", "http://127.0.0.1:1"]) == 1
    assert "FAILED: service: http://127.0.0.1:1/health/ready can't be asked" in capsys.readouterr().err
    assert main(["verify", str(config), "recommend.n=5"]) == 0
    shown = capsys.readouterr()
    assert set(json.loads(shown.out)["checks"]) == {"parts", "bundle", "lists"} and "verify: ok: parts" in shown.err
    (Path(str(run_of(world))) / "part-00001.parquet").unlink()
    assert main(["verify", str(config)]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.splitlines()[-1].startswith("error: 2 of 3 checks failed, the first: 1 parts")
    with pytest.raises(PublishError, match="nothing is published"):
        verify(Location.of(world / "nowhere"), map_blocks_here)
