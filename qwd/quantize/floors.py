"""Where a backend's smallest scale coarsens small weights.

A backend that keeps scales from being zero by a floor quantizes weights whose true scale is below
it on a coarser grid: torch's observers at 1.19e-7, torch's fused fake quantization at 6.1e-5, PT2E
and QNNPACK at 2^-12.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qwd.quantize.arithmetic import code_range, quantize
from qwd.quantize.backend import LAYERS
from qwd.quantize.schemes import Scheme
from qwd.quantize.statistics import sqnr_db

SHOWN = 3
"""layers named in a warning"""


@dataclass(frozen=True, kw_only=True)
class Floored:
    """A layer with weights whose true scale is below a floor."""

    layer: str
    channels: int | None
    """how many of its output channels, ``of`` all; None where one scale is for all"""
    of: int | None
    sqnr_db: float | None
    """of these weights on the grid of their true scale; None where no error is made"""
    floored_sqnr_db: float | None
    """of the same weights on that of the floor"""


def floored_layers(network: nn.Module, scheme: Scheme, floor: float) -> list[Floored]:
    """The layers of a network that a smallest scale coarsens, the worst first.

    SQNR = 10 log10(sum w^2 / sum (w' - w)^2) over the weights that have too small a scale, w' with
    their own scale and with ``floor`` in its place. Weights that are all zero have no scale, and
    any floor holds them.
    """
    found = []
    for name, module in network.named_modules():
        if not isinstance(module, LAYERS):
            continue
        layer: Any = module
        axis = None
        weight = layer.weight.detach()
        if scheme.granularity == "channel":
            # Transposed convolutions store [in, out / groups, ...].
            axis = int(isinstance(module, nn.modules.conv._ConvTransposeNd))
        own = quantize(weight, kind=scheme.kind, bits=scheme.weight_bits, axis=axis)
        low = (own.scale > 0) & (own.scale < floor)
        if not low.any():
            continue
        weight = weight.double()
        floored = _on_grid(weight, own.scale.clamp(min=floor), own.zero_point, axis, scheme)
        parts = [weight, own.values.double(), floored]
        if axis is not None:
            parts = [part.movedim(axis, 0)[low] for part in parts]
        found.append(
            Floored(
                layer=name or type(module).__name__,
                channels=int(low.sum()) if axis is not None else None,
                of=low.numel() if axis is not None else None,
                sqnr_db=_sqnr_db(parts[0], parts[1]),
                floored_sqnr_db=_sqnr_db(parts[0], parts[2]),
            )
        )
    return sorted(found, key=lambda f: _or_infinite(f.floored_sqnr_db))


def floor_warning(network: nn.Module, scheme: Scheme, floor: float, who: str) -> str | None:
    """A line that names the layers whose scale ``who`` raises to ``floor``; None without any."""
    found = floored_layers(network, scheme, floor)
    if not found:
        return None
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    layers = "; ".join(_shown(each) for each in found[:SHOWN])
    return f"{scheme.name}: the smallest scale of {who}, {floor:.3g}, coarsens {layers}{more}"


def _on_grid(
    weight: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None, scheme: Scheme
) -> Tensor:
    if axis is not None:
        shape = [-1 if d == axis else 1 for d in range(weight.ndim)]
        scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    codes = (torch.round(weight / scale) + zero_point).clamp(*code_range(scheme.weight_bits))
    return (codes - zero_point) * scale


def _sqnr_db(weight: Tensor, values: Tensor) -> float | None:
    return sqnr_db(weight.square().sum().item(), (values - weight).square().sum().item())


def _shown(floored: Floored) -> str:
    of = f" ({floored.channels} of {floored.of} channels)" if floored.of is not None else ""
    with_floor, without = _in_db(floored.floored_sqnr_db), _in_db(floored.sqnr_db)
    return f"{floored.layer}{of}: SQNR {with_floor} in place of {without}"


def _in_db(figure: float | None) -> str:
    return f"{figure:.1f} dB" if figure is not None else "without error"


def _or_infinite(figure: float | None) -> float:
    return math.inf if figure is None else figure
