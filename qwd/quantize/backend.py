"""What a quantization backend is: from a float network to one that computes with codes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from qwd.quantize.schemes import Scheme

LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
"""The layers that integer kernels exist for; whatever stays in float of these is reported."""


class NotQuantizableError(Exception):
    """A backend cannot carry this network or scheme; the message says why, in one line."""


@dataclass(frozen=True, kw_only=True)
class QuantizedNetwork:
    """A network that a backend made, and what is to be said about it."""

    network: nn.Module
    device: torch.device | None
    """where it has to run; None: anywhere"""
    activation_bits: int | None
    """what really ran, which may be less than the scheme's"""
    engine: str | None
    observer: str | None
    quantized_ops: int
    left_float: tuple[str, ...]
    """names of layers, or of weights outside of them, that stayed in float"""
    warnings: tuple[str, ...] = ()


class Backend(Protocol):
    """Registered in `qwd.registry.BACKENDS`; built without arguments."""

    def quantize(
        self, network: nn.Module, scheme: Scheme, calibration: Sequence[Tensor]
    ) -> QuantizedNetwork:
        """Quantize a copy of ``network``: float32, on the CPU, deployed (BatchNorm folded).

        ``calibration`` holds batches of normalised training images. Raises NotQuantizableError
        where the network or the scheme is beyond this backend.
        """
        ...
