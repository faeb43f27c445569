"""The kernels of a GPU on tensors of the CPU, by Triton's interpreter."""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest

import qwd.quantize
from qwd.quantize.kernels_numba import fma

OURS = ("kernels_device", "kernels_table")


@contextlib.contextmanager
def interpreted() -> Iterator[ModuleType]:
    """`qwd.quantize.kernels_device`, interpreted.

    Triton asks when it is imported whether to compile or to interpret: it is imported anew, and the
    modules of before are put back.
    """
    before = _taken()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        kernels: Any = importlib.import_module("qwd.quantize.kernels_device")
        interpreter: Any = importlib.import_module("triton.runtime.interpreter")
        kernels.table = Table(kernels.table, interpreter.TensorHandle, kernels.tl)

        def create_fma(_: Any, x: Any, y: Any, z: Any) -> Any:
            return interpreter.TensorHandle(_fused(x.data, y.data, z.data), z.dtype)

        # Its own rounds twice.
        patch.setattr(interpreter.InterpreterBuilder, "create_fma", create_fma)
        # It replaces the language at every call of a function, which takes most of the time.
        for function in (kernels.moments, kernels.tl.sum):
            interpreter._patch_lang(function.fn)
        patch.setattr(interpreter, "_patch_lang", lambda _: SimpleNamespace(restore=lambda: None))
        try:
            # Without finite elements, and before the CPU takes over, a GPU computes with NaN.
            with np.errstate(all="ignore"):
                yield kernels
        finally:
            _taken()
            sys.modules.update(before)
            for name in OURS:
                if f"qwd.quantize.{name}" in before:
                    setattr(qwd.quantize, name, before[f"qwd.quantize.{name}"])


def _taken() -> dict[str, ModuleType]:
    """The modules of Triton, without its library, and those made with it, no longer imported."""
    for name in OURS:
        qwd.quantize.__dict__.pop(name, None)
    return {
        name: sys.modules.pop(name)
        for name in list(sys.modules)
        if (name.split(".")[0] == "triton" and not name.startswith("triton._C"))
        or name in [f"qwd.quantize.{ours}" for ours in OURS]
    }


@numba.vectorize([numba.float64(numba.float64, numba.float64, numba.float64)])
def _fused(a, b, c):
    return fma(a, b, c)  # pyright: ignore[reportCallIssue]


class Table:
    """`qwd.quantize.kernels_table` with an array for the memory of a multiprocessor.

    The interpreter runs one program after another.
    """

    def __init__(self, table: Any, handle: Any, tl: Any) -> None:
        self.CODES, self.REPLICAS, self.RULES = table.CODES, table.REPLICAS, table.RULES
        self.handle, self.tl = handle, tl
        self.rows = np.zeros(0)

    def create(self) -> int:
        self.rows = np.zeros((self.CODES.value + self.RULES.value, self.REPLICAS.value), np.int32)
        return 0

    def count(self, table: Any, code: Any, replica: Any) -> None:
        np.add.at(self.rows, (code.handle.data, replica.handle.data), 1)

    def count_beyond(
        self, table: Any, distance: Any, near: Any, far: Any, farther: Any, replica: Any
    ) -> None:
        for rule, limit in enumerate((near, far, farther)):
            beyond = distance.handle.data > limit.handle.data
            np.add.at(self.rows, (self.CODES.value + rule, replica.handle.data[beyond]), 1)

    def total(self, table: Any) -> tuple[Any, Any]:
        sums = self.rows.sum(axis=1, dtype=np.int32)
        return tuple(
            self.tl.tensor(
                self.handle(part, self.tl.int32), self.tl.block_type(self.tl.int32, [part.size])
            )
            for part in np.split(sums, [self.CODES.value])
        )
