"""Exact top-k: masks, ties and ranking, implemented once."""
