"""Work of the service that nobody waits for."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from recsys_ray.base.errors import RecsysError

log = logging.getLogger(__name__)


async def every(seconds: float, work: Any) -> None:
    """Do it again and again, with so many seconds between; what fails is logged and tried again."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except RecsysError as error:
            log.error("%s", error)
        except Exception:  # it is tried again; a broken disk must not end the service
            log.exception("background work failed")
