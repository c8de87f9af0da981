"""The service on Ray Serve, in a process and a Ray of its own, as a user would start it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from recsys_ray.cluster.serve import environment, why
from recsys_ray.serving import ServingSettings


def test_a_service_listens_on_no_port_that_another_would_share(tmp_path: Path) -> None:
    found = environment(ServingSettings(), tmp_path)
    named = {name: value for name, value in found.items() if name.endswith("_PORT")}
    assert {"RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", "RAY_SERVE_HAPROXY_STATS_PORT"} <= set(named)
    assert len(set(named.values())) == len(named) and not {"8500", "9500", "8404", "30000"} & set(named.values())


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_two_replicas_answer_like_the_batch_job_survive_a_kill_and_stop() -> None:
    """The short form of the soak; what each client checks is in ``tests.serving_soak``."""
    command = [sys.executable, "-m", "tests.serving_soak", "--seconds=4", "--kills=1", "--limit=0.15"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=220)
    assert done.returncode in (0, 1) and done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, found  # nothing failed before the kill, nothing wrong, lost, grown or left running
    assert (found["strange"], found["listens_on"], found["runs"]) == ("a/☃?", ["127.0.0.1"], 3)
    # Nothing that is open to other machines answers a stranger, and it was seen that some of it is open.
    assert {one["guard"] for one in found["open_ports"]} == {"token"}, found["open_ports"]
    assert {"gcs_server", "raylet"} <= {one["process"] for one in found["open_ports"]}
    [killed] = found["killed"]
    assert killed["failed"] <= killed["requests"] / 20, killed
    assert found["requests"] > 200 and found["feedback"]["accepted"] > 10 and found["feedback"]["files"] > 0


def test_a_deployment_that_fails_says_why_in_one_line() -> None:
    message = """Deploying application recsys_ray failed: The deployment failed to start 3 times in a row.
Traceback (most recent call last):
  File "state.py", line 98, in __init__
recsys_ray.base.errors.StorageError: /x/state.sqlite: can't keep what users send; set serving.state
"""
    assert why(message) == "/x/state.sqlite: can't keep what users send; set serving.state"
    assert why("\nThe actor died.\nIt never ran.\n") == "It never ran."


# Ray 2.60 declares its own models in a way that pydantic has deprecated.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")
def test_the_configuration_for_a_cluster_is_one_that_serve_takes() -> None:
    from ray.serve.schema import ServeDeploySchema

    from recsys_ray.deploy import application

    root = Path(__file__).parents[2]
    tree = yaml.safe_load((root / "configs" / "serve" / "deploy.yaml").read_text())
    ServeDeploySchema.model_validate(tree)
    [asked] = tree["applications"]
    assert asked["import_path"] == f"{application.__module__}:{application.__name__}"
    arguments = asked["args"] | {"config": str(root / asked["args"]["config"]), "overrides": ["serving.port=8123"]}
    deployment = application(arguments)._bound_deployment
    assert '"port":8123' in deployment.init_args[0]
