"""The life of a run: fit, batch, evaluate, gate, publish, verify."""
