"""One page about a published run."""
