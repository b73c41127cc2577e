"""Views of arrays that count no references.

numba counts the references to an array with atomic instructions, one at each slice and each call. Threads that cut the
same array into blocks then wait for each other's counters: a second thread made cross entropy no faster.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array


@intrinsic
def lent(typing_context: Any, array: Any) -> Any:
    """The same memory, owned by somebody else, who must keep it for as long: Python an argument, `hold` an array."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.return_type)(context, builder, arguments[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        return view._getvalue()

    return array(array), code


@intrinsic
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


@intrinsic
def hold(typing_context: Any, array: Any) -> Any:
    """Nothing; but an array is not freed before it."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_dummy_value()

    return types.none(array), code
