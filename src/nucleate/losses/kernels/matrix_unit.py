"""Products of bfloat16 tiles on the processor's matrix unit (AMX), as functions that kernels are made of.

A float32 is held as the sum of two bfloat16, "high" and "low". A product of two such numbers is high high + high low +
low high, added up in float32: its relative error is about 2^-17, that of one bfloat16 product 2^-9.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_REQUEST, _PERMISSION, _TILE_DATA = 158, 0x1023, 18  # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
_BYTE, _WORD, _ROW = ir.IntType(8), ir.IntType(64), 64  # a tile has 16 rows of 64 bytes
_POINTER = ir.PointerType(_BYTE)


def at_hand() -> bool:
    """Whether this processor has the unit and this process may use it."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    features = llvmlite.binding.get_host_cpu_features()
    if not (features.get("amx-bf16") and features.get("amx-tile")):
        return False
    return bool(ctypes.CDLL(None).syscall(_REQUEST, _PERMISSION, _TILE_DATA) == 0)


def _call(builder: Any, name: str, *arguments: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [a.type for a in arguments])
    builder.call(builder.module.declare_intrinsic(f"llvm.x86.{name}", (), kind), arguments)


@intrinsic
def begin(typing_context: Any) -> Any:
    """Set up eight tiles of 16 rows of 64 bytes in this thread."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # The palette, and for each tile its bytes in a row and its rows.
        setting = bytearray(64)
        setting[0] = 1
        for tile in range(8):
            setting[16 + 2 * tile] = _ROW
            setting[48 + tile] = 16
        held = cgutils.alloca_once_value(builder, ir.Constant(ir.ArrayType(_BYTE, 64), setting))
        _call(builder, "ldtilecfg", builder.bitcast(held, _POINTER))
        return context.get_dummy_value()

    return types.none(), code


@intrinsic
def end(typing_context: Any) -> Any:
    """Give the tiles back."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _call(builder, "tilerelease")
        return context.get_dummy_value()

    return types.none(), code


@intrinsic
def multiply(
    typing_context: Any, a: Any, a_low: Any, a_stride: Any, b: Any, b_low: Any, b_stride: Any, b_next: Any, c: Any,
    c_stride: Any, steps: Any, add: Any,
) -> Any:  # fmt: skip
    """c = a b, or c += a b where `add`: 32 x 32 float32 from 32 x 32 steps and 32 steps x 32 numbers in two parts.

    All are arrays of which the first elements are taken; strides are bytes from a row to the next. Rows of `b` hold
    two rows of the matrix in turn, as the unit wants them; its right half begins `b_next` bytes behind the left.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def pointer(n: int) -> Any:
            made = context.make_array(signature.args[n])(context, builder, arguments[n])
            return builder.bitcast(made.data, _POINTER)

        high_a, low_a, high_b, low_b, out = (pointer(n) for n in (0, 1, 3, 4, 7))
        a_row, b_row, right, c_row, count = (arguments[n] for n in (2, 5, 6, 8, 9))

        def tile(n: int) -> Any:
            return ir.Constant(_BYTE, n)

        def moved(base: Any, *offsets: Any) -> Any:
            for offset in offsets:
                base = builder.gep(base, [offset])
            return base

        sixteen = ir.Constant(_WORD, 16)
        a_down, c_down = builder.mul(a_row, sixteen), builder.mul(c_row, sixteen)
        corners = [moved(out), moved(out, ir.Constant(_WORD, _ROW)), moved(out, c_down),
                   moved(out, c_down, ir.Constant(_WORD, _ROW))]  # fmt: skip
        with builder.if_else(arguments[10]) as (then, otherwise):
            with then:
                for n, corner in enumerate(corners):
                    _call(builder, "tileloadd64", tile(n), corner, c_row)
            with otherwise:
                for n in range(4):
                    _call(builder, "tilezero", tile(n))
        with cgutils.for_range(builder, count) as loop:
            along_a = builder.mul(loop.index, ir.Constant(_WORD, _ROW))
            along_b = builder.mul(loop.index, builder.mul(b_row, sixteen))

            def load_a(base: Any) -> None:
                _call(builder, "tileloadd64", tile(4), moved(base, along_a), a_row)
                _call(builder, "tileloadd64", tile(5), moved(base, along_a, a_down), a_row)

            def load_b(base: Any) -> None:
                _call(builder, "tileloadd64", tile(6), moved(base, along_b), b_row)
                _call(builder, "tileloadd64", tile(7), moved(base, along_b, right), b_row)

            def add_products() -> None:
                for n in range(4):
                    _call(builder, "tdpbf16ps", tile(n), tile(4 + n // 2), tile(6 + n % 2))

            load_a(high_a)
            load_b(low_b)
            add_products()
            load_b(high_b)
            add_products()
            load_a(low_a)
            add_products()
        for n, corner in enumerate(corners):
            _call(builder, "tilestored64", tile(n), corner, c_row)
        return context.get_dummy_value()

    word = types.int64
    return types.none(a, a_low, word, b, b_low, word, word, c, word, word, types.boolean), code
