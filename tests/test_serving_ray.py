"""The service on Ray Serve, in a process and a Ray of its own, as a user would start it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.serving_worlds import prepared_world, publish_run, published_rows

SCRIPT = """
import json, sys, time, urllib.error, urllib.request
import psutil
from recsys_ray.cluster.serve import deployed
from recsys_ray.cluster.session import ClusterSettings, Session
from recsys_ray.serving import ServeSettings
from recsys_ray.storage import Location

output, port = sys.argv[1], int(sys.argv[2])

def get(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())

def replicas():
    return [p.pid for p in psutil.process_iter(["name"]) if "ServeReplica" in p.info["name"] and mine(p)]

def mine(process):
    return any(parent.pid == raylet for parent in process.parents())

with Session(ClusterSettings(num_cpus=2, object_store_mib=80)) as session:
    with deployed(session, ServeSettings(port=port), Location.of(output)) as address:
        raylet = next(p.pid for p in psutil.Process().children(recursive=True) if p.name() == "raylet")
        found = {"lists": {user: get(f"/v1/recommendations/{user}")["items"] for user in (1, 2, 3)}}
        found["strange"] = get("/v1/recommendations/a%2F%E2%98%83%3F")["user_id"]
        listening = {c.laddr.ip for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port}
        found["listens_on"] = sorted(listening)
        first = found["lists"][1][0]["item_id"]
        get("/v1/feedback", {"events": [{"user_id": 1, "item_id": first}]})
        [killed] = replicas()
        psutil.Process(killed).kill()
        started, failed = time.monotonic(), 0
        while True:
            try:
                found["after_kill"] = get("/v1/recommendations/1")
                break
            except (OSError, urllib.error.HTTPError):
                failed += 1
                time.sleep(0.2)
                assert time.monotonic() - started < 60
        found["other_replica"] = replicas() != [killed]
left = [p.name() for p in psutil.Process().children(recursive=True) if p.is_running() and p.status() != "zombie"]
print(json.dumps(found | {"left": left, "failed": failed}))
"""


@pytest.mark.timeout(240)
def test_a_deployment_answers_like_the_batch_job_survives_a_kill_and_stops(tmp_path: Path) -> None:
    published = published_rows(publish_run(tmp_path, prepared_world(tmp_path)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=220, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    for user in (1, 2, 3):
        assert [item["item_id"] for item in found["lists"][str(user)]] == [row["item_id"] for row in published[user]]
    assert found["strange"] == "a/☃?"
    assert found["listens_on"] == ["127.0.0.1"]
    # What was accepted before the kill counts in the answer of the replica that came instead, and reached the disk.
    assert found["other_replica"] and found["after_kill"]["user"] == "updated"
    assert published[1][0]["item_id"] not in [item["item_id"] for item in found["after_kill"]["items"]]
    assert len(list((tmp_path / "feedback").glob("events-*.parquet"))) == 1
    assert found["left"] == []


# Ray 2.60 declares its own models in a way that pydantic has deprecated.
@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")
def test_the_configuration_for_a_cluster_is_one_that_serve_takes() -> None:
    from ray.serve.schema import ServeDeploySchema

    from jobs.serve import application

    root = Path(__file__).parent.parent
    tree = yaml.safe_load((root / "configs" / "serve" / "deploy.yaml").read_text())
    ServeDeploySchema.model_validate(tree)
    [asked] = tree["applications"]
    assert asked["import_path"] == f"{application.__module__}:{application.__name__}"
    arguments = asked["args"] | {"config": str(root / asked["args"]["config"]), "overrides": ["serve.port=8123"]}
    deployment = application(arguments)._bound_deployment
    assert '"port":8123' in deployment.init_args[0]
