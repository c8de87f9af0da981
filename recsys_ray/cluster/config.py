"""The section ``cluster`` of the configuration. Ray is not imported here: a configuration is read before it."""

from __future__ import annotations

from pydantic import Field

from recsys_ray.base.types import Settings


class ClusterSettings(Settings):
    """Where the work runs."""

    address: str | None = None
    """Address of a running Ray; by default RAY_ADDRESS, and without that a Ray of our own on this machine."""
    num_cpus: int | None = Field(default=None, ge=1)
    """Cores of a Ray of our own; all by default."""
    object_store_mib: int = Field(default=1024, ge=80)
    """Shared memory of a Ray of our own."""
    actors: int | None = Field(default=None, ge=1)
    """Processes of the batch and embedding jobs; by default as many as the cluster has room for. Set it where the
    cluster autoscales: the cores that are there at the start say little."""
    actor_cpus: float = Field(default=1.0, gt=0)
    """Cores, and threads, of one such process."""
    actor_gpus: float = Field(default=0.0, ge=0)
    """GPUs of one such process; fractions share one."""
    fit_cpus: int | None = Field(default=None, ge=1)
    """Cores of the fit; by default all of the largest machine."""
    autoscaling: bool = False
    """Machines are added when work waits for them. Without it, work that no machine of the cluster can take is refused
    before anything starts; with it, it waits."""
