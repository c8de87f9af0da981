"""What a replica tells of itself, and all replicas together."""

from __future__ import annotations

import time
from typing import Any

from recsys_ray.serving.answers.cache import AnswerCache
from recsys_ray.serving.answers.live_run import LiveRun
from recsys_ray.serving.answers.live_runs import LiveRuns
from recsys_ray.serving.prometheus import Metrics
from recsys_ray.serving.users.replicas import Peers


class Facts:
    """Of one replica."""

    def __init__(self, runs: LiveRuns, cache: AnswerCache, metrics: Metrics, peers: Peers, started: float) -> None:
        self._runs, self._cache, self._metrics, self._peers = runs, cache, metrics, peers
        self._started = started
        self.problem: str | None = None
        """Why the others can't learn of this one now; None while they can."""

    async def publish(self) -> dict[str, Any]:
        """Publish what the other replicas report of this one."""
        slots, cache = self._runs.slots, self._cache
        looked_up = cache.hits + cache.misses
        info = {
            "replica": self._peers.name,
            "variants": [origin(name, slot.current) for name, slot in slots.items() if slot.current is not None],
            "cache": {
                "entries": len(cache),
                "bytes": cache.bytes,
                "hit_rate": cache.hits / looked_up if looked_up else 0.0,
            },
            "uptime_seconds": time.time() - self._started,
        }
        facts = {"info": info, "metrics": self._metrics.families()}
        try:
            await self._peers.publish(facts)
            self.problem = None
        except OSError as error:  # a full disk must not blind whoever looks at this very process
            self.problem = str(error)
        return facts

    async def all(self) -> list[dict[str, Any]]:
        """The facts of every replica, this one first and as of now."""
        own = await self.publish()
        try:
            found = await self._peers.all()
        except (OSError, ValueError):  # also what another program left there
            found = {}
        return [own, *(facts for name, facts in found.items() if name != self._peers.name)]


def origin(variant: str, run: LiveRun) -> dict[str, str]:
    """The part of every response that names what made it."""
    return {"run_id": run.run_id, "model": run.model, "variant": variant}
