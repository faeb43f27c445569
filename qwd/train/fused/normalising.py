"""Normalisation of all replicas: what torch's own kernels do, where vmap takes them apart.

vmap normalises, and then multiplies by weights and adds biases in passes of their own. In bfloat16
it also meets kernels of the backward pass that lack bfloat16 with float32 weights.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

MIXED = (F.batch_norm, F.instance_norm)
"""Functions that take bfloat16 with float32 weights and statistics."""
MIXED_ON_A_CPU = (F.layer_norm, F.group_norm)
"""Others that do so on a CPU; on a GPU autocast gives them float32."""


class Normalising(TorchFunctionMode):
    """Within it, under ``vmap(grad)``, functions of `torch.nn.functional` normalise as alone.

    BatchNorm of all replicas is one BatchNorm of all their channels. Whatever else takes bfloat16
    is computed in float32 and rounded, as the kernels do in one pass.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm and kwargs["training"]:
            of: Any = *args, kwargs["weight"], kwargs["bias"], kwargs["momentum"], kwargs["eps"]
            if all(each is not None for each in of):
                return _batch_norm(*of)
        if func in MIXED or (func in MIXED_ON_A_CPU and args[0].device.type == "cpu"):
            x, *others = args
            if x.dtype == torch.bfloat16:
                return func(x.float(), *others, **kwargs).to(x.dtype)
        return func(*args, **kwargs)


def _batch_norm(
    x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor, momentum: float, eps: float
) -> Tensor:
    """In training, of [B, C, ...]; ``mean`` and ``var`` change in place."""
    result: Any = _BatchNorm.apply(x, weight, bias, mean, var, momentum, eps)
    normalised, _, _, *after = result
    mean.copy_(after[0])
    var.copy_(after[1])
    return normalised


class _BatchNorm(Function):
    """(x, weight, bias, mean, var, momentum, eps) -> normalised x, mean and 1 / std of the batch,
    mean and var after it."""

    @staticmethod
    def forward(x: Tensor, *of: Any) -> Any:
        *tensors, momentum, eps = of
        norm = torch.ops.aten._native_batch_norm_legit_functional.default
        return norm(x, *tensors, True, momentum, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, weight, *_, ctx.eps = inputs
        _, *statistics = output
        ctx.mark_non_differentiable(*statistics)
        ctx.save_for_backward(x, weight, *statistics[:2])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        found: Any = _BatchNormBackward.apply(gradients[0], *ctx.saved_tensors, ctx.eps)
        return *found, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *of: Any) -> Any:
        result: Any = _BatchNorm.apply(*_as_channels(info.batch_size, in_dims, of, images=1))
        return _as_replicas(info.batch_size, result)


class _BatchNormBackward(Function):
    """(gradient, x, weight, mean, 1 / std, eps) -> gradients of x, weight and bias."""

    @staticmethod
    def forward(gradient: Tensor, *of: Any) -> Any:
        x, weight, mean, inverse, eps = of
        given = gradient, x, weight, None, None, mean, inverse
        return torch.ops.aten.native_batch_norm_backward.default(*given, True, eps, [True] * 3)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, *of: Any) -> Any:
        given = _as_channels(info.batch_size, in_dims, of, images=2)
        result: Any = _BatchNormBackward.apply(*given)
        return _as_replicas(info.batch_size, result)


def _as_channels(
    replicas: int, in_dims: Sequence[int | None], of: Sequence[Any], images: int
) -> list[Any]:
    """The first ``images`` tensors as [B, R * C, ...], the others as [R * C], numbers as they are.

    ``in_dims``: where the replicas are; None where all have the same.
    """
    found: list[Any] = []
    for place, (each, dim) in enumerate(zip(of, in_dims, strict=True)):
        if not isinstance(each, Tensor):
            found.append(each)
            continue
        to = 1 if place < images else 0
        if dim is None:
            shape = [-1] * (each.dim() + 1)
            shape[to] = replicas
            stacked = each.unsqueeze(to).expand(shape)
        else:
            stacked = each.movedim(dim, to)
        found.append(stacked.flatten(to, to + 1))
    return found


def _as_replicas(replicas: int, found: Sequence[Tensor]) -> tuple[Any, Any]:
    """Of a tensor [B, R * C, ...] and others [R * C] those of each replica, and where these are."""
    first, *others = found
    parts = first.unflatten(1, (replicas, -1)), *(x.unflatten(0, (replicas, -1)) for x in others)
    return parts, (1, *[0] * len(others))
