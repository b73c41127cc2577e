"""What numba itself lacks, as intrinsics: code of LLVM that the kernels are made of.

**Views.** numba counts the references to an array with atomic instructions, one at each slice and each call. Threads
that cut the same array into blocks then wait for each other's counters: a second thread made cross entropy no faster.
`borrowed` and `part` give views that count nothing.

**Streaming stores.** A processor fetches a line of memory before a part of it can be written. Whole lines that are
written past the caches spare it that: what is larger than they are need not be read into them first.

**Transposes.** Small squares of numbers are transposed without leaving the registers.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array


@intrinsic
def float_of_bits(typing_context: Any, bits: Any) -> Any:
    """The float32 whose bits are this int32."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), code


@intrinsic
def bits_of_float(typing_context: Any, value: Any) -> Any:
    """The bits of a float32 as an int32."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), code


@intrinsic
def choose(typing_context: Any, condition: Any, a: Any, b: Any) -> Any:
    """`a if condition else b` of one type, without a branch: a branch becomes a masked store, which is slow."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return a(types.boolean, a, a), code


@intrinsic
def larger(typing_context: Any, a: Any, b: Any) -> Any:
    """The larger of two float32; where one is NaN the other."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = context.get_value_type(types.float32)
        return builder.call(
            builder.module.declare_intrinsic("llvm.maxnum", [number], ir.FunctionType(number, [number] * 2)), arguments
        )

    return types.float32(types.float32, types.float32), code


@intrinsic
def borrowed(typing_context: Any, array: Any) -> Any:
    """The same memory, which its owner keeps for as long: Python an argument, `keep_alive` an array."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.return_type)(context, builder, arguments[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        return view._getvalue()

    return array(array), code


@intrinsic
def part(typing_context: Any, array: Any, first: Any, count: Any) -> Any:
    """array[first : first + count] of one axis, borrowed, and without a look at the bounds."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.return_type
        source = context.make_array(kind)(context, builder, arguments[0])
        view = context.make_array(kind)(context, builder)
        populate_array(
            view,
            data=builder.gep(source.data, [arguments[1]]),
            shape=[arguments[2]],
            strides=[source.itemsize],
            itemsize=source.itemsize,
            meminfo=None,
        )
        return view._getvalue()

    return array(array, types.intp, types.intp), code


@intrinsic
def keep_alive(typing_context: Any, array: Any) -> Any:
    """Nothing; but an array is not freed before it."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_dummy_value()

    return types.none(array), code


LINE = 16  # numbers of four bytes


@intrinsic
def before_line(typing_context: Any, array: Any) -> Any:
    """How many numbers of the float32 array lie before the first whole line."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        whole = context.get_value_type(types.intp)
        left = builder.and_(builder.neg(builder.ptrtoint(data, whole)), whole(4 * LINE - 1))
        return builder.lshr(left, whole(2))

    return types.intp(array), code


@intrinsic
def store_line(typing_context: Any, source: Any, out: Any, at: Any) -> Any:
    """The line of `out` that begins at `at`."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def place(k: int) -> Any:
            data = context.make_array(signature.args[k])(context, builder, arguments[k]).data
            return builder.bitcast(builder.gep(data, [arguments[2]]), ir.VectorType(ir.FloatType(), LINE).as_pointer())

        store = builder.store(builder.load(place(0), align=4), place(1), align=4 * LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.none(source, out, types.intp), code


@intrinsic
def fence(typing_context: Any) -> Any:
    """Nothing written after this is seen before what was streamed; to be called at the end of a kernel."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), code


def _square(size: int) -> Any:
    @intrinsic
    def transpose(typing_context: Any, source: Any, first: Any, step: Any, out: Any, into: Any, stride: Any) -> Any:
        """out[into + c * stride + r] = source[first + r * step + c] for every r and c below `size`; float32."""

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = ir.VectorType(ir.FloatType(), size)

            def place(array: int, begin: Any, apart: Any, k: int) -> Any:
                data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
                at = builder.add(begin, builder.mul(apart, apart.type(k)))
                return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())

            lines = [builder.load(place(0, arguments[1], arguments[2], k), align=4) for k in range(size)]
            for k, line in enumerate(_transposed(builder, lines)):
                builder.store(line, place(3, arguments[4], arguments[5], k), align=4)
            return context.get_dummy_value()

        whole = types.intp
        return types.none(source, whole, whole, out, whole, whole), code

    return transpose


def _transposed(builder: Any, lines: list[Any]) -> list[Any]:
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


transpose_4, transpose_8 = _square(4), _square(8)
