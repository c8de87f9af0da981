"""Experiments on users: who was shown what, what they did then, and whether one variant is better than another."""
