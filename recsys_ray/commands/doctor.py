"""``recsys-ray doctor CONFIG``: what is wrong with the data, one line each."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from recsys_ray.commands import Progress, add_config, open_pipeline

HELP = "what is wrong with the data, one line each with a cure; exit status 3 with warnings, 4 with errors"
STATUS = {"note": 0, "warning": 3, "error": 4}


def add_arguments(parser: ArgumentParser) -> None:
    add_config(parser)


def run(parsed: Namespace, progress: Progress) -> dict[str, Any]:
    with open_pipeline(parsed.config, parsed.overrides, progress) as pipeline:
        from recsys_ray.pipeline.inspection import diagnose

        symptoms = diagnose(pipeline)
    for symptom in symptoms:
        print(symptom)
    if not symptoms:
        print("nothing was found")
    counts = {severity: sum(symptom.severity == severity for symptom in symptoms) for severity in STATUS}
    status = max((STATUS[symptom.severity] for symptom in symptoms), default=0)
    found = [{name: getattr(symptom, name) for name in symptom.__slots__} for symptom in symptoms]
    return {"command": "doctor", "counts": counts, "symptoms": found, "exit_status": status}
