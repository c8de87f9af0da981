"""The configuration of a run: its sections, and how a file becomes one."""

from recsys_ray.config.file import changed, load_config
from recsys_ray.config.sections import Config, TrainingSettings, dump

__all__ = ["Config", "TrainingSettings", "changed", "dump", "load_config"]
