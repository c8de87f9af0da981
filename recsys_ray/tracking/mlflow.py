"""Runs in MLflow: a server, or a database beside the output that needs none."""

from __future__ import annotations

import logging
import os
import re
import time
import warnings
from pathlib import Path

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.optional import require
from recsys_ray.base.storage import Location
from recsys_ray.tracking.base import Trackable
from recsys_ray.tracking.config import TrackingSettings

CHAMPION = "champion"
AT_ONCE = 100
"""Values that MLflow takes in one call."""
LONGEST = 6000
"""Characters of a parameter."""
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""A server that is away is not waited for: MLflow alone would ask for minutes."""


class MLflow:
    """A client of MLflow.

    Raises:
        ConfigError: the library is not installed, or the database has no place on this machine.
    """

    def __init__(self, settings: TrackingSettings, output: Location, name: str) -> None:
        for variable, value in IMPATIENT.items():
            os.environ.setdefault(variable, value)
        self._mlflow = require("mlflow", extra="mlflow", what="tracking.kind=mlflow")
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        self.settings, self.name = settings, name
        if settings.uri is None and not output.is_local:
            raise ConfigError(f"tracking.uri: {output} can't hold a database; set it to the address of a server")
        self._artefacts = None if settings.uri is not None else Path(str(output)) / "mlartifacts"
        self.uri = settings.uri or f"sqlite:///{output}/mlflow.db"
        if settings.uri is None:
            Path(str(output)).mkdir(parents=True, exist_ok=True)
        self._client = self._mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def record(self, run: Trackable) -> str:
        """See ``Tracker``; a run, its trials as its children, its bundle as a version of the registered model."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what MLflow asks of its own libraries
            experiment = self._experiment()
            run_id = self._record(run, experiment, {})
            for child in run.children:
                self._record(child, experiment, {"mlflow.parentRunId": run_id})
            if run.bundle is not None and self.settings.bundle:
                self._register(run, run_id)
        return f"{self.uri}, run {run_id}"

    def _experiment(self) -> str:
        name = self.settings.experiment or self.name
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        place = None if self._artefacts is None else self._artefacts.as_uri()
        kind = {"mlflow.experimentKind": "custom_model_development"}  # its page opens with runs, not with traces
        return str(self._client.create_experiment(name, artifact_location=place, tags=kind))

    def _record(self, run: Trackable, experiment: str, tags: dict[str, str]) -> str:
        entities = self._mlflow.entities
        started = self._client.create_run(experiment, run_name=run.name, tags=dict(run.tags) | tags)
        run_id, now = str(started.info.run_id), int(time.time() * 1000)
        params = [entities.Param(key, str(value)[:LONGEST]) for key, value in run.parameters.items()]
        metrics = [entities.Metric(_name(key), float(value), now, 0) for key, value in run.metrics.items()]
        for step, measured in enumerate(run.epochs, 1):
            metrics += [
                entities.Metric(f"epoch/{_name(key)}", float(value), now, step) for key, value in measured.items()
            ]
        for start in range(0, max(len(params), len(metrics)), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            self._client.log_batch(run_id, metrics=metrics[part], params=params[part])
        for file, text in run.texts.items():
            self._client.log_text(run_id, text, file)
        if run.bundle is not None and run.bundle.is_local and self.settings.bundle:
            self._client.log_artifacts(run_id, str(run.bundle), "bundle")
        self._client.set_terminated(run_id)
        return run_id

    def _register(self, run: Trackable, run_id: str) -> None:
        name = self.settings.register_as or self.name
        if not any(True for known in self._client.search_registered_models() if known.name == name):
            self._client.create_registered_model(name)
        source = f"{self._client.get_run(run_id).info.artifact_uri}/bundle"
        version = self._client.create_model_version(name, source=source, run_id=run_id)
        if run.published:
            self._client.set_registered_model_alias(name, CHAMPION, version.version)


def _name(metric: str) -> str:
    """A metric as MLflow lets it be called: ndcg@20 is ndcg_at_20."""
    return re.sub(r"[^\w\-./ :]", "_", metric.replace("@", "_at_"))
