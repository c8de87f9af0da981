"""The list of forgotten users as the service keeps to it: read again when it changed."""

from __future__ import annotations

import asyncio

from recsys_ray.base.storage import Location
from recsys_ray.data.forgotten import FOLDER, forgotten_users
from recsys_ray.runs.forget import take_out
from recsys_ray.serving.users.events import UserStates


class Forgotten:
    """Who must not be known."""

    def __init__(self, output: Location, states: UserStates) -> None:
        self._output, self._states = output, states
        self._files: list[str] = []
        self.users: frozenset[str] = frozenset()

    def __contains__(self, user: object) -> bool:
        return user in self.users

    async def refresh(self) -> None:
        """Look whether the list has grown; delete what those who are new on it have sent.

        Raises:
            StorageError: the list can't be read; who was on it stays on it.
        """
        loop = asyncio.get_running_loop()
        files = await loop.run_in_executor(None, (self._output / FOLDER).names)
        if files != self._files:
            users = await loop.run_in_executor(None, forgotten_users, self._output)
            new, self.users = users - self.users, users
            await self._states.forget(new)
            # What was written out since the command looked.
            await loop.run_in_executor(None, take_out, self._output, new)
            self._files = files
