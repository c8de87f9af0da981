"""The online service as a plain ASGI application: published runs answered through ``rank``. No Ray."""

from recsys_ray.serving.config import ServingSettings
from recsys_ray.serving.http.app import build_app

__all__ = ["ServingSettings", "build_app"]
