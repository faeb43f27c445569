"""What the kernels need of numba: how they are compiled, and two instructions it does not offer.

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
