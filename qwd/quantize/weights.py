"""Weights alone: every layer computes in float with w' in place of w.

What is lost is lost by rounding weights, nothing else: the reference for the arithmetic of
`qwd.quantize.arithmetic`, on any device.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from qwd.quantize.backend import LAYERS, Backend, Description, NotQuantizableError
from qwd.quantize.clipping import WORDS, quantize_clipped
from qwd.quantize.folding import weight_names
from qwd.quantize.schemes import Scheme
from qwd.quantize.statistics import sqnr_db

HOLDERS = (*LAYERS, nn.Embedding, nn.EmbeddingBag, nn.MultiheadAttention, nn.RNNBase)
"""torch's modules whose matrices are weights; positions and tokens of a user's module are not."""


class WeightsOnly(Backend):
    """Weights alone: layers compute in float with w' in place of w, on any device."""

    device = None

    def check(self, scheme: Scheme) -> None:
        """NotQuantizableError for activations and engines; see `Backend.check`."""
        if scheme.activation_bits is not None:
            raise NotQuantizableError("the backend 'weights' quantizes weights alone")
        if scheme.engine is not None:
            raise NotQuantizableError(
                f"the backend 'weights' has no engine {scheme.engine!r}; it has none"
            )

    def prepare(self, network: nn.Module, scheme: Scheme, example: Tensor) -> "_Copy":
        """A copy; there is nothing to observe. See `qwd.quantize.backend.Backend`."""
        return _Copy(copy.deepcopy(network), scheme)

    def calibrate(self, prepared: "_Copy", batches: Sequence[Tensor]) -> None:
        """Weights need no images."""

    def convert(self, prepared: "_Copy") -> "_Copy":
        """Replace every weight by w'; see `qwd.quantize.backend.Backend`."""
        scheme = prepared.scheme
        signal = noise = 0.0
        with torch.no_grad():
            for weight, channel_axis in layer_weights(prepared.network):
                axis = channel_axis if scheme.granularity == "channel" else None
                made = quantize_clipped(
                    weight, clip=scheme.clip, kind=scheme.kind, bits=scheme.weight_bits, axis=axis
                )
                signal += weight.double().square().sum().item()
                noise += (made.values.double() - weight).square().sum().item()
                weight.copy_(made.values)
        prepared.sqnr_db = sqnr_db(signal, noise)
        return prepared

    def describe(self, converted: "_Copy") -> Description:
        """Every matrix and kernel of the layers that torch knows is quantized."""
        network = converted.network
        held = {id(weight) for weight, _ in layer_weights(network)}
        named = {name: id(network.get_parameter(name)) in held for name in weight_names(network)}
        return Description(
            activation_bits=None,
            engine=None,
            observer=f"{WORDS[converted.scheme.clip]} of the weights",
            quantized=tuple(name for name, quantized in named.items() if quantized),
            left_float=tuple(name for name, quantized in named.items() if not quantized),
            sqnr_db=converted.sqnr_db,
        )


class _Copy(nn.Module):
    def __init__(self, network: nn.Module, scheme: Scheme):
        super().__init__()
        self.network = network
        self.scheme = scheme
        self.sqnr_db: float | None = None

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


def layer_weights(network: nn.Module) -> Iterator[tuple[nn.Parameter, int]]:
    """Every weight matrix or kernel once, with the axis of its output channels."""
    seen: set[int] = set()
    for module in network.modules():
        if not isinstance(module, HOLDERS):
            continue
        # Transposed convolutions store [in, out / groups, ...].
        transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
        for weight in module.parameters(recurse=False):
            if weight.ndim >= 2 and weight.is_floating_point() and id(weight) not in seen:
                seen.add(id(weight))
                yield weight, int(transposed)
