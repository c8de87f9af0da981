"""A made-up world of films, with posters drawn on the spot: the demo, and a source for tests."""
