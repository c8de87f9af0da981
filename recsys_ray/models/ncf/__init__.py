"""Neural collaborative filtering: configuration, fit, network and scorer."""
