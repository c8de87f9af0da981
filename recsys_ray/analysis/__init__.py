"""What item vectors are worth, as numbers and as a page a person can read."""

from __future__ import annotations

from recsys_ray.analysis.embeddings import Analysis, AnalysisSettings, analyse, embedding_facts
from recsys_ray.analysis.page import embedding_report

__all__ = ["Analysis", "AnalysisSettings", "analyse", "embedding_facts", "embedding_report"]
