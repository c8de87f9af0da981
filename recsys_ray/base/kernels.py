"""``njit`` and ``prange`` of numba, which is imported when a kernel is first called.

A configuration names models, and a wrong one should be told at once; numba takes longer to import than all else there.
And a kernel is kept on disk beside its code, or in the home directory. Where neither can be written numba would refuse
the kernel; so there it gets a temporary directory, which only this user can read.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from threading import RLock
from types import FunctionType
from typing import Any

_LOCK = RLock()
prange = range
"""Of a parallel kernel: its loops are spread over threads."""


class Kernel:
    """A function that numba compiles when it is first called."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        assert isinstance(function, FunctionType)
        self._function, self._options = function, options
        self._compiled: Any = None
        update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        return (self._compiled or self.compiled)(*arguments)

    @property
    def compiled(self) -> Any:
        """numba's own, with the kernels that this one calls as numba's own, too."""
        with _LOCK:
            if self._compiled is None:
                import numba

                function = self._function
                known = {
                    name: value.compiled if isinstance(value, Kernel) else numba.prange if value is prange else value
                    for name, value in function.__globals__.items()
                    if name in _names(function)
                }
                scope = {"__name__": function.__module__} | known
                whole = FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
                whole.__doc__ = function.__doc__
                self._compiled = _compiled_by_numba(whole, self._options)
        return self._compiled


def _names(function: FunctionType) -> set[str]:
    """What the code of a function names, the functions inside it included."""
    found, left = set[str](), [function.__code__]
    while left:
        code = left.pop()
        found.update(code.co_names)
        left += [constant for constant in code.co_consts if isinstance(constant, type(code))]
    return found


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit``, later."""
    return lambda function: Kernel(function, options)


def _compiled_by_numba(function: FunctionType, options: dict[str, Any]) -> Any:
    import numba

    try:
        return numba.njit(**options)(function)
    except RuntimeError:  # "cannot cache function": no directory for it can be written
        config: Any = numba.config
        if config.CACHE_DIR:
            raise
        config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"] = _private_directory()
        return numba.njit(**options)(function)


def _private_directory() -> str:
    """One that stays, where it is this user's alone: what lies in it is run."""
    place = Path(tempfile.gettempdir()) / f"recsys_ray-kernels-{os.getuid()}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
        if found.st_uid == os.getuid() and found.st_mode == stat.S_IFDIR | 0o700:
            return str(place)
    except OSError:
        pass
    return tempfile.mkdtemp(prefix="recsys_ray-kernels-")
