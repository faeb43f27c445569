"""What each parameter of a model is, found by the type of its module."""

import re

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

KINDS = ("weight", "depthwise", "embedding", "bias", "norm", "quantizer")

_NORM = re.compile(r"Norm(\d\w*|Act\w*|Fp\w*)?$")
_QUANTIZER = re.compile(r"FakeQuant|Observer|Quantizer|LSQ")
_TOKEN = re.compile(r"(^|_)(embed(ding)?s?|tokens?|positions?)$")


def parameter_kinds(model: nn.Module) -> dict[str, str]:
    """The kind of every parameter by name, a tensor of several names under the first.

    ``norm``: everything that a normalisation layer owns (torch's own and classes called so, as
    LlamaRMSNorm or BatchNormAct2d). ``quantizer``: what fake quantizers and observers learn, as
    the scales of quantization-aware training. ``embedding``: nn.Embedding, and tokens and
    positions that a module holds by itself. ``bias``: called so by its module. ``depthwise``: a
    convolution with one input channel a group. ``weight``: every other.
    """
    modules = dict(model.named_modules())
    kinds = {}
    for name, _ in model.named_parameters():
        path, _, own = name.rpartition(".")
        kinds[name] = _kind(modules[path], f"{path}.{own}")
    return kinds


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises its input."""
    own = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return isinstance(module, own) or _NORM.search(type(module).__name__) is not None


def _kind(module: nn.Module, name: str) -> str:
    own = name.rpartition(".")[2]
    if _QUANTIZER.search(type(module).__name__):
        return "quantizer"
    if is_norm(module):
        return "norm"
    # A parametrized bias is called `parametrizations.bias.original`.
    if "bias" in own or "parametrizations.bias." in name:
        return "bias"
    embeds = isinstance(module, nn.Embedding | nn.EmbeddingBag)
    if embeds or (own != "weight" and _TOKEN.search(own)):
        return "embedding"
    if isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels:
        return "depthwise"
    return "weight"
