"""API keys: settings hold digests, never keys; a key is compared in constant time against every digest."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping, Sequence

from recsys_ray.serving.config import KeySettings, Role


class Refused(Exception):
    """A call without a right to it: ``status`` 401 (no valid key) or 403 (not with this key)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class WrongKey(Refused):
    """A key was given, and it is none of ours."""


class Keys:
    """Who may call what."""

    def __init__(self, keys: Sequence[KeySettings]) -> None:
        self._keys = [(bytes.fromhex(key.sha256), key.name, key.role) for key in keys]

    def check(self, headers: Iterable[tuple[bytes, bytes]], role: Role) -> str | None:
        """Name of the key that was presented, None where no key is needed.

        Raises:
            Refused: the route needs a key and none, a wrong one, or one of a lesser role was given.
        """
        if not self._keys:
            if role == "admin":
                raise Refused(403, "this call needs an admin key, and none is set up; add one to serving.keys")
            return None
        given = presented(dict(headers))
        if given is None:
            raise Refused(401, "this call needs an API key in the header X-API-Key")
        digest = hashlib.sha256(given).digest()
        found = [(name, held) for known, name, held in self._keys if hmac.compare_digest(known, digest)]
        if not found:
            raise WrongKey(401, "the API key is not valid")
        name, held = found[0]
        if role == "admin" and held != "admin":
            raise Refused(403, f"the key {name} may read, but this call needs an admin key")
        return name


def presented(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The key in X-API-Key, or behind "Bearer" in Authorization."""
    key = headers.get(b"x-api-key")
    if key is None:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        key = token.strip() if scheme.lower() == b"bearer" else None
    return key or None


def new_key() -> tuple[str, str]:
    """A random key and its digest for ``serving.keys``."""
    key = secrets.token_urlsafe(32)
    return key, hashlib.sha256(key.encode()).hexdigest()
