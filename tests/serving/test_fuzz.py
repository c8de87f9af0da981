"""The API's own description turned against it: schemathesis asks what the description allows, and what it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recsys_ray.serving import ServingSettings
from recsys_ray.serving.http.auth import new_key
from tests.serving_worlds import client, listening

CHECKS = (
    "not_a_server_error",
    "response_schema_conformance",
    "status_code_conformance",
    "content_type_conformance",
)


def test_the_description_is_a_valid_one_and_its_examples_are_answered(world: Path, tmp_path: Path) -> None:
    with client(world, state=str(tmp_path)) as service:
        document = service.get("/openapi.json").json()
        examples = [
            (path, example)
            for path, methods in document["paths"].items()
            for example in _body(document, methods.get("post", {})).get("examples", [])
            if "activate" not in path
        ]
        assert len(examples) == 9
        for path, example in examples:
            assert service.post(path, json=example).status_code == 200, example
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(document)


def _body(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    found: dict[str, Any] = document["components"]["schemas"].get(reference.rsplit("/", 1)[-1], {})
    return found


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_no_request_makes_the_service_fail_or_break_its_description(world: Path, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    key, digest = new_key()
    keys = [{"name": "fuzz", "role": "admin", "sha256": digest}]
    with listening(ServingSettings.model_validate({"state": str(tmp_path), "keys": keys}), world) as address:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"),
            *("--checks", ",".join(CHECKS), "--max-examples", "10", "--seed", "1", "--no-color"),
            *("--header", f"X-API-Key: {key}", "--phases", "examples,coverage,fuzzing"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
