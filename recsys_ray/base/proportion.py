"""What is missing, said as loudly as it is much: a count, from one in ten a warning, beyond a bound an error."""

from __future__ import annotations

from recsys_ray.base.errors import DataError

MANY = 0.1
"""Share from which something is worth a warning."""
MOST = 0.5
"""Share above which something is an error, unless a setting says otherwise."""


def in_proportion(found: int, total: int, what: str, cure: str, at_most: float, setting: str) -> str:
    """The line to say: ``found`` of ``total`` are ``what``; ``cure`` says what to do.

    Raises:
        DataError: more than the share ``at_most``, which ``setting`` names.
    """
    words = f"{found:,} of {total:,} {what}"
    if found > at_most * total:
        raise DataError(f"{words}, more than {setting}={at_most:g} of them; {cure}")
    return f"warning: {words}; {cure}" if found >= MANY * total else words
