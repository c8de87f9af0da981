"""The online service as a plain ASGI application: published runs answered through ``rank``. No Ray.

``build_app`` brings the whole service with it, and is loaded when it is first asked for: a configuration needs the
settings alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recsys_ray.serving.config import ServingSettings

if TYPE_CHECKING:
    from recsys_ray.serving.http.app import build_app

__all__ = ["ServingSettings", "build_app"]


def __getattr__(name: str) -> Any:
    if name != "build_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.http.app").build_app
