"""The configuration of a run: its sections, and how a file becomes one."""

from recsys_ray.config.file import changed, load_config
from recsys_ray.config.sections import FIT_SECTIONS, RUN_SECTIONS, Config, TrainingSettings, dump, dump_sections

__all__ = [
    "FIT_SECTIONS",
    "RUN_SECTIONS",
    "Config",
    "TrainingSettings",
    "changed",
    "dump",
    "dump_sections",
    "load_config",
]
