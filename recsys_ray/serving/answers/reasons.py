"""Why the items of a list are in it, as a response says it."""

from __future__ import annotations

from typing import Any

from recsys_ray.base.types import Requests
from recsys_ray.recommend.explain import Reason, explain, template
from recsys_ray.recommend.rank import Ranked
from recsys_ray.serving.answers.live_run import LiveRun


def list_reasons(run: LiveRun, request: Requests, ranked: Ranked) -> list[dict[str, Any]]:
    """The reasons of one list, item by item; what a fallback chose is explained by that."""
    return [reason_json(reason) for reason in explain(run.bundle, request, ranked.rows_BK, ranked.sources_BK)[0]]


def reason_json(reason: Reason) -> dict[str, Any]:
    """``response_models.Reason``, with the template's text."""
    return {
        "text": template(reason),
        "by": "template",
        "kind": reason.kind,
        "because_of": [
            {"item_id": cited.item_id, "title": cited.title, "rating": cited.rating, "share": cited.share}
            for cited in reason.cited
        ],
        "shared_genres": list(reason.genres),
        "users_share": reason.users_share,
        "members": [{"name": name, "share": share} for name, share in reason.members],
    }
