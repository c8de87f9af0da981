"""From a request to ranked rows: bundles, ranking, explanations, similar items. The same for batch, HTTP and Python."""
