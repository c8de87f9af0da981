"""What a command shows: bars on a terminal, lines in a log, JSON for programs."""

from recsys_ray.console.reporter import Reporter

__all__ = ["Reporter"]
