"""How a request is answered: from which run, with which options, out of which cache."""
