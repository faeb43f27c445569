"""What each tensor of a network is: told by its class, or without one by name and shape."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from qwd.quantize.folding import CONVOLUTIONS, TRANSPOSED, is_vector
from qwd.quantize.pairing_names import gray_stem, natural

WEIGHTS = (
    "convolution",
    "depthwise",
    "grouped",
    "transposed",
    "linear",
    "embedding",
    "position",
    "other",
)
"""Kinds of two dimensions or more: what a report counts as weights."""
VECTORS = ("bias", "norm", "statistics", "other")
"""Kinds that are listed and not mixed into the figures of weights."""

_STATISTICS = re.compile(r"(^|[._])(running_mean|running_var|num_batches_tracked|position_ids)$")
_NORM = re.compile(r"norm|bn\d*$|(^|[._])(bn|ln|gn)\d*([._]|$)", re.IGNORECASE)
_POSITION = re.compile(
    r"pos(ition(al|s)?)?_?emb|embed_pos|(^|[._])wpe([._]|$)"
    r"|relative_(position|attention_bias)|rel_pos|rope"
)
_EMBEDDING = re.compile(
    r"emb(ed(ding)?s?)?([._]|$)|(^|[._])(wte|shared|tokens?_emb)", re.IGNORECASE
)
_PATCHES = re.compile(r"patch|proj|fc|linear|dense", re.IGNORECASE)
_TRANSPOSED = re.compile(r"deconv|transpose|convt", re.IGNORECASE)


def state_kinds(
    state: Mapping[str, Tensor], norms: Iterable[str], transposed: Iterable[str] = ()
) -> dict[str, str]:
    """The kind of every tensor of a state dict, by names and shapes alone.

    ``norms`` are prefixes of BatchNorms, ``transposed`` weights whose outputs are along axis 1. A
    convolution is grouped where the one before it in its block gives more channels than it takes,
    unless that takes as many, for then they are parallel; one that takes a single channel is
    depthwise, unless its input is a picture of one channel; see
    `qwd.quantize.pairing_names.gray_stem`.
    """
    norms, transposed = set(norms), set(transposed)
    stem = gray_stem({name: tuple(tensor.shape) for name, tensor in state.items()})
    kinds: dict[str, str] = {}
    block = _blocks(state)
    before: dict[str, str] = {}
    for name in sorted(state, key=natural):
        tensor, (prefix, _, last) = state[name], name.rpartition(".")
        if is_vector(name, tensor):
            kinds[name] = _vector(name, prefix in norms, tensor)
            continue
        previous = before.get(block.get(name, ""))
        if tensor.ndim == 2:
            kinds[name] = _matrix(name)
        elif not last.startswith(("weight", "kernel")):
            kinds[name] = "position" if _POSITION.search(name) else "other"
        elif name in transposed or _TRANSPOSED.search(name):
            kinds[name] = "transposed"
        elif name != stem and _spatial(tensor) and tensor.shape[1] == 1 < tensor.shape[0]:
            kinds[name] = "depthwise"
        elif previous and _shows_groups(tensor, state[previous], kinds[previous]):
            kinds[name] = "grouped"
        else:
            kinds[name] = "convolution"
        if name in block:
            before[block[name]] = name
    return kinds


def _blocks(state: Mapping[str, Tensor]) -> dict[str, str]:
    """The block of every convolution; a module that holds nothing but one is no block of its own.

    So ``conv2.conv``, beside its norm, is a layer of the block of ``conv2``.
    """
    paths = {
        name: name.split(".")[:-1]
        for name, tensor in state.items()
        if tensor.ndim > 2 and name.endswith(".weight")
    }
    held = Counter(tuple(path[:n]) for path in paths.values() for n in range(len(path)))
    return {
        name: ".".join(path[: max(n for n in range(len(path)) if held[*path[:n]] > 1 or not n)])
        for name, path in paths.items()
    }


def output_axes(state: Mapping[str, Tensor], kinds: Mapping[str, str]) -> dict[str, int]:
    """The axis of the output channels of a state dict's weights, where it is not 0.

    1 for transposed convolutions [in, out / groups, ...], and for linear layers stored [in, out],
    as GPT-2's: there a bias is as long as its weight is wide. A square one is stored as the others
    of the file are, where those agree.
    """
    biased = {
        name: (tuple(tensor.shape), bias.numel())
        for name, tensor in state.items()
        if kinds.get(name) == "linear"
        and tensor.ndim == 2
        and (bias := state.get(f"{name.removesuffix('weight')}bias")) is not None
    }
    sides = {shape.index(n) for shape, n in biased.values() if n in shape and shape[0] != shape[1]}
    turned = [
        name
        for name, (shape, n) in biased.items()
        if shape[1] == n and (shape[0] != n or sides == {1})
    ]
    return dict.fromkeys([*turned, *(n for n, kind in kinds.items() if kind == "transposed")], 1)


def model_kinds(model: nn.Module) -> dict[str, str]:
    """The kind of every parameter and buffer of a network, by its class where that is known."""
    found = {}
    for path, module in model.named_modules(remove_duplicate=False):
        own = {**module._parameters, **module._buffers}
        for local, tensor in own.items():
            if tensor is not None:
                name = f"{path}.{local}" if path else local
                found[name] = _of_class(module, local) or _by_name(name, tensor)
    return found


def _of_class(module: nn.Module, local: str) -> str | None:
    if isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm):
        return "norm" if local in module._parameters else "statistics"
    if local != "weight":
        return None
    if isinstance(module, CONVOLUTIONS):
        if module.groups == 1:
            return "convolution"
        return "depthwise" if module.groups == module.in_channels else "grouped"
    if isinstance(module, TRANSPOSED):
        return "transposed"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return "position" if _POSITION.search(local) else "embedding"
    return "linear" if isinstance(module, nn.Linear) else None


def _by_name(name: str, tensor: Tensor) -> str:
    if is_vector(name, tensor):
        return _vector(name, False, tensor)
    if tensor.ndim == 2:
        return _matrix(name)
    return "position" if _POSITION.search(name) else "other"


def _vector(name: str, of_norm: bool, tensor: Tensor) -> str:
    if _STATISTICS.search(name) or not tensor.is_floating_point():
        return "statistics"
    if of_norm or _NORM.search(name.rpartition(".")[0]):
        return "norm"
    return "bias" if re.search(r"bias|(^|[._])b$", name) else "other"


def _matrix(name: str) -> str:
    if _POSITION.search(name):
        return "position"
    if _EMBEDDING.search(name) and not _PATCHES.search(name):
        return "embedding"
    return "linear"


def _spatial(tensor: Tensor) -> bool:
    return tensor.ndim > 2 and max(tensor.shape[2:]) > 1


def _shows_groups(tensor: Tensor, previous: Tensor, kind: str) -> bool:
    inputs = tensor.shape[1]
    if inputs in (0, previous.shape[1]):
        return kind == "grouped" and _spatial(tensor)
    groups, rest = divmod(len(previous), inputs)
    return not rest and groups > 2 and _spatial(tensor) and len(tensor) == len(previous)
