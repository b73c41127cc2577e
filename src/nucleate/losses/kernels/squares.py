"""Small squares of numbers, turned about their diagonal without leaving the registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _square(size: int) -> Any:
    @intrinsic
    def turn(typing_context: Any, source: Any, first: Any, step: Any, out: Any, into: Any, stride: Any) -> Any:
        """out[into + c * stride + r] = source[first + r * step + c] for every r and c below `size`; float32."""

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = ir.VectorType(ir.FloatType(), size)

            def place(array: int, begin: Any, apart: Any, k: int) -> Any:
                data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
                at = builder.add(begin, builder.mul(apart, apart.type(k)))
                return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())

            lines = [builder.load(place(0, arguments[1], arguments[2], k), align=4) for k in range(size)]
            for k, line in enumerate(_turned(builder, lines)):
                builder.store(line, place(3, arguments[4], arguments[5], k), align=4)
            return context.get_dummy_value()

        whole = types.intp
        return types.none(source, whole, whole, out, whole, whole), code

    return turn


def _turned(builder: Any, lines: list[Any]) -> list[Any]:
    """Quarters change places across the diagonal; then, in each of them, their quarters do, down to single numbers."""
    size, half = len(lines), len(lines) // 2
    while half:
        upper = [lane if not lane & half else size + lane - half for lane in range(size)]
        lower = [lane + half if not lane & half else size + lane for lane in range(size)]
        choices = [ir.Constant(ir.VectorType(ir.IntType(32), size), c) for c in (upper, lower)]
        for r in range(size):
            if not r & half:
                pair = lines[r], lines[r + half]
                lines[r], lines[r + half] = (builder.shuffle_vector(*pair, choice) for choice in choices)
        half //= 2
    return lines


turn_4, turn_8 = _square(4), _square(8)
