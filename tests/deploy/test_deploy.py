"""What stands in deploy/ is whole: the image, the manifests, the rules, the schedulers."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys_ray import __version__
from recsys_ray.serving.prometheus import Metrics
from tests import dockerfile

DEPLOY = Path(__file__).parents[2] / "deploy"
NAMES = re.compile(r"\brecsys_[a-z_]+")
CLUSTER = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
FIELDS = {
    "RayJob": {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit", "rayClusterSpec"},
    "RayService": {"serveConfigV2", "rayClusterConfig"},
}
POD = {"containers", "securityContext", "volumes"}
CONTAINER = {"name", "image", "resources", "securityContext", "volumeMounts"}


def load(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def expressions() -> Iterator[str]:
    for group in load("monitoring/alerts.yaml")["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in json.loads((DEPLOY / "monitoring/dashboard.json").read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def exported() -> set[str]:
    names: set[str] = set()
    for family in Metrics().registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        names |= {family.name + suffix for suffix in suffixes}
    return names


def test_rules_and_panels_use_only_names_that_the_service_exports() -> None:
    used = {name for expression in expressions() for name in NAMES.findall(expression)}
    assert used
    assert used <= exported()


@pytest.mark.parametrize("name, key", [("rayjob", "rayClusterSpec"), ("rayservice", "rayClusterConfig")])
def test_manifests_of_kuberay_have_known_fields_and_pods_without_root(name: str, key: str) -> None:
    manifest = load(f"kubernetes/{name}.yaml")
    assert manifest["apiVersion"] == "ray.io/v1"
    assert set(manifest["spec"]) <= FIELDS[manifest["kind"]]
    cluster = manifest["spec"][key]
    assert set(cluster) == CLUSTER
    assert cluster["authOptions"] == {"mode": "token"}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert set(pod) == POD
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert set(container) == CONTAINER
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_versions_of_ray_agree() -> None:
    pinned = re.search(r"^ray(?:\[.*\])?==(\S+)", (DEPLOY.parent / "constraints.txt").read_text(), re.M)
    assert pinned is not None
    for name, key in (("rayjob", "rayClusterSpec"), ("rayservice", "rayClusterConfig")):
        assert load(f"kubernetes/{name}.yaml")["spec"][key]["rayVersion"] == pinned[1]


def test_the_service_of_kuberay_starts_the_application_of_serve_deploy() -> None:
    ours = yaml.safe_load(load("kubernetes/rayservice.yaml")["spec"]["serveConfigV2"])["applications"][0]
    (known,) = yaml.safe_load((DEPLOY.parent / "configs/serve/deploy.yaml").read_text())["applications"]
    assert ours["import_path"] == known["import_path"]
    assert set(ours["args"]) == set(known["args"])


def test_the_nightly_job_may_do_what_it_does() -> None:
    account, role, binding, cron = yaml.safe_load_all((DEPLOY / "kubernetes/nightly.yaml").read_text())
    pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == account["metadata"]["name"] == binding["subjects"][0]["name"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}]
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"


@pytest.mark.parametrize("path", sorted((DEPLOY / "schedulers").glob("*.py")), ids=lambda path: path.stem)
def test_examples_of_schedulers_run_the_command(path: Path) -> None:
    ast.parse(path.read_text())
    assert "/etc/recsys/config.yaml" in path.read_text()


def test_the_dockerfile_is_clean() -> None:
    assert dockerfile.problems(dockerfile.steps(dockerfile.FILE.read_text())) == []


@pytest.mark.parametrize(
    "old, new, problem",
    [
        ("USER 1000", "USER root", "root"),
        ("--no-cache-dir -c constraints.txt", "", "pip install"),
        ("COPY recsys_ray", "COPY elsewhere", "not there"),
        ("--from=build", "--from=builder", "no stage"),
        ("WORKDIR /src", "MAINTAINER me", "unknown instruction"),
        ("--no-install-recommends", "", "apt-get"),
    ],
)
def test_the_lint_sees(old: str, new: str, problem: str) -> None:
    text = dockerfile.FILE.read_text()
    assert old in text
    assert problem in " ".join(dockerfile.problems(dockerfile.steps(text.replace(old, new))))


@pytest.mark.parametrize("name", ["rayjob", "rayservice"])
def test_images_carry_the_version_of_the_package(name: str) -> None:
    tags = re.findall(r"image: recsys-ray:(\S+)", (DEPLOY / f"kubernetes/{name}.yaml").read_text())
    assert tags
    assert set(tags) == {__version__}
