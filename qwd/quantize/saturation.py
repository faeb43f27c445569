"""Whether integer kernels lose large sums, layer by layer.

x86 kernels without VNNI add two products of an unsigned and a signed byte in 16 bits, and clamp
there: 2 * 255 * 127 does not fit. FBGEMM's depthwise kernels do so on every processor. A layer of
the largest weights on the largest activations shows it: its sum must come out whole.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDEST = 64
"""channels per group of a trial; sums of more would leave 32 bits"""


def saturating_layers(network: nn.Module, *, affine: bool, per_channel: bool) -> list[str]:
    """Names of the convolutions and linear layers whose kernels lose sums of 8-bit products.

    Of the current engine, with weights that have a zero point (``affine``) or none. Layers of one
    geometry are tried once. A layer that the engine has no kernel for is not named.
    """
    lossy: dict[tuple[Any, ...], bool] = {}
    names = []
    for name, layer in network.named_modules():
        geometry = _geometry(layer)
        if geometry is None:
            continue
        if geometry not in lossy:
            lossy[geometry] = _saturates(geometry, affine, per_channel)
        if lossy[geometry]:
            names.append(name)
    return names


def _geometry(layer: nn.Module) -> tuple[Any, ...] | None:
    """What decides on a kernel: channels per group, groups, and of convolutions the window."""
    if isinstance(layer, nn.Linear):
        return min(layer.in_features, WIDEST), min(layer.out_features, WIDEST), 1
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and not isinstance(layer.padding, str):
        groups = layer.groups
        channels = (min(n // groups, WIDEST) for n in (layer.in_channels, layer.out_channels))
        return *channels, groups, layer.kernel_size, layer.stride, layer.padding, layer.dilation
    return None


def _saturates(geometry: tuple[Any, ...], affine: bool, per_channel: bool) -> bool:
    inputs, outputs, groups, *window = geometry
    kernel, stride, padding, dilation = window or ((), (), (), ())
    code = torch.full([outputs * groups, inputs, *kernel], 127.0)
    zero_point = -1 if affine else 0
    weight = _quantized(code - zero_point, zero_point, per_channel)
    # Large enough for a place where the whole window lies inside.
    size = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    images = torch.full([1, inputs * groups, *size], 255.0)
    total = 255 * (127 - zero_point) * code[0].numel()
    codes, scale = torch.quantize_per_tensor(images, 1.0, 0, torch.quint8), total / 255
    ops: Any = torch.ops.quantized
    try:
        if not window:
            expected = F.linear(images, weight.dequantize())
            found = ops.linear(codes, ops.linear_prepack(weight, None), scale, 0)
        else:
            convolution = f"conv{len(kernel)}d"
            places = list(stride), list(padding), list(dilation), groups
            expected = getattr(F, convolution)(images, weight.dequantize(), None, *places)
            packed = getattr(ops, f"{convolution}_prepack")(weight, None, *places)
            found = getattr(ops, convolution)(codes, packed, scale, 0)
    except RuntimeError:
        return False
    return bool((found.int_repr() - expected / scale).abs().max() > 1)


def _quantized(weight: Tensor, zero_point: int, per_channel: bool) -> Tensor:
    if not per_channel:
        return torch.quantize_per_tensor(weight, 1.0, zero_point, torch.qint8)
    channels = len(weight)
    zero_points = torch.full([channels], zero_point)
    scales = torch.ones(channels)
    return torch.quantize_per_channel(weight, scales, zero_points, 0, torch.qint8)
