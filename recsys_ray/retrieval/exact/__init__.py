"""Exact search for the best inner products, on all cores."""
