"""Why a poster can't be used, in few categories: the job counts them, and names the first of each by its detail."""

from __future__ import annotations

from recsys_ray.base.errors import EncoderError

NOT_FOUND = "not found"
NOT_READABLE = "not readable"
UNSUPPORTED = "unsupported address"
PRIVATE = "private address"
NO_CONNECTION = "no connection"
BAD_CERTIFICATE = "bad certificate"
TIMED_OUT = "timed out"
REFUSED = "refused"
SERVER_ERROR = "server error"
REDIRECTS = "too many redirects"
TOO_LARGE = "too large"
NOT_AN_IMAGE = "not an image"
DAMAGED = "damaged"

EXCERPT_LENGTH = 120
"""Characters of an address or message that an excerpt has at most."""


class PosterError(EncoderError):
    """One poster can't be used: ``<category>: <what was found>``. The item goes on without it.

    ``transient``: trying again may help.
    """

    def __init__(self, category: str, detail: str, *, transient: bool = False) -> None:
        super().__init__(f"{category}: {excerpt(detail)}")
        self.transient = transient


def excerpt(text: object) -> str:
    """The first line, not too long, without control characters."""
    line = next(iter(str(text).strip().splitlines()), "") or type(text).__name__
    plain = "".join(character if character.isprintable() else "?" for character in line)
    return plain if len(plain) <= EXCERPT_LENGTH else plain[: EXCERPT_LENGTH - 3] + "..."
