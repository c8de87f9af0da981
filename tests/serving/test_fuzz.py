"""The API's own description turned against it: schemathesis asks what the description allows, and what it does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def fuzzed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A service with an admin's key and a reader's; its address, and the keys by role."""
    found = {role: new_key() for role in ("admin", "read")}
    keys = [{"name": role, "role": role, "sha256": digest} for role, (_, digest) in found.items()]
    limits = {"refused_key_seconds": 0.0}
    state = str(tmp_path_factory.mktemp("state"))
    settings = ServingSettings.model_validate({"state": state, "keys": keys, "limits": limits})
    with listening(settings, world) as address:
        yield address, {role: key for role, (key, _) in found.items()} | {"wrong": "guess"}


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("role", "examples", "phases"),
    [
        ("admin", 10, "examples,coverage,fuzzing"),
        ("read", 2, "examples,fuzzing"),
        ("wrong", 1, "examples,fuzzing"),
        (None, 1, "examples,fuzzing"),
    ],
)
def test_no_request_makes_the_service_fail_or_break_its_description(
    fuzzed: tuple[str, dict[str, str]], tmp_path: Path, role: str | None, examples: int, phases: str
) -> None:
    pytest.importorskip("schemathesis")
    address, keys = fuzzed
    _attack(address, tmp_path, examples, phases, None if role is None else keys[role])


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_no_request_makes_a_service_without_keys_fail(world: Path, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    with listening(ServingSettings.model_validate({"state": str(tmp_path)}), world) as address:
        _attack(address, tmp_path, 2, "examples,fuzzing", None)


def _attack(address: str, folder: Path, examples: int, phases: str, key: str | None) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"),
        *("--checks", ",".join(CHECKS), "--max-examples", str(examples), "--seed", "1", "--no-color"),
        *("--phases", phases),
        *(() if key is None else ("--header", f"X-API-Key: {key}")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=folder)
    assert done.returncode == 0, done.stdout[-4000:]
