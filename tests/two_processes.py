"""A process that is one of two workers of a group, for ``torch.multiprocessing.spawn``."""

from __future__ import annotations

import os

import torch.distributed as dist


def leave() -> None:
    """End a worker whose results are in files. Threads of torch now and then abort the interpreter's own way out (4 of
    12 times), when all is done and the group is closed."""
    dist.destroy_process_group()
    os._exit(0)
