"""Which parameters and layers of a torch network the weights of another form of it are."""

from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from qwd.quantize.backend import LAYERS
from qwd.quantize.folding import is_weight, weight_names


def parameter_names(
    network: nn.Module, weights: Mapping[str, NDArray[Any]]
) -> dict[str, list[str]]:
    """The parameters of ``network`` that each of ``weights`` stands for, by name or by values.

    The exporter gives a matrix that it transposes another name, and keeps one of equal weights. A
    weight that it computed itself stands for none.
    """
    held: dict[str, list[str]] = {}
    for name, weight in weights.items():
        held.setdefault(_digest(weight), []).append(name)
    found: dict[str, list[str]] = {name: [] for name in weights}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if not is_weight(parameter):
            continue
        values = parameter.detach().numpy()
        forms = [values, values.T] if values.ndim == 2 else [values]
        same = dict.fromkeys(n for form in forms for n in held.get(_digest(form), []))
        for each in [name] if name in weights else same:
            found[each].append(name)
    return found


def layers_of(network: nn.Module, parameters: Sequence[str]) -> list[str]:
    """Names of the layers whose weights are ``parameters``, then those that are of no layer."""
    layers = _layers(network)
    inside = [layer for name, layer in layers.items() if name in parameters]
    return [*dict.fromkeys(inside), *(name for name in parameters if name not in layers)]


def left_float(network: nn.Module, quantized: Collection[str]) -> list[str]:
    """Names of the layers, and of the weights outside of layers, that are not ``quantized``.

    ``quantized`` holds such names too. A weight of several names is quantized under any of them.
    """
    layers = _layers(network)
    named = dict(network.named_parameters(remove_duplicate=False))
    done = {
        id(weight)
        for name, weight in named.items()
        if name in quantized or layers.get(name) in quantized
    }
    left = [name for name in weight_names(network) if id(named[name]) not in done]
    return layers_of(network, left)


def _layers(network: nn.Module) -> dict[str, str]:
    """From names of weights to those of their layers; a network that is one layer has no name."""
    return {
        weight: name or type(module).__name__
        for name, module in network.named_modules()
        if isinstance(module, LAYERS)
        for weight, parameter in module.named_parameters(name)
        if is_weight(parameter)
    }


def _digest(values: NDArray[Any]) -> str:
    return f"{values.shape} {sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}"
