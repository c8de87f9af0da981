"""The list of forgotten users as the service keeps to it: read again when it changed."""

from __future__ import annotations

from recsys_ray.base.errors import StorageError
from recsys_ray.base.storage import Location
from recsys_ray.data.forgotten import FILE, forgotten_users
from recsys_ray.serving.users.journal import UserStates


class Forgotten:
    """Who must not be known."""

    def __init__(self, output: Location, states: UserStates) -> None:
        self._output, self._states = output, states
        self._size = 0
        self.users: frozenset[str] = frozenset()

    def __contains__(self, user: object) -> bool:
        return user in self.users

    async def refresh(self) -> None:
        """Look whether the list has grown; delete what those who are new on it have sent.

        Raises:
            StorageError: the list can't be read; who was on it stays on it.
        """
        try:
            size = (self._output / FILE).size()
        except StorageError:  # there is none
            return
        if size != self._size:
            users = forgotten_users(self._output)
            await self._states.forget(users - self.users)
            self.users, self._size = users, size
