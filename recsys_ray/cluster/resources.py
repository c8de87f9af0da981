"""What a configuration asks of machines, beside the machines that are there.

Ray lets work that no machine can take wait for one that can. Where machines are added on demand that is right; where
nobody adds any it waits for ever, so it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from recsys_ray.base.errors import ConfigError
from recsys_ray.cluster.config import ClusterSettings
from recsys_ray.training import WorkerSettings

Machine = Mapping[str, float]
"""Resources by Ray's names: CPU, GPU."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Processes that have to run at the same time, each on one machine."""

    setting: str
    """As it was set: ``cluster.fit_cpus=64``."""
    cpus: float
    gpus: float = 0.0
    count: int = 1

    def fit_on(self, machine: Machine) -> int:
        """How many of the processes the machine can take."""
        room = [
            int((machine.get(name, 0.0) + 1e-6) / wanted)
            for name, wanted in (("CPU", self.cpus), ("GPU", self.gpus))
            if wanted > 0
        ]
        return min(room, default=self.count)


def claims(settings: ClusterSettings, workers: WorkerSettings | None = None) -> list[Claim]:
    """What the settings ask for; ``workers`` are those of a neural model, None where none is trained."""
    found = [Claim(f"cluster.actor_cpus={settings.actor_cpus:g}", settings.actor_cpus)]
    if settings.fit_cpus is not None:
        found.append(Claim(f"cluster.fit_cpus={settings.fit_cpus}", settings.fit_cpus))
    if settings.actor_gpus:
        found.append(Claim(f"cluster.actor_gpus={settings.actor_gpus:g}", settings.actor_cpus, settings.actor_gpus))
    if workers is not None:
        if workers.cpus:
            found.append(Claim(f"training.workers.cpus={workers.cpus}", workers.cpus))
        if workers.gpus:
            found.append(Claim(f"training.workers.gpus={workers.gpus:g}", 0, workers.gpus))
        cpus = workers.cpus or 1
        found.append(Claim(f"training.workers.count={workers.count}", cpus, workers.gpus, workers.count))
    return found


def refuse_impossible(wanted: Iterable[Claim], machines: Sequence[Machine], *, what: str) -> None:
    """ConfigError for the first claim that the machines can't meet, however long it waits."""
    for claim in wanted:
        if sum(claim.fit_on(machine) for machine in machines) >= claim.count:
            continue
        each = f"{claim.cpus:g} cores" if not claim.gpus else f"{claim.gpus:g} GPUs and {claim.cpus:g} cores"
        asked = f"one machine with {each}" if claim.count == 1 else f"room for {claim.count} processes of {each}"
        raise ConfigError(
            f"{claim.setting} asks for {asked}; {what} {_listed(machines)}; set it lower, or cluster.autoscaling=true "
            "where machines are added on demand"
        )


def _listed(machines: Sequence[Machine]) -> str:
    sizes = sorted({f"{one.get('CPU', 0):g} cores and {one.get('GPU', 0):g} GPUs" for one in machines})
    if len(machines) == 1:
        return f"has {sizes[0]}"
    return f"has {len(machines)} machines of {', '.join(sizes[:3])}{' ...' if len(sizes) > 3 else ''}"
