"""What the service wrote of an experiment, read and judged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from recsys_ray.base import schema
from recsys_ray.base.errors import ConfigError, DataError
from recsys_ray.base.storage import Location
from recsys_ray.evaluation.experiment.attribution import Tally
from recsys_ray.evaluation.experiment.config import ExperimentSettings
from recsys_ray.evaluation.experiment.judgement import Judgement, judge

EXPOSURES, CLICKS, FEEDBACK = "exposures", "clicks", "feedback"
"""Directories of an output that the service writes."""
HOUR = 3_600_000  # milliseconds


def judge_experiment(
    output: Location, weights: Mapping[str, float], settings: ExperimentSettings, now: float | None = None
) -> Judgement:
    """The experiment of an output as of now (UTC seconds; by default this moment).

    Args:
        weights: of the variants, by name, in their order.

    Raises:
        ConfigError: there is one variant. DataError: there are no exposures, or those of another experiment or data.
    """
    if len(weights) < 2:
        raise ConfigError(f"serving.variants has {', '.join(weights)} alone; an experiment needs two")
    place = output / EXPOSURES
    names = _parquet(place)
    if not names:
        raise DataError(f"{place}: no exposures; set serving.exposures={{}} and let the service answer users")
    first = (place / names[0]).read_parquet()
    user_type, item_type = _id_types(place / names[0], first)
    since = _milliseconds(settings.since)
    tally = Tally(_events(output, settings, user_type, item_type), since)
    wanted = schema.exposures(user_type, item_type)
    for name in names:
        tally.add(schema.check((place / name).read_parquet(), wanted, str(place / name)))
    _refuse_others(place, tally.variants, weights, settings)
    moment = int((time.time() if now is None else now) * 1000)
    return judge(tally.attributed(list(weights), int(settings.window_hours * HOUR), moment), weights, settings)


def _refuse_others(
    place: Location, found: list[str], weights: Mapping[str, float], settings: ExperimentSettings
) -> None:
    """Raises DataError unless the exposures are those of this experiment."""
    when = "" if settings.since is None else f" since {settings.since.isoformat()}"
    if not found:
        raise DataError(f"{place}: no exposures{when}; set serving.experiment.since earlier")
    others = [name for name in found if name not in weights]
    if others:
        raise DataError(
            f"{place}: {', '.join(others)} answered{when}, and serving.variants has {', '.join(weights)}; set "
            "serving.experiment.since to the start of this experiment"
        )


def _id_types(place: Location, exposures: pa.Table) -> tuple[pa.DataType, pa.DataType]:
    """Types of user and item ids. Raises DataError where it is no table of exposures."""
    fields = {field.name: field.type for field in exposures.schema}
    user_type, items = fields.get("user_id"), fields.get("items")
    item_type = items.value_type if items is not None and pa.types.is_list(items) else None
    if user_type not in schema.ID_TYPES or item_type not in schema.ID_TYPES:
        raise DataError(f"{place}: no table of exposures; it has the columns {', '.join(fields)}")
    return user_type, item_type


def _events(output: Location, settings: ExperimentSettings, user_type: pa.DataType, item_type: pa.DataType) -> pa.Table:
    """Everything that may be an outcome."""
    wanted = schema.clicks(user_type, item_type)
    found = [wanted.empty_table()]
    if "rated" in settings.outcomes:
        for table in _tables(output / FEEDBACK, schema.interactions(user_type, item_type)):
            if settings.min_rating is not None:
                table = table.filter(pc.field("rating") >= settings.min_rating)
            found.append(table.select(wanted.names))
    if "clicked" in settings.outcomes:
        found += _tables(output / CLICKS, wanted)
    return pa.concat_tables(found)


def _tables(place: Location, wanted: pa.Schema) -> Iterator[pa.Table]:
    for name in _parquet(place):
        yield schema.check((place / name).read_parquet(), wanted, str(place / name))


def _parquet(place: Location) -> list[str]:
    return [name for name in place.names() if name.endswith(".parquet") and name[0] not in "._"]


def _milliseconds(moment: datetime | None) -> int:
    return 0 if moment is None else int(moment.timestamp() * 1000)
