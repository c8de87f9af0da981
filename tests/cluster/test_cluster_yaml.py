"""``ray up cluster.yaml`` accepts the file: filled with Ray's defaults and checked by Ray's own schema, offline."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture(scope="module")
def prepared(cluster: dict[str, Any]) -> dict[str, Any]:
    return prepare_config(copy.deepcopy(cluster))


def pinned(package: str) -> str:
    found = re.search(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found, f"{package} is not pinned in constraints.txt"
    return found[1]


def test_rays_own_schema_accepts_it(prepared: dict[str, Any]) -> None:
    validate_config(prepared)


def test_the_schema_would_refuse_a_typing_error(cluster: dict[str, Any]) -> None:
    broken = copy.deepcopy(cluster) | {"max_worker": 3}
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(broken))


def test_node_types_scale_from_zero_and_the_head_takes_no_tasks(prepared: dict[str, Any]) -> None:
    types = prepared["available_node_types"]
    assert types[prepared["head_node_type"]]["resources"]["CPU"] == 0
    assert {name: (kind["min_workers"], kind["max_workers"]) for name, kind in types.items()} == {
        "head": (0, 0),
        "cpu_worker": (0, 8),
        "gpu_worker": (0, 2),
    }
    assert sum(kind["max_workers"] for kind in types.values()) <= prepared["max_workers"]


def test_every_node_installs_the_project_with_the_constraints(prepared: dict[str, Any]) -> None:
    for commands in (prepared["head_setup_commands"], prepared["worker_setup_commands"]):
        assert any("-c /home/ray/recsys_ray/constraints.txt -e" in command for command in commands)


def test_images_carry_the_pinned_ray(prepared: dict[str, Any]) -> None:
    images = [prepared["docker"]["image"], prepared["available_node_types"]["gpu_worker"]["docker"]["worker_image"]]
    assert pinned("ray") == ray.__version__
    assert all(image.startswith(f"rayproject/ray:{pinned('ray')}-py311-") for image in images)


def test_what_is_mounted_exists_and_nothing_is_mounted_whole(cluster: dict[str, Any]) -> None:
    for local in cluster["file_mounts"].values():
        if not local.startswith("~"):
            assert (ROOT / local).exists(), local
            assert (ROOT / local).resolve() != ROOT.resolve()


def test_every_start_command_asks_for_the_token(prepared: dict[str, Any]) -> None:
    commands = prepared["head_start_ray_commands"] + prepared["worker_start_ray_commands"]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2 and all("RAY_AUTH_MODE=token" in command for command in starts)
