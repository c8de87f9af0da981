"""Distributed batch recommendation on Ray: from raw interactions to a published top-N for every user."""

__version__ = "0.1.0"
