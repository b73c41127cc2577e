"""Views of arrays that count no references.

numba counts the references to an array with atomic instructions, one at each slice and each call. Threads that cut the
same array into blocks then wait for each other's counters: a second thread made cross entropy no faster.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from nucleate.losses.fused.compiled import step


# numba has no types, so its decorators cannot be checked.
@intrinsic  # type: ignore[untyped-decorator]
def lent(typing_context: Any, array: Any) -> Any:
    """The same memory, owned by somebody else, who must keep it for as long: Python an argument, `hold` an array."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.return_type)(context, builder, arguments[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        return view._getvalue()

    return array(array), code


@intrinsic  # type: ignore[untyped-decorator]
def part(typing_context: Any, array: Any, first: Any, count: Any) -> Any:
    """array[first : first + count] of one axis, lent, and without a look at the bounds."""

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


@intrinsic  # type: ignore[untyped-decorator]
def hold(typing_context: Any, array: Any) -> Any:
    """Nothing; but an array is not freed before it."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_dummy_value()

    return types.none(array), code


def _hint(write: int) -> Any:
    """Ask for the cache line of array[at], to be read or, where `write` is 1, written."""

    @intrinsic  # type: ignore[untyped-decorator]
    def hint(typing_context: Any, array: Any, at: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            number, byte = ir.IntType(32), ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
            prefetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
            where = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
            builder.call(prefetch, [where, number(write), number(2), number(1)])
            return context.get_dummy_value()

        return types.none(array, types.intp), code

    return hint


_to_read, _to_write = _hint(0), _hint(1)


@step
def ask(array: Any, first: int, count: int, write: bool) -> None:
    """Have memory that is wanted soon come while something else is computed; behind the end of the array nothing."""
    line = 64 // array.itemsize
    last = min(first + count, array.size)
    if write:
        for at in range(first, last, line):
            _to_write(array, at)
    else:
        for at in range(first, last, line):
            _to_read(array, at)
