"""One algorithm a file, named as in the literature."""
