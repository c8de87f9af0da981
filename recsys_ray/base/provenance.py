"""What something was made from: digests that name directories, versions that go into manifests."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("recsys_ray", "ray", "torch", "numpy", "pyarrow", "scipy", "numba", "sentence-transformers", "torchvision")


def fingerprint(*facts: Any) -> str:
    """A stable digest of JSON-ready values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Of this package and those its results depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # the project run from a plain checkout
            found[name] = "not installed"
    return found
