"""Sixteen floats at a time: the vector operations that the spike kernels are made of.

LLVM will not keep a sum over table rows in vector registers by itself, because it cannot prove that
the rows and the sum lie apart. These intrinsics say it; they compile to AVX-512, AVX2 or NEON,
whatever the machine has. Arrays are contiguous, and nothing is checked.

numba's disk cache does not see a change of this file in kernels of another: touch `spikes.py` too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending
from numba.core import cgutils as numba_cgutils

LANES = 16

operation: Callable[[Any], Any] = extending.intrinsic
types: Any = numba.types
cgutils: Any = numba_cgutils

_I64 = ir.IntType(64)
_VECTOR = ir.VectorType(ir.FloatType(), LANES)


@operation
def add_selected(
    context: Any, totals: Any, pixel: Any, table: Any, first: Any, word: Any, wide: Any
) -> Any:
    """Add to the sums of a pixel the rows that the half-bytes of `word` select.

    totals: (n, C) float32, C 16 or 32, of which row `pixel` is added to. table: flat float32, from
    `first` on 16 rows of C for each half-byte, lowest first. word: uint64 below 2**32. wide: if
    it has eight half-bytes instead of four, and if C is 32 instead of 16.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums, rows = (
            context.make_array(signature.args[k])(context, builder, args[k]) for k in (0, 2)
        )
        wide_in, wide_out = cgutils.unpack_tuple(builder, args[5], 2)
        # Floats of a row as a power of two: a pattern, so shifted, is the distance to its row.
        shift = builder.add(ir.Constant(_I64, 4), builder.zext(wide_out, _I64))

        def add_half_bytes(groups: range, half: int) -> None:
            vectors = []
            for group in groups:
                pattern = builder.lshr(args[4], ir.Constant(_I64, 4 * group))
                pattern = builder.and_(pattern, ir.Constant(_I64, 15))
                row = builder.add(pattern, ir.Constant(_I64, 16 * group))
                start = builder.add(args[3], builder.shl(row, shift))
                cell = _at(builder, rows.data, builder.add(start, ir.Constant(_I64, half)))
                vectors.append(builder.load(cell, align=4))
            a, b, c, d = vectors
            added = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
            place = builder.add(builder.shl(args[1], shift), ir.Constant(_I64, half))
            at = _at(builder, sums.data, place)
            builder.store(builder.fadd(builder.load(at, align=4), added), at, align=4)

        add_half_bytes(range(4), 0)
        with builder.if_then(wide_out):
            add_half_bytes(range(4), LANES)
        with builder.if_then(wide_in):
            add_half_bytes(range(4, 8), 0)
            with builder.if_then(wide_out):
                add_half_bytes(range(4, 8), LANES)
        return context.get_dummy_value()

    widths = types.UniTuple(types.boolean, 2)
    return types.void(totals, types.uint64, table, types.uint64, types.uint64, widths), codegen


@operation
def fires(context: Any, potentials: Any, first: Any) -> Any:
    """Which of `potentials[first : first + 16]` are above zero: bit 0 of a uint32 is the first."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        lanes = builder.load(_at(builder, array.data, args[1]), align=4)
        return _above_zero(builder, lanes)

    return types.uint32(potentials, types.uint64), codegen


@operation
def add_product(context: Any, total: Any, vector: Any, table: Any, row: Any) -> Any:
    """`total += vector @ table[row : row + vector.size]`.

    total: (C,) float32, C a multiple of 16; vector: (n,) float32, n a multiple of 4; table: (m, C)
    float32. Four partial sums are added up last.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:3], args[:3], strict=True)
        ]
        (columns,) = cgutils.unpack_tuple(builder, arrays[0].shape, 1)
        (size,) = cgutils.unpack_tuple(builder, arrays[1].shape, 1)
        zero, four = ir.Constant(_I64, 0), ir.Constant(_I64, 4)
        # LLVM turns these variables into registers.
        parts = [cgutils.alloca_once(builder, _VECTOR) for _ in range(4)]
        with cgutils.for_range_slice(builder, zero, columns, ir.Constant(_I64, LANES)) as (at, _):
            for part in parts:
                builder.store(ir.Constant(_VECTOR, [0.0] * LANES), part)
            with cgutils.for_range_slice(builder, zero, size, four) as (first, _):
                for i, part in enumerate(parts):
                    place = builder.add(first, ir.Constant(_I64, i))
                    factor = builder.load(builder.gep(arrays[1].data, [place], inbounds=True))
                    start = builder.mul(builder.add(args[3], place), columns)
                    weights = _at(builder, arrays[2].data, builder.add(start, at))
                    product = builder.fmul(
                        _spread(builder, factor), builder.load(weights, align=4), flags=["contract"]
                    )
                    so_far = builder.load(part)
                    builder.store(builder.fadd(so_far, product, flags=["contract"]), part)
            a, b, c, d = (builder.load(part) for part in parts)
            added = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
            cell = _at(builder, arrays[0].data, at)
            builder.store(builder.fadd(builder.load(cell, align=4), added), cell, align=4)
        return context.get_dummy_value()

    return types.void(total, vector, table, types.uint64), codegen


@operation
def fires_between(context: Any, line: Any, left: Any, right: Any, share: Any) -> Any:
    """As `fires`, of `a + share * (b - a)` with a, b = the 16 floats from `left` and `right`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        a, b = (builder.load(_at(builder, array.data, i), align=4) for i in args[1:3])
        step = builder.fmul(_spread(builder, args[3]), builder.fsub(b, a), flags=["contract"])
        return _above_zero(builder, builder.fadd(a, step, flags=["contract"]))

    return types.uint32(line, types.uint64, types.uint64, types.float32), codegen


def _above_zero(builder: Any, lanes: Any) -> Any:
    above = builder.fcmp_ordered(">", lanes, ir.Constant(_VECTOR, [0.0] * LANES))
    return builder.zext(builder.bitcast(above, ir.IntType(LANES)), ir.IntType(32))


def _at(builder: Any, data: Any, index: Any) -> Any:
    """Address of the 16 floats from `data[index]`."""
    return builder.bitcast(builder.gep(data, [index], inbounds=True), _VECTOR.as_pointer())


def _spread(builder: Any, value: Any) -> Any:
    """A vector of 16 times `value`."""
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    single = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(single, nothing, zeros)
