"""Channels whose output never changes, and what folding makes of them.

A channel with dead inputs has a running variance of (almost) 0. Folding multiplies its weights by
gamma / sqrt(var + eps), some 300 times: weights without any effect set the range of the whole
tensor, and crush all others onto few codes.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from qwd.quantize.folding import TRANSPOSED, fold_plan

CONSTANT = 1e-10
"""running variance below which a channel varies by rounding alone"""


@torch.no_grad()
def constant_channels(model: nn.Module) -> dict[str, Tensor]:
    """By layer, which of its output channels are constant though their weights are not 0: bool [C].

    Of the layers that a BatchNorm folds into; transposed ones are left out.
    """
    found = {}
    for name, layer, norm in _pairs(model):
        constant = norm.running_var < CONSTANT
        constant &= layer.weight.flatten(1).abs().amax(dim=1) > 0
        if constant.any():
            found[name] = constant
    return found


@torch.no_grad()
def zero_constant_channels(model: nn.Module) -> dict[str, int]:
    """Set the weights of constant channels to 0, in place; how many by layer.

    What the channel puts out stays what it was: its running mean becomes its bias, which is all
    that is left before the BatchNorm.
    """
    found = constant_channels(model)
    for name, layer, norm in _pairs(model):
        constant = found.get(name)
        if constant is not None:
            layer.weight[constant] = 0
            bias = torch.zeros_like(norm.running_mean) if layer.bias is None else layer.bias
            norm.running_mean[constant] = bias[constant].to(norm.running_mean.dtype)
    return {name: int(constant.sum()) for name, constant in found.items()}


def _pairs(model: nn.Module) -> Iterator[tuple[str, Any, Any]]:
    for name, norm in fold_plan(model).pairs:
        layer = dict(model.named_modules()).get(name)
        if layer is not None and not isinstance(layer, TRANSPOSED):
            yield name, layer, model.get_submodule(norm)
