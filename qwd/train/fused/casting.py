"""The precision of an ordinary forward pass, under vmap: ``--amp``."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from qwd.train.forward import precision

MIXED: tuple[Any, ...] = (F.batch_norm, F.instance_norm)
"""Normalisations of torch that take bfloat16 with float32 parameters and statistics."""
MIXED_ON_A_CPU: tuple[Any, ...] = (F.layer_norm, F.group_norm)
"""Others that do so on a CPU; on a GPU autocast gives them float32."""


@contextlib.contextmanager
def precision_of_replicas(device: torch.device, amp: bool) -> Iterator[None]:
    """`qwd.train.forward.precision`, for a forward pass under ``vmap(grad)``."""
    mixed = MIXED + (MIXED_ON_A_CPU if device.type == "cpu" else ())
    with precision(device, amp), _Normalising(mixed) if amp else contextlib.nullcontext():
        yield


class _Normalising(TorchFunctionMode):
    """Normalises bfloat16 in float32, and rounds the result.

    torch's kernels compute the same in one pass. vmap takes them apart, multiplies by the float32
    parameters itself, and then has kernels of the backward pass that lack this pair of dtypes.
    """

    def __init__(self, functions: tuple[Any, ...]):
        super().__init__()
        self.functions = functions

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in self.functions or args[0].dtype != torch.bfloat16:
            return func(*args, **kwargs)
        x, *others = args
        return func(x.float(), *others, **kwargs).to(x.dtype)
