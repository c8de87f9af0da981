"""A look at the data of a configuration: described on a page, or searched for what is wrong with it."""

from __future__ import annotations

from typing import Any

from recsys_ray.base.errors import RecsysError
from recsys_ray.base.storage import Location
from recsys_ray.content.posters.check import poster_symptoms
from recsys_ray.data.checks import Symptom, drift, examine, worst_first
from recsys_ray.data.prepared import Prepared
from recsys_ray.data.report.exploration import Explored, density, explore
from recsys_ray.data.report.page import data_page
from recsys_ray.data.report.statistics import statistics
from recsys_ray.pipeline.stages import Stages
from recsys_ray.runs.publish import RECOMMENDATIONS, latest_run
from recsys_ray.runs.published import read_run


def look_at_data(stages: Stages) -> tuple[Location, Location]:
    """Write the page and ``statistics.json`` under ``reports/``; where they are."""
    prepared, map_blocks = stages.prepared, stages.session.map_blocks
    explored = explore(prepared, map_blocks)
    facts = statistics(prepared, explored)
    cells = density(prepared, explored.sums["item_counts"], map_blocks)
    symptoms = _symptoms(stages, explored, facts)
    folder = stages.output / "reports"
    page = data_page(stages.config.name, facts, explored.sums["item_counts"], cells, symptoms)
    (folder / "data.html").write_bytes(page.encode())
    (folder / "statistics.json").write_json(facts)
    return folder / "data.html", folder / "statistics.json"


def diagnose(stages: Stages) -> list[Symptom]:
    """What is wrong with the data, the worst first."""
    explored = explore(stages.prepared, stages.session.map_blocks)
    return _symptoms(stages, explored, statistics(stages.prepared, explored))


def _symptoms(stages: Stages, explored: Explored, facts: dict[str, Any]) -> list[Symptom]:
    prepared, config = stages.prepared, stages.config
    found = examine(prepared, explored, config.data, facts)
    if config.content is not None and config.content.image is not None:
        found += poster_symptoms(prepared.items, config.content.image)
    before = _published_data(stages.output)
    if before is not None and before.location.name != prepared.location.name:
        found += drift(statistics(before, explore(before, stages.session.map_blocks)), facts)
    return worst_first(found)


def _published_data(output: Location) -> Prepared | None:
    """The prepared data of the published run, where both are still there and can be read."""
    try:
        run = latest_run(output / RECOMMENDATIONS)
        names = [] if run is None else [name for name in read_run(run).made_with if name.startswith("prepared/")]
        return Prepared.open(output / names[0]) if names else None
    except RecsysError:
        return None
