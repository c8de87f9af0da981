"""The torch side of the neural models: imported while one is fitted or scores, never by the registry."""
