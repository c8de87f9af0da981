"""LightGCN: configuration, fit and network."""
