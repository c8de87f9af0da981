"""A look at prepared data: what is in it, and what is wrong with it."""
