"""Metrics of a written top-N against held-out targets."""
