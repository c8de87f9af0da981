"""The section ``tracking``."""

from __future__ import annotations

from typing import Literal

from recsys_ray.base.types import Settings


class TrackingSettings(Settings):
    """Where runs and searches are recorded, for people to compare."""

    kind: Literal["mlflow"] = "mlflow"
    """mlflow: parameters, metrics, epochs, configuration and bundle as a run of MLflow (extra ``mlflow``)."""
    uri: str | None = None
    """Address of a tracking server or database; null: ``mlflow.db`` in the output directory, which needs no server."""
    experiment: str | None = None
    """Name of the experiment; null: that of the configuration."""
    register_as: str | None = None
    """Name in the model registry; null: that of the configuration. What is published gets the alias champion."""
    bundle: bool = True
    """Copy the files of the model that answers into the tracker."""
