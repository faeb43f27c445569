"""The learning rate of each parameter, as a factor of the schedule's."""

import math
from collections.abc import Iterable

from torch import nn

from qwd.decay import parameter_kinds
from qwd.errors import UsageError


def rate_factors(model: nn.Module, *, bias: float = 1.0, depth: float = 1.0) -> dict[str, float]:
    """Factor of the learning rate of every trainable parameter by name, ``bias`` times ``depth``'s.

    ``bias`` multiplies the rate of biases, those of normalisation layers excepted (2 in Caffe's
    reference models, Jia et al. 2014). ``depth`` is the first layer's factor and 1 the last's;
    those between are spaced evenly on a logarithmic scale:

        depth^(1 - i / (L - 1))   for layer i = 0 ... L - 1, and 1 where L = 1

    (discriminative fine-tuning, Howard & Ruder 2018, with fastai's spacing). A layer is a module
    that itself holds a parameter of two or more dimensions, frozen or not; layers count in the
    order in which they were registered. What other modules hold, normalisation layers among them,
    goes with the layer before it, or with the first.

    Raises UsageError where a factor is not a positive number.
    """
    for option, value in (("--bias-lr", bias), ("--depth-lr", depth)):
        if not 0 < value < math.inf:
            raise UsageError(f"{option} {value!r}: expected a finite number greater than 0")
    kinds = parameter_kinds(model)
    places = _places(model, kinds)
    last = max(places.values(), default=0)
    return {
        name: (bias if kinds[name] == "bias" else 1.0)
        * (depth ** (1 - places[name] / last) if last else 1.0)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def _places(model: nn.Module, kinds: dict[str, str]) -> dict[str, int]:
    """The layer, counted from 0, that each parameter goes with."""
    tensors = {n: p for n, p in model.named_parameters() if kinds[n] not in ("norm", "quantizer")}
    layers = _in_order(_owner(name) for name, p in tensors.items() if p.dim() >= 2)
    places, latest = {}, 0
    for name in kinds:
        latest = layers.get(_owner(name), latest)
        places[name] = latest
    return places


def _owner(name: str) -> str:
    """The module of a parameter; that of a parametrized one is the one it is computed for."""
    module = name.rpartition(".")[0]
    return module.partition("parametrizations.")[0].rstrip(".")


def _in_order(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(dict.fromkeys(names))}
