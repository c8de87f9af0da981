"""Two machine instructions numba can't spell: compare 64 scores at once, and find the first that passed.

Scores are looked at as integers. A float's bits order like a sign-and-magnitude integer, so after ``bits ^ flip`` an
unsigned comparison is the comparison of the floats: ``flip`` is the sign bit for a positive bound and all ones
otherwise. The same code thus reads float32 (32-bit lanes) and bfloat16 (16-bit lanes, the upper half of a float32).
The intermediate representation below is portable: the compiler splits it to whatever vector width the machine has.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

LANES = 64


def _lanes_at_least(typingctx: Any, row: Any, start: Any, flip: Any, bound: Any) -> Any:
    """uint64 with bit j set where ``row[start + j] ^ flip >= bound``, unsigned; reads LANES lanes of int16 or int32."""
    signature = types.uint64(row, types.int64, types.uint32, types.uint32)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = signature.args[0].dtype.bitwidth
        lane, lanes = ir.IntType(bits), ir.VectorType(ir.IntType(bits), LANES)
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), lanes.as_pointer())
        vector = builder.load(address)
        vector.align = bits // 8

        def everywhere(value: Any) -> Any:
            scalar = builder.trunc(value, lane) if bits < 32 else value
            first = builder.insert_element(ir.Constant(lanes, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            return builder.shuffle_vector(first, ir.Constant(lanes, ir.Undefined), zeros)

        passed = builder.icmp_unsigned(">=", builder.xor(vector, everywhere(args[2])), everywhere(args[3]))
        return builder.bitcast(passed, ir.IntType(64))

    return signature, build


def _lowest_bit(typingctx: Any, mask: Any) -> Any:
    """The index of the lowest set bit of a uint64 that is not 0."""
    signature = types.int64(types.uint64)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return signature, build


lanes_at_least: Any = intrinsic(_lanes_at_least)
lowest_bit: Any = intrinsic(_lowest_bit)
