"""The online service as a plain ASGI application: published bundles answered through ``recommend``. No Ray."""

from recsys_ray.serving.app import build_app
from recsys_ray.serving.settings import ServeSettings

__all__ = ["ServeSettings", "build_app"]
