"""Weights alone: every layer computes in float with w' in place of w.

What is lost is lost by rounding weights, nothing else: the reference for the arithmetic of
`qwd.quantize.arithmetic`, on any device.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from qwd.quantize.arithmetic import quantize
from qwd.quantize.backend import LAYERS, QuantizedNetwork
from qwd.quantize.folding import weight_names
from qwd.quantize.schemes import Scheme

HOLDERS = (*LAYERS, nn.Embedding, nn.EmbeddingBag, nn.MultiheadAttention, nn.RNNBase)
"""torch's modules whose matrices are weights; positions and tokens of a user's module are not."""


class WeightsOnly:
    """Weights alone: layers compute in float with w' in place of w, on any device."""

    def quantize(
        self, network: nn.Module, scheme: Scheme, calibration: Sequence[Tensor]
    ) -> QuantizedNetwork:
        """Replace every weight by w'; see `qwd.quantize.backend.Backend`."""
        network = copy.deepcopy(network)
        quantized: set[int] = set()
        with torch.no_grad():
            for weight, channel_axis in layer_weights(network):
                axis = channel_axis if scheme.granularity == "channel" else None
                weight.copy_(
                    quantize(weight, kind=scheme.kind, bits=scheme.weight_bits, axis=axis).values
                )
                quantized.add(id(weight))
        return QuantizedNetwork(
            network=network,
            device=None,
            activation_bits=None,
            engine=None,
            observer="min and max of the weights",
            quantized_ops=len(quantized),
            left_float=tuple(
                name
                for name in weight_names(network)
                if id(network.get_parameter(name)) not in quantized
            ),
        )


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
