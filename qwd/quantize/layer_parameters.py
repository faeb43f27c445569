"""Weights and biases of layers as integer kernels hold them, in float.

Weights are the w' of `qwd.quantize.arithmetic`. Biases are int32 codes, in steps of what a product
of one activation code and one weight code is worth:

    bias' = round(bias / scale) * scale,   scale = input scale * weight scale

which moves them by little, but some outputs across the midpoints of their grid. Biases stay float
where there is no such scale (minmax has an offset; a layer may read several grids) and where the
codes would leave no room for the sum of products.

Source: B. Jacob et al., Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference (CVPR 2018), section 2.4.
"""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from qwd.quantize.backend import LAYERS
from qwd.quantize.clipping import quantize_clipped
from qwd.quantize.folding import TRANSPOSED
from qwd.quantize.schemes import Scheme

LARGEST_BIAS = 2**30
"""of the codes of a bias: half of what 32 bits hold"""


class LayerParameters(nn.Module):
    """The float and the quantized parameters of a layer, which uses one or the other."""

    def __init__(self, name: str, layer: nn.Module, scheme: Scheme, input_scale: Tensor | None):
        super().__init__()
        self.name = name
        self.quantized = False
        w: Any = layer.weight
        bias: Any = layer.bias
        axis = int(isinstance(layer, TRANSPOSED)) if scheme.granularity == "channel" else None
        made = quantize_clipped(
            w, clip=scheme.clip, kind=scheme.kind, bits=scheme.weight_bits, axis=axis
        )
        rounded = bias
        if bias is not None and scheme.kind != "minmax" and input_scale is not None:
            rounded = _integer_bias(bias, input_scale * made.scale)
        # The same layout in memory, for which the same kernel is chosen.
        self.register_buffer("weight", w.detach().clone())
        self.register_buffer("weight_quantized", torch.empty_like(w).copy_(made.values))
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.register_buffer("bias_quantized", None if bias is None else rounded.detach().clone())

    def use(self, layer: nn.Module, *, quantized: bool) -> None:
        """Let ``layer`` compute with one or the other."""
        self.quantized = quantized
        for name in ("weight", "bias"):
            values = getattr(self, f"{name}_quantized" if quantized else name)
            if values is not None:
                setattr(layer, name, nn.Parameter(values, requires_grad=False))


def _integer_bias(bias: Tensor, scale: Tensor) -> Tensor:
    """The values of a bias's codes, or ``bias`` where they are none; see the module's docstring."""
    if scale.ndim:  # of a transposed convolution in groups, the scales are those of one group
        scale = scale.repeat(len(bias) // len(scale))
    # A channel of zeros has no scale of its own.
    codes = torch.where(scale > 0, bias / scale.where(scale > 0, 1.0), 0.0).round()
    if not scale.any() or codes.abs().max() > LARGEST_BIAS:
        return bias
    return torch.where(scale > 0, codes * scale, bias).to(bias.dtype)


@torch.no_grad()
def with_plain_weights(network: nn.Module) -> nn.Module:
    """``network``, changed in place, with pruned and parametrized weights as plain parameters.

    They are what they are at inference. Weights that other hooks recompute are left as they are.
    """
    plain: dict[nn.Module, nn.Module] = {}
    for module in network.modules():
        if not isinstance(module, LAYERS):
            continue
        if parametrize.is_parametrized(module):
            plain[module] = _unparametrized(module)
        elif prune.is_pruned(module):
            for name in ("weight", "bias"):
                with contextlib.suppress(ValueError):  # the other one alone
                    prune.remove(module, name)
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            if child in plain:
                parent._modules[name] = plain[child]
    return plain.get(network, network)


def _unparametrized(layer: nn.Module) -> nn.Module:
    # torch's own removal changes the class, which copies share: the user's network is of it, too.
    base: Any = type(layer).__bases__[0]
    plain: nn.Module = base.__new__(base)
    plain.__dict__ = {k: dict(v) if isinstance(v, dict) else v for k, v in vars(layer).items()}
    parametrizations: Any = plain._modules.pop("parametrizations")
    for name in parametrizations:
        value = getattr(layer, name).detach().clone()
        plain.register_parameter(name, nn.Parameter(value, requires_grad=False))
    return plain
