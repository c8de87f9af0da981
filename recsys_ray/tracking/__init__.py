"""Runs told to an experiment tracker. What a tracker can't do never fails a run."""

from recsys_ray.base.storage import Location
from recsys_ray.tracking.base import Trackable, Tracker, flat, track
from recsys_ray.tracking.config import TrackingSettings

__all__ = ["Trackable", "Tracker", "TrackingSettings", "flat", "open_tracker", "track"]


def open_tracker(settings: TrackingSettings, output: Location, name: str) -> Tracker:
    """The tracker of the settings.

    Raises:
        ConfigError: its library is not installed.
    """
    from recsys_ray.tracking.mlflow import MLflow

    return MLflow(settings, output, name)
