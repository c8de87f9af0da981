"""The Python face: data in memory, models that fit on it, and what a fit gives. No Ray.

The names are offered by ``recsys_ray`` itself, which imports this only when one of them is asked for.
"""
