"""What a quantization backend is: from a float network to one that computes with codes.

A backend is an adapter with five steps, written for one library each and without knowledge of the
others: prepare a copy that observes its activations, calibrate it on images, convert it to codes,
describe what became of it, evaluate it. Before them it says which schemes it has. `quantize` takes
a network through the first four.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qwd.errors import VerificationError
from qwd.quantize.schemes import INTEGER_KINDS, Scheme
from qwd.registry import BACKENDS

LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
"""The layers that integer kernels exist for; whatever stays in float of these is reported."""

CPU = torch.device("cpu")


class NotQuantizableError(Exception):
    """A backend cannot carry this network or scheme; the message says why, in one line."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a backend made of a network."""

    activation_bits: int | None
    """what really ran, which may be less than the scheme's; None: weights alone"""
    engine: str | None
    """what computes: a set of kernels, a runtime; None: torch itself, in float"""
    observer: str
    """how ranges were found, e.g. ``MinMaxObserver (activations), min and max (weights)``"""
    quantized: tuple[str, ...]
    """names of the layers, or of the weights outside of them, that compute with codes"""
    left_float: tuple[str, ...]
    """names of those that stayed in float"""
    warnings: tuple[str, ...] = ()
    sqnr_db: float | None = None
    """10 log10(sum w^2 / sum (w' - w)^2) over the quantized weights; None where that is not known
    or without error"""


def check_integer_kernels(scheme: Scheme, runtime: str) -> None:
    """NotQuantizableError where a scheme is none that integer kernels compute.

    ``runtime`` is who has them, for the error.
    """
    if scheme.activation_bits != 8:
        found = f"{scheme.activation_bits} bits" if scheme.activation_bits else "float"
        raise NotQuantizableError(f"{runtime}'s kernels take 8-bit activations, not {found}")
    if scheme.kind not in INTEGER_KINDS or scheme.clip != "none":
        raise NotQuantizableError(
            f"{runtime} runs {' and '.join(INTEGER_KINDS)} weights without clipping; "
            f"{scheme.full_name} runs on the backend 'simulated'"
        )


class Backend(ABC):
    """Registered in `qwd.registry.BACKENDS`; built without arguments."""

    device: torch.device | None = CPU
    """where a converted network has to run; None: anywhere"""

    @abstractmethod
    def check(self, scheme: Scheme) -> None:
        """NotQuantizableError where no network whatever could be quantized by ``scheme`` here."""

    @abstractmethod
    def prepare(self, network: nn.Module, scheme: Scheme, example: Tensor) -> Any:
        """A copy of ``network`` that observes what it computes.

        ``network`` is float32, on the CPU, deployed (BatchNorm folded) and in eval mode;
        ``example`` is a batch of normalised images [N, C, H, W]; ``scheme`` has passed `check`.
        Raises NotQuantizableError where the network is beyond this backend.
        """

    def calibrate(self, prepared: Any, batches: Sequence[Tensor]) -> None:
        """Show batches of normalised training images [N, C, H, W] to the observers."""
        with torch.no_grad():
            for images in batches:
                prepared(images)

    @abstractmethod
    def convert(self, prepared: Any) -> Any:
        """The quantized network of a prepared and calibrated one; raises as `prepare`."""

    @abstractmethod
    def describe(self, converted: Any) -> Description:
        """What became of the network."""

    def evaluate(self, converted: Any, images: Tensor) -> Tensor:
        """Outputs of the quantized network, float32 [N, classes], for images [N, C, H, W]."""
        return converted(images)


class QuantizedNetwork(nn.Module):
    """A network that a backend made, as a module, and what is to be said about it."""

    def __init__(self, backend: Backend, converted: Any, description: Description):
        super().__init__()
        self.backend = backend
        self.converted = converted
        self.description = description

    def forward(self, images: Tensor) -> Tensor:
        """See `Backend.evaluate`."""
        return self.backend.evaluate(self.converted, images)


def quantize(network: nn.Module, scheme: Scheme, calibration: Sequence[Tensor]) -> QuantizedNetwork:
    """Prepare, calibrate, convert and describe a copy of ``network`` on the scheme's backend.

    ``network`` is as `Backend.prepare` wants it; ``calibration`` holds at least one batch. Raises
    NotQuantizableError, UsageError where the backend's extra is not installed, and
    VerificationError when nothing was quantized: float results under the name of a scheme.
    """
    backend: Backend = BACKENDS.get(scheme.backend)()
    backend.check(scheme)
    prepared = backend.prepare(network, scheme, calibration[0])
    backend.calibrate(prepared, calibration)
    converted = backend.convert(prepared)
    return described(backend, converted, scheme)


def described(backend: Backend, converted: Any, scheme: Scheme) -> QuantizedNetwork:
    """A converted network with its description; VerificationError when nothing was quantized."""
    description = backend.describe(converted)
    if not description.quantized:
        raise VerificationError(
            f"{scheme.name}: nothing was quantized; the network has none of the layers that "
            f"the backend {scheme.backend!r} knows"
        )
    return QuantizedNetwork(backend, converted, description)
