"""The configuration of a run: its sections, and how a file becomes one."""

from recsys_ray.config.file import load_config
from recsys_ray.config.sections import Config, TrainingSettings, dump

__all__ = ["Config", "TrainingSettings", "dump", "load_config"]
