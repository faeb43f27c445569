"""Transforms of a float network after which its quantized version loses less.

They train nothing, and what they return is a float network again, for any backend to quantize.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from qwd.quantize.backend import LAYERS, quantize
from qwd.quantize.clipping import clipped_range
from qwd.quantize.schemes import Clip, Scheme

ELEMENTS = 2**24
"""of the images that bias correction sees at once, at most: 64 MiB in float32"""

Layer = _ConvNd | nn.Linear


@torch.no_grad()
def weights_clipped(network: nn.Module, scheme: Scheme, clip: Clip) -> nn.Module:
    """A copy of ``network`` whose weights are clamped to a range that costs less when rounded.

        w' = clamp(w, lo, hi)

    with the range that `qwd.quantize.clipping.clipped_range` finds for the scheme's kind, width and
    granularity. Weights of convolutions and linear layers are clamped, others are left as they are.
    """
    corrected = copy.deepcopy(network)
    for layer in _layers(corrected).values():
        if "weight" not in layer._parameters:
            continue  # recomputed before each call, from what the range says nothing about
        axis = int(isinstance(layer, _ConvTransposeNd)) if scheme.granularity == "channel" else None
        lo, hi = clipped_range(
            layer.weight, clip=clip, kind=scheme.kind, bits=scheme.weight_bits, axis=axis
        )
        layer.weight.copy_(layer.weight.clamp(lo, hi))
    return corrected


@torch.no_grad()
def biases_corrected(
    network: nn.Module, scheme: Scheme, calibration: Sequence[Tensor]
) -> nn.Module:
    """A copy of ``network`` whose biases make up for the mean error of its quantized version.

        b' = b + E[y] - E[y~]

    per output channel, with y the output of a layer before its activation function in the float
    network, y~ that in the quantized one, and E the mean over images and positions. y~ sees the
    corrections of the layers before it, in the order in which they compute. ``calibration`` are
    batches [N, C, H, W] of training images, of which as many count as have `ELEMENTS` elements. A
    layer without bias gets one; layers that are called more than once, and those that stay in
    float, are left as they are.

    The quantized version is the one of the simulated backend, whatever the scheme's own is. Raises
    what `qwd.quantize.backend.quantize` raises.

    Source: M. Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction
    (ICCV 2019), section 4.2, with the means measured on images.
    """
    corrected = copy.deepcopy(network)
    layers = _layers(corrected)
    images = _enough(calibration)
    expected: dict[str, list[Tensor]] = {name: [] for name in layers}

    def observe(name: str, y: Tensor) -> None:
        expected[name].append(_channel_means(layers[name], y))

    with _hooked(layers, observe):
        corrected(images)

    made = quantize(network, replace(scheme, backend="simulated", engine=None), calibration)
    shifts: dict[str, Tensor] = {}

    def correct(name: str, y: Tensor) -> Tensor:
        means = expected[name][0] - _channel_means(layers[name], y)
        shifts[name] = means
        return y + _along_channels(layers[name], means, y.ndim)

    once = [name for name in made.converted.layers if len(expected[name]) == 1]
    with _hooked({name: made.converted.get_submodule(name) for name in once}, correct):
        made(images)

    for name, shift in shifts.items():
        layer = layers[name]
        bias = shift if layer.bias is None else layer.bias + shift
        layer.bias = nn.Parameter(bias, requires_grad=layer.weight.requires_grad)
    return corrected


def _layers(network: nn.Module) -> dict[str, Layer]:
    """Convolutions and linear layers by name, each once."""
    return {name: module for name, module in network.named_modules() if isinstance(module, LAYERS)}


def _enough(batches: Sequence[Tensor]) -> Tensor:
    """The first images of some batches as one: one pass then corrects every layer in turn."""
    per_image = max(1, batches[0][0].numel())
    return torch.cat(list(batches))[: max(1, ELEMENTS // per_image)]


@contextlib.contextmanager
def _hooked(
    modules: Mapping[str, nn.Module], hear: Callable[[str, Tensor], Tensor | None]
) -> Iterator[None]:
    """Inside, ``hear`` is told every output with the module's name, and may replace it."""

    def hook_of(name: str) -> Callable[..., Tensor | None]:
        return lambda module, inputs, output: hear(name, output)

    handles = [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _channel_means(layer: Layer, y: Tensor) -> Tensor:
    """The mean of an output per channel: [C]."""
    return y.movedim(_channel_axis(layer), 0).flatten(1).mean(dim=1)


def _along_channels(layer: Layer, values: Tensor, ndim: int) -> Tensor:
    """[C] in a shape that broadcasts against an output of ``ndim`` dimensions."""
    shape = [1] * ndim
    shape[_channel_axis(layer)] = -1
    return values.reshape(shape)


def _channel_axis(layer: Layer) -> int:
    """Where an output has its channels, counted from its end."""
    return -1 if isinstance(layer, nn.Linear) else -1 - len(layer.kernel_size)
