"""Vector instructions numba can't spell: compare 64 scores at once, their maxima, an inner product in a fixed order.

Scores are looked at as integers. A float's bits order like a sign-and-magnitude integer, so after ``bits ^ flip`` an
unsigned comparison is the comparison of the floats: ``flip`` is the sign bit for a positive bound and all ones
otherwise. The same code thus reads float32 (32-bit lanes) and bfloat16 (16-bit lanes, the upper half of a float32).
The intermediate representation below is portable: the compiler splits it to whatever vector width the machine has.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 64
SUM_LANES = 16


def _lanes_at_least(typingctx: Any, row: Any, start: Any, flip: Any, bound: Any) -> Any:
    """uint64 with bit j set where ``row[start + j] ^ flip >= bound``, unsigned; reads LANES lanes of int16 or int32."""
    signature = types.uint64(row, types.int64, types.uint32, types.uint32)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = signature.args[0].dtype.bitwidth
        lane, lanes = ir.IntType(bits), ir.VectorType(ir.IntType(bits), LANES)
        vector = _load(builder, _address(context, builder, signature.args[0], args[0]), args[1], lanes, bits // 8)

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


def _lane_peaks(typingctx: Any, row: Any, width: Any, peaks: Any) -> Any:
    """``peaks[j]`` becomes the largest score of ``row[j]``, ``row[j + LANES]``, ...; width is a multiple of LANES."""
    signature = types.void(row, types.int64, peaks)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = signature.args[0].dtype.bitwidth
        lanes = ir.VectorType(ir.IntType(bits), LANES)
        source = _address(context, builder, signature.args[0], args[0])
        target = _address(context, builder, signature.args[2], args[2])
        last_bit = ir.Constant(lanes, [bits - 1] * LANES)
        all_but_sign = ir.Constant(lanes, [2 ** (bits - 1) - 1] * LANES)

        def reordered(vector: Any) -> Any:
            """Bits to integers that order like the floats, and back."""
            return builder.xor(vector, builder.and_(builder.ashr(vector, last_bit), all_but_sign))

        best = cgutils.alloca_once_value(builder, ir.Constant(lanes, [-(2 ** (bits - 1))] * LANES))  # type: ignore[no-untyped-call]
        step = ir.Constant(ir.IntType(64), LANES)
        with cgutils.for_range(builder, builder.sdiv(args[1], step)) as loop:
            score = reordered(_load(builder, source, builder.mul(loop.index, step), lanes, bits // 8))
            so_far = builder.load(best)
            builder.store(builder.select(builder.icmp_signed(">", score, so_far), score, so_far), best)
        store = builder.store(reordered(builder.load(best)), builder.bitcast(target, lanes.as_pointer()))
        store.align = bits // 8
        return context.get_dummy_value()

    return signature, build


def _sum_of_products(typingctx: Any, left: Any, right: Any, count: Any) -> Any:
    """The float64 inner product of the first ``count`` float32 of two rows, rounded down to whole SUM_LANES.

    Products are exact; SUM_LANES partial sums run side by side and are added pairwise: one order on every machine.
    """
    signature = types.float64(left, right, types.int64)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        single, double = (ir.VectorType(kind, SUM_LANES) for kind in (ir.FloatType(), ir.DoubleType()))
        rows = [_address(context, builder, signature.args[side], args[side]) for side in range(2)]
        total = cgutils.alloca_once_value(builder, ir.Constant(double, [0.0] * SUM_LANES))  # type: ignore[no-untyped-call]
        step = ir.Constant(ir.IntType(64), SUM_LANES)
        with cgutils.for_range(builder, builder.sdiv(args[2], step)) as loop:
            at = builder.mul(loop.index, step)
            left, right = (builder.fpext(_load(builder, row, at, single, 4), double) for row in rows)
            builder.store(builder.fadd(builder.load(total), builder.fmul(left, right)), total)
        whole = builder.load(total)
        sums = [builder.extract_element(whole, ir.Constant(ir.IntType(32), lane)) for lane in range(SUM_LANES)]
        while len(sums) > 1:
            half = len(sums) // 2
            sums = [builder.fadd(low, high) for low, high in zip(sums[:half], sums[half:], strict=True)]
        return sums[0]

    return signature, build


def _address(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    return context.make_array(array_type)(context, builder, array).data


def _load(builder: Any, address: Any, at: Any, lanes: Any, alignment: int) -> Any:
    vector = builder.load(builder.bitcast(builder.gep(address, [at]), lanes.as_pointer()))
    vector.align = alignment
    return vector


lanes_at_least: Any = intrinsic(_lanes_at_least)
lane_peaks: Any = intrinsic(_lane_peaks)
lowest_bit: Any = intrinsic(_lowest_bit)
sum_of_products: Any = intrinsic(_sum_of_products)
