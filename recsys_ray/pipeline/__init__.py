"""The stages of a run in order, and what is skipped."""

from recsys_ray.pipeline.pipeline import Pipeline

__all__ = ["Pipeline"]
