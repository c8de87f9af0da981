"""How much memory there is, and how much processes take."""

from __future__ import annotations

import psutil


def available_memory() -> int:
    """Bytes a new process could take here: the machine's free memory, or what its control group leaves."""
    free = int(psutil.virtual_memory().available)
    try:
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
            free = min(free, int(limit.read()) - int(used.read()))
    except (OSError, ValueError):
        pass  # no control group, or no limit ("max")
    return free
