"""Where a backend's smallest scale coarsens small weights.

A backend that keeps scales from being zero by a floor quantizes weights whose true scale is below
it on a coarser grid: torch's observers at 1.19e-7, torch's fused fake quantization at 6.1e-5, PT2E
and QNNPACK at 2^-12.
"""

from typing import Any

import torch
from torch import Tensor, nn

from qwd.quantize.arithmetic import code_range, quantize
from qwd.quantize.backend import LAYERS
from qwd.quantize.schemes import Scheme
from qwd.quantize.statistics import sqnr_db

SHOWN = 3
"""layers named in a warning"""


def floor_warning(network: nn.Module, scheme: Scheme, floor: float, who: str) -> str | None:
    """A line that names the layers whose scale ``who`` raises to ``floor``; None without any.

    It says of how many channels, and the SQNR of those layers' weights with the floor and without.
    """
    touched: list[str] = []
    signal, error, error_with_floor = 0.0, 0.0, 0.0
    for name, module in network.named_modules():
        if not isinstance(module, LAYERS):
            continue
        layer: Any = module
        axis = None
        if scheme.granularity == "channel":
            axis = int(isinstance(module, nn.modules.conv._ConvTransposeNd))
        weight = layer.weight.detach()
        own = quantize(weight, kind=scheme.kind, bits=scheme.weight_bits, axis=axis)
        low = (own.scale > 0) & (own.scale < floor)
        if not low.any():
            continue
        of = f" ({int(low.sum())} of {low.numel()} channels)" if axis is not None else ""
        touched.append(name + of)
        weight = weight.double()
        signal += weight.square().sum().item()
        error += (own.values - weight).square().sum().item()
        floored = _on_grid(weight, own.scale.clamp(min=floor), own.zero_point, axis, scheme)
        error_with_floor += (floored - weight).square().sum().item()
    if not touched:
        return None
    more = f" and {len(touched) - SHOWN} more" if len(touched) > SHOWN else ""
    return (
        f"{scheme.name}: the smallest scale of {who}, {floor:.3g}, coarsens "
        f"{', '.join(touched[:SHOWN])}{more}: SQNR {_shown(signal, error_with_floor)} in place of "
        f"{_shown(signal, error)}"
    )


def _on_grid(
    weight: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None, scheme: Scheme
) -> Tensor:
    if axis is not None:
        shape = [-1 if d == axis else 1 for d in range(weight.ndim)]
        scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    codes = (torch.round(weight / scale) + zero_point).clamp(*code_range(scheme.weight_bits))
    return (codes - zero_point) * scale


def _shown(signal: float, error: float) -> str:
    figure = sqnr_db(signal, error)
    return f"{figure:.1f} dB" if figure is not None else "without error"
