"""The one training loop of all neural models: it knows modules, batches and losses, no algorithm.

What is imported here does without torch; the other modules are for networks, while one is trained.
"""

from recsys_ray.training.config import LoopConfig, WorkerSettings
from recsys_ray.training.worker import LocalWorker, Worker, progress_line, run_workers

__all__ = ["LocalWorker", "LoopConfig", "Worker", "WorkerSettings", "progress_line", "run_workers"]
