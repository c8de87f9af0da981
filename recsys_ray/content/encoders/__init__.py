"""Encoders of texts and posters, and what joins their vectors. Rows of the catalogue in, vectors out."""
