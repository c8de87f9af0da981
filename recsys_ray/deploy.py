"""The Serve application that a configuration file of ``serve deploy`` names (``configs/serve/deploy.yaml``)."""

from __future__ import annotations

from typing import Any

from recsys_ray.base.storage import Location
from recsys_ray.cluster import serve
from recsys_ray.config import load_config


def application(arguments: dict[str, Any]) -> Any:
    """``config`` is the path of a configuration, ``overrides`` a list of key=value."""
    config = load_config(arguments["config"], arguments.get("overrides", []))
    return serve.application(config.served(), Location.of(config.output))
