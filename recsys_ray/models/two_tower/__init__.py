"""Two-Tower: configuration, inputs, fit, network and scorer."""
