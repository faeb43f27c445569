"""Which parameters and layers of a torch network the weights of another form of it are."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from qwd.quantize.backend import LAYERS
from qwd.quantize.folding import is_weight


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
    weights = _layer_weights(network)
    inside = [layer for weight, layer in weights.items() if weight in parameters]
    return [*inside, *(name for name in parameters if name not in weights)]


def layers_without(network: nn.Module, parameters: Sequence[str]) -> list[str]:
    """Names of the layers whose weights are not among ``parameters``."""
    weights = _layer_weights(network)
    return [layer for weight, layer in weights.items() if weight not in parameters]


def _layer_weights(network: nn.Module) -> dict[str, str]:
    """From names of weights to those of their layers; a network that is one layer has no name."""
    return {
        f"{name}.weight".lstrip("."): name or type(module).__name__
        for name, module in network.named_modules()
        if isinstance(module, LAYERS)
    }


def _digest(values: NDArray[Any]) -> str:
    return f"{values.shape} {sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}"
