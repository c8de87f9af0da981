"""The matrix product of a scan: numpy in float32, torch in bfloat16.

In float32 numpy's BLAS is as fast as torch. In bfloat16 torch is about twice as fast on processors that have it, but
its import takes seconds and half a gigabyte. So it is imported where somebody asks for it or where it pays.

R are queries, J the columns of the scan.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import binding  # type: ignore[import-untyped]

BitsArray = npt.NDArray[Any]


@cache
def bfloat16_is_fast() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware."""
    features = binding.get_host_cpu_features()
    return bool(features.get("amx-bf16") or features.get("avx512bf16"))


def loaded_torch() -> Any:
    """torch where this process has imported it, else None. Waits for another thread that is importing it now."""
    return import_module("torch") if "torch" in sys.modules else None


def as_tensor(bits: BitsArray) -> Any:
    """The stored bits as the floats they are, a torch tensor over the same memory."""
    torch = import_module("torch")
    return torch.from_numpy(bits).view(torch.bfloat16 if bits.dtype == np.int16 else torch.float32)


def multiply(queries_RJ: BitsArray, items_TJ: BitsArray, out_RT: BitsArray) -> None:
    """``out = queries @ items.T``; int32 holds the bits of float32, int16 those of bfloat16."""
    if queries_RJ.dtype == np.int16:
        import_module("torch").mm(as_tensor(queries_RJ), as_tensor(items_TJ).t(), out=as_tensor(out_RT))
    else:
        np.matmul(queries_RJ.view(np.float32), items_TJ.view(np.float32).T, out=out_RT.view(np.float32))
