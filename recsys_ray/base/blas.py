"""Threads of BLAS, which numpy multiplies matrices with: one where our own threads already share the work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

_LOCK = threading.Lock()
_WAY_BACK = ExitStack()
_INSIDE: set[object] = set()


@cache
def _libraries() -> ThreadpoolController:
    """To look through the loaded libraries takes longer than many a product: once is enough."""
    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS works on the calling thread alone. The setting is the process's: the last one out puts it back."""
    me = object()
    with _LOCK:
        if not _INSIDE:
            _WAY_BACK.enter_context(_libraries().limit(limits=1, user_api="blas"))
        _INSIDE.add(me)
    try:
        yield
    finally:
        with _LOCK:
            _INSIDE.remove(me)
            if not _INSIDE:
                _WAY_BACK.close()
