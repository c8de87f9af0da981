"""The facts every process of a machine publishes of itself, in a small file each: any of them can report all of them.

A call through a proxy reaches any replica. ``/metrics`` and ``/info`` would show another one each time; so each process
writes its facts every second, and each reports its own, as they are now, beside what the others wrote last.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

SECONDS = 1.0  # between two writes
GONE_SECONDS = 5.0  # without a write a process counts as dead


class Peers(Protocol):
    """The replicas that know of each other."""

    name: str
    """Of this one."""

    async def publish(self, facts: Mapping[str, Any]) -> None:
        """Replace the facts of this one."""
        ...

    async def all(self) -> dict[str, dict[str, Any]]:
        """The facts of every living replica by its name, this one's included once it has published any."""
        ...

    async def leave(self) -> None:
        """Remove the facts of this one: it stops."""
        ...


class LocalPeers:
    """``Peers`` of one machine: the files of a directory. Small and in the page cache, so read on the event loop."""

    def __init__(self, folder: Path) -> None:
        self.name = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(2)}"
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    async def publish(self, facts: Mapping[str, Any]) -> None:
        file = self._file(self.name)
        draft = file.with_suffix(".tmp")
        draft.write_text(json.dumps(dict(facts)))
        draft.replace(file)

    async def all(self) -> dict[str, dict[str, Any]]:
        found = {}
        for file in sorted(self._folder.iterdir()):
            with suppress(FileNotFoundError):  # it may have left meanwhile
                if time.time() - file.stat().st_mtime > GONE_SECONDS:
                    file.unlink()
                elif file.suffix == ".json":
                    found[file.stem] = json.loads(file.read_text())
        return found

    async def leave(self) -> None:
        self._file(self.name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"
