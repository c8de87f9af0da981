"""A request that can't be answered: the status and the one line its caller gets."""

from __future__ import annotations

from collections.abc import Mapping


class Problem(Exception):
    """An error response: its HTTP status and one line for the caller."""

    def __init__(self, status: int, message: str, headers: Mapping[bytes, bytes] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})
