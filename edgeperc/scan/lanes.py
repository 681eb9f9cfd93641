"""Sixteen floats as one value in numba kernels: `LANES` channels that take the same steps.

    a, b = load(table, first), spread(np.float32(2))
    store(out, first, a * b + a)

LLVM rarely finds such vectors by itself, because it cannot prove that arrays lie apart. Written so
they compile to AVX-512, AVX2 or NEON, whatever the machine has. `a * b + c` may become one rounding
instead of two; nothing else is rearranged. Arrays are contiguous float32 of any number of
dimensions, indexed as if flat, and nothing is checked. In plain Python none of this runs.

numba's disk cache does not see a change of this file in kernels of another: touch those, too.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending
from numba.core.typing import templates as numba_templates

LANES = 16

types: Any = numba.types
templates: Any = numba_templates
models: Any = extending.models
register_model: Any = extending.register_model
operation: Callable[[Any], Any] = extending.intrinsic
lowers: Callable[..., Callable[[Any], Any]] = extending.lower_builtin

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(ir.IntType(32), LANES)
_I32 = ir.IntType(32)
_FUSED = ["contract"]


class _Lanes(types.Type):  # type: ignore[misc]
    """What numba calls such a value."""


_lanes: Any = _Lanes(name="Lanes")


@register_model(_Lanes)  # type: ignore[untyped-decorator]
class _Model(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _register(symbol: Any, build: str) -> None:
    """Let `symbol` work on two values."""

    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, build)(*args, flags=_FUSED)

    cases = [templates.signature(_lanes, _lanes, _lanes)]
    template = type(build, (templates.ConcreteTemplate,), {"cases": cases})
    templates.infer_global(symbol)(template)
    lowers(symbol, _lanes, _lanes)(lowered)


for _symbol, _build in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _register(_symbol, _build)


@operation
def load(context: Any, array: Any, first: Any) -> Any:
    """`array.flat[first : first + 16]`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_at(context, builder, sig, args), align=4)

    return _lanes(array, types.int64), codegen


@operation
def store(context: Any, array: Any, first: Any, value: Any) -> Any:
    """Set `array.flat[first : first + 16]`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _at(context, builder, sig, args), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, _lanes), codegen


@operation
def spread(context: Any, value: Any) -> Any:
    """Sixteen times a float32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _repeat(builder, args[0])

    return _lanes(types.float32), codegen


@operation
def within(context: Any, value: Any, lowest: Any, highest: Any) -> Any:
    """Each lane, cut to [lowest, highest]; NaN stays."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value, lowest, highest = args[0], *(_repeat(builder, limit) for limit in args[1:])
        raised = builder.select(builder.fcmp_ordered("<", value, lowest), lowest, value)
        return builder.select(builder.fcmp_ordered(">", raised, highest), highest, raised)

    return _lanes(_lanes, types.float32, types.float32), codegen


@operation
def zero_below(context: Any, value: Any, size: Any, limit: Any) -> Any:
    """`value` where `abs(size) >= limit` or is NaN, and zero elsewhere."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        limit = _repeat(builder, args[2])
        above, below = builder.fsub(ir.Constant(_VECTOR, [0.0] * LANES), limit), limit
        small = builder.and_(
            builder.fcmp_ordered(">", args[1], above), builder.fcmp_ordered("<", args[1], below)
        )
        return builder.select(small, ir.Constant(_VECTOR, [0.0] * LANES), args[0])

    return _lanes(_lanes, _lanes, types.float32), codegen


@operation
def power_of_two(context: Any, shifted: Any) -> Any:
    """2**k of lanes that hold k + 1.5 * 2**23, k a whole number from -126 to 127; 0 for -127."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _WORDS)
        biased = builder.add(bits, ir.Constant(_WORDS, [127] * LANES))
        return builder.bitcast(builder.shl(biased, ir.Constant(_WORDS, [23] * LANES)), _VECTOR)

    return _lanes(_lanes), codegen


@operation
def total(context: Any, value: Any) -> Any:
    """Sum of the lanes, a float32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value, width = args[0], LANES
        while width > 1:
            width //= 2
            low, high = (
                ir.Constant(ir.VectorType(_I32, width), [*range(first, first + width)])
                for first in (0, width)
            )
            value = builder.fadd(*(builder.shuffle_vector(value, value, m) for m in (low, high)))
        return builder.extract_element(value, ir.Constant(_I32, 0))

    return types.float32(_lanes), codegen


@operation
def transpose(
    context: Any, source: Any, first: Any, stride: Any, target: Any, start: Any, step: Any
) -> Any:
    """Copy 16 rows of 16 floats as columns.

    Row i is `source.flat[first + i * stride :]`; it becomes column i of the rows
    `target.flat[start + k * step :]`.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def address(array: int, row: int) -> Any:
            offset = builder.mul(args[array + 2], ir.Constant(ir.IntType(64), row))
            place = [args[array], builder.add(args[array + 1], offset)]
            return _at(context, builder, [sig.args[array]], place)

        rows = [builder.load(address(0, row), align=4) for row in range(LANES)]
        # Four rounds of a perfect shuffle turn index bits (row, lane) into (lane, row).
        for _ in range(4):
            half = LANES // 2
            rows = [
                builder.shuffle_vector(rows[i], rows[i + half], _zip(part))
                for i in range(half)
                for part in (0, half)
            ]
        for row, value in enumerate(rows):
            builder.store(value, address(3, row), align=4)
        return context.get_dummy_value()

    place = types.int64
    return types.void(source, place, place, target, place, place), codegen


def _zip(first: int) -> Any:
    """Mask that takes lanes from `first` on of two vectors by turns."""
    pairs = ((first + k, LANES + first + k) for k in range(LANES // 2))
    return ir.Constant(_WORDS, [lane for pair in pairs for lane in pair])


def _at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Address of the 16 floats from the array's element `args[1]` on."""
    kinds = sig if isinstance(sig, list) else sig.args
    array = context.make_array(kinds[0])(context, builder, args[0])
    cell = builder.gep(array.data, [args[1]], inbounds=True)
    return builder.bitcast(cell, _VECTOR.as_pointer())


def _repeat(builder: Any, value: Any) -> Any:
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    single = builder.insert_element(nothing, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(single, nothing, ir.Constant(_WORDS, [0] * LANES))
