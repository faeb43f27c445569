"""Multiplying the layers before BatchNorm by powers of two, which int8 must not notice.

BatchNorm takes a factor c of the layer before it out again, once its statistics follow:

    weight' = c weight,  bias' = c bias,  mean' = c mean,  var' = c^2 (var + eps) - eps

so that sqrt(var' + eps) = c sqrt(var + eps) and the folded weight

    c w * gamma / sqrt(var' + eps) = w * gamma / sqrt(var + eps)

is what it was, and with it every code that integer kernels compute with. Decay that made the
weights smaller by c, and nothing else, would leave int8 as it was.
"""

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from qwd.quantize.folding import norm_pairs

LARGEST = 2.0**126
"""and its inverse: the normal numbers of float32"""


def norm_ratios(reference: nn.Module, other: nn.Module) -> dict[str, float]:
    """||w_other|| / ||w_reference|| of every layer directly before a BatchNorm, by its name.

    Both networks have one structure. Norms are in float64; a ratio that does not exist is NaN.
    Raises UntraceableError where the calls of ``reference`` cannot be traced.
    """
    ratios = {}
    for layer, _ in norm_pairs(reference):
        below, above = (_norm(network, layer) for network in (reference, other))
        ratios[layer] = above / below if below else math.nan
    return ratios


def rescaled(network: nn.Module, ratios: Mapping[str, float]) -> tuple[nn.Module, dict[str, str]]:
    """A copy of ``network`` in eval mode, layers before BatchNorm times the nearest power of two.

    ``ratios`` maps names of layers to factors, of which the nearest power of two in the logarithm
    is taken: such a product loses no bit of a weight. The new statistics are computed in float64
    and rounded once. Also returned: the layers that were left as they are, and why. That is so
    where var' would be negative, as for channels whose variance is small against eps, where the
    factor is none that float32 holds, and where a layer is directly before no BatchNorm.

    Raises UntraceableError where the network's calls cannot be traced.
    """
    made = copy.deepcopy(network).eval()
    norms = dict(norm_pairs(made))
    skipped: dict[str, str] = {}
    for layer, ratio in ratios.items():
        if layer not in norms:
            skipped[layer] = "its output does not go into a BatchNorm alone"
        elif not 1 / LARGEST <= ratio <= LARGEST:
            skipped[layer] = f"the factor {ratio:g} is no positive number that float32 holds"
        else:
            reason = _rescale(made, layer, norms[layer], power_of_two(ratio))
            if reason:
                skipped[layer] = reason
    return made, skipped


def power_of_two(ratio: float) -> float:
    """The power of two nearest to a positive number: 2^round(log2 ratio)."""
    return math.ldexp(1.0, round(math.log2(ratio)))


@torch.no_grad()
def _rescale(network: nn.Module, layer: str, norm: str, c: float) -> str | None:
    """Rescale one layer in place; or why it was left as it is."""
    before, after = network.get_submodule(layer), network.get_submodule(norm)
    assert isinstance(after, _BatchNorm)
    assert after.running_mean is not None
    assert after.running_var is not None
    var = c**2 * (after.running_var.double() + after.eps) - after.eps
    negative = int((var < 0).sum())
    if negative:
        return f"var' = c^2 (var + eps) - eps is negative in {negative} of {len(var)} channels"
    tensors = [before.weight, before.bias, after.running_mean]
    products = [(tensor, tensor * c) for tensor in tensors if isinstance(tensor, Tensor)]
    if not all(torch.equal(product / c, tensor) for tensor, product in products):
        return f"times {c:g} it is beyond the normal numbers of {before.weight.dtype}"
    for tensor, product in products:
        tensor.copy_(product)
    after.running_var.copy_(var)
    return None


def _norm(network: nn.Module, layer: str) -> float:
    weight = network.get_submodule(layer).weight
    assert isinstance(weight, Tensor)
    return float(weight.detach().double().norm())
