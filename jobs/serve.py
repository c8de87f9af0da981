"""The online service: ``python jobs/serve.py --config CONFIG [key=value ...]``, or ``application`` for a Serve
configuration file (``configs/serve/deploy.yaml``)."""

from __future__ import annotations

import sys
from typing import Any

from recsys_ray.cli import job


def application(arguments: dict[str, Any]) -> Any:
    """The Serve application of a configuration: ``config`` is its path, ``overrides`` a list of key=value."""
    from recsys_ray.cluster import serve
    from recsys_ray.config import load_config
    from recsys_ray.storage import Location

    config = load_config(arguments["config"], arguments.get("overrides", []))
    return serve.application(config.serve, Location.of(config.output))


if __name__ == "__main__":
    sys.exit(job("serve"))
