"""What the kernels need of numba: how they are compiled, and three instructions it does not offer.

The cache of a kernel notices changes of the kernel's own file, not of this one.
"""

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def compiled(function: Any) -> Any:
    """A function compiled at its first call, kept for later processes where there is a place."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no place for a cache
        return numba.njit(**options)(function)


READ_SOON = (0, 3, 1)
"""of LLVM's prefetch: to be read, to be kept in every cache, data"""

inlined = numba.njit(inline="always", error_model="numpy")


@intrinsic
def fma(context, a, b, c):
    """a * b + c, rounded once."""
    double = types.float64

    def generate(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return double(double, double, double), generate


@intrinsic
def bits(context, x):
    """The int64 of the same bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def prefetch(context, x, index):
    """Ask for the memory of x[index], which need not exist."""

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        flag = ir.IntType(32)
        address = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [address, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address], kind)
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), address)
        builder.call(function, [place, *(ir.Constant(flag, n) for n in READ_SOON)])
        return context.get_dummy_value()

    return types.void(x, index), generate
