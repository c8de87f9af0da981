"""What the service takes of interactions: what the next batch run reads, and nothing that would lead it astray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from recsys_ray.serving.answers.live_run import LiveRun
from recsys_ray.serving.config import FeedbackSettings
from recsys_ray.serving.problem import Problem
from recsys_ray.serving.users.events import RATED, Event
from recsys_ray.serving.users.histories import typed_id

Key = TypeVar("Key")


def admitted(
    run: LiveRun, sent: Mapping[Key, list[Event]], settings: FeedbackSettings
) -> tuple[dict[Key, list[Event]], int]:
    """Those that are kept, and how many name items that the run does not know. It may read a file.

    Raises Problem 422 for an id of another type than those of the data, and a rating outside their scale.
    """
    low, high = run.rating_scale
    for event in (event for events in sent.values() for event in events):
        if typed_id(event.item, run.bundle.item_ids.type) is None:
            raise Problem(422, "item_id: the items of this data have whole numbers as ids")
        if event.kind == RATED and not (low <= event.rating <= high or event.rating == 1.0):
            raise Problem(422, f"rating: {event.rating:g} is outside the scale of the data, {low:g} to {high:g}")
    known = {key: [event for event in events if event.item in run.catalogue.rows] for key, events in sent.items()}
    unknown = sum(len(events) - len(known[key]) for key, events in sent.items())
    return (dict(sent) if settings.unknown_items == "keep" else known), unknown
