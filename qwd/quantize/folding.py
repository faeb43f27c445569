"""The network as int8 sees it: BatchNorm folded into the layer before it, branches fused.

At inference BatchNorm is a factor and a shift per channel, and deployment multiplies the factor
into the weights of the layer before:

    w' = w * gamma / sqrt(var + eps),    bias' = (bias - mean) * gamma / sqrt(var + eps) + beta

It is w' whose range sets the scale of its codes. What precedes what is read from the graph that
torch.fx traces; a network that cannot be traced is left as it is, with a warning.
"""

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from qwd.graphs import UntraceableError, traced
from qwd.quantize.arithmetic import arithmetic_dtype

# The types themselves: what a subclass computes from its weight is not known.
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Deployed:
    """A network in its deployed form, and how its weights came about."""

    module: nn.Module
    """a copy, in eval mode; its parameters keep their names"""
    folded: dict[str, str]
    """weight -> name of the BatchNorm folded into it"""
    fused: dict[str, tuple[str, ...]]
    """weight that only the deployed network has -> the weights it was made of"""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoldPlan:
    """What deployment changes in networks of one structure; made by `fold_plan`."""

    pairs: tuple[tuple[str, str], ...] = ()
    """names of a layer and of the BatchNorm folded into it"""
    warnings: tuple[str, ...] = ()

    def apply(self, model: nn.Module) -> Deployed:
        """The deployed form of ``model``, which is left as it is."""
        fused: dict[str, tuple[str, ...]] = {}
        with torch.no_grad():
            module = _branches_fused(copy.deepcopy(model).eval(), fused)
            modules: dict[str, Any] = dict(module.named_modules())
            for layer, norm in self.pairs:
                fold(modules[layer], modules[norm])
            _replace(module, {modules[norm]: nn.Identity().eval() for _, norm in self.pairs})
        fused |= _parted(model, module)
        folded = {_join(layer, "weight"): norm for layer, norm in self.pairs}
        return Deployed(module, folded, fused, self.warnings)

    @torch.no_grad()
    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights of the deployed form alone, by name; those that nothing folds into as is."""
        if any(hasattr(module, "deploy_form") for module in model.modules()):
            model, pairs = self.apply(model).module, ()
        else:
            pairs = self.pairs
        found: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        for layer, norm in pairs:
            pair: Any = model.get_submodule(layer), model.get_submodule(norm)
            found[_join(layer, "weight")] = folded_weight(pair[0], pair[0].weight, _factor(pair[1]))
        return {name: found[name] for name in weight_names(found)}


def deploy(model: nn.Module) -> Deployed:
    """A copy of ``model`` in eval mode, branches fused and BatchNorm folded.

    Modules with a method ``deploy_form()`` are replaced by what it returns: the one layer that
    their branches become. Then every convolution, transposed convolution or linear layer whose
    output goes into a BatchNorm with running statistics and nowhere else takes it over:

        w' = w * gamma / sqrt(var + eps),  bias' = (bias - mean) * gamma / sqrt(var + eps) + beta

    and the BatchNorm becomes an identity. A BatchNorm behind anything else stays; so does one
    behind a layer that is called twice. A BatchNorm1d behind a linear layer is taken to normalise
    its features, not the positions of a sequence.

    Source of the formula: B. Jacob et al. (CVPR 2018), eq. 14.
    """
    return fold_plan(model).apply(model)


def fold_plan(model: nn.Module) -> FoldPlan:
    """Find what `deploy` changes, once for all the states that training takes the model through."""
    with torch.no_grad():
        module = _branches_fused(copy.deepcopy(model).eval(), {})
    if not any(type(m) in NORMS and m.running_var is not None for m in module.modules()):
        return FoldPlan()
    try:
        return FoldPlan(tuple(_pairs(module, traced(module))))
    except UntraceableError as error:
        return FoldPlan(warnings=(f"BatchNorm is not folded: {error}",))


def norm_pairs(model: nn.Module) -> tuple[tuple[str, str], ...]:
    """Names of every layer that `fold` could take a BatchNorm into, and of that BatchNorm.

    Of the model as it stands: layers within branches count, as each has a BatchNorm of its own.
    Raises UntraceableError.
    """
    return tuple(_pairs(model, traced(model)))


def fold(layer: _ConvNd | nn.Linear, norm: _BatchNorm) -> None:
    """Fold ``norm`` into ``layer`` in place; both in eval mode, with matching channels.

        w' = w * gamma / sqrt(var + eps),  bias' = (bias - mean) * gamma / sqrt(var + eps) + beta

    Computed in float32 at least and rounded once to the dtype of the weight.
    """
    mean, factor = norm.running_mean, _factor(norm)
    assert mean is not None
    bias = (-mean if layer.bias is None else layer.bias - mean) * factor
    if norm.bias is not None:
        bias = bias + norm.bias
    weight = layer.weight
    layer.weight = nn.Parameter(folded_weight(layer, layer.weight, factor), weight.requires_grad)
    layer.bias = nn.Parameter(bias.to(weight.dtype), weight.requires_grad)


def norm_factor(var: Tensor, eps: float, gamma: Tensor | None) -> Tensor:
    """gamma / sqrt(var + eps) by channel, in float32 at least; gamma 1 where it is None."""
    factor = torch.rsqrt(var.to(arithmetic_dtype(var.dtype)) + eps)
    return factor if gamma is None else factor * gamma


def times_factor(weight: Tensor, factor: Tensor, *, axis: int = 0, groups: int = 1) -> Tensor:
    """w * factor by output channel, in float32 or, for a weight in float64, in that.

    The channels are along ``axis`` 0, or 1 in transposed convolutions [in, out / groups, ...],
    where the inputs of one group share that group's outputs.
    """
    dtype = arithmetic_dtype(weight.dtype)
    if weight.dtype.itemsize == 1:
        weight = weight.to(dtype)  # torch does not multiply float8
    if axis == 1:
        by_group = weight.unflatten(0, (groups, -1))
        factors = factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
        folded = (by_group * factors).flatten(0, 1)
    else:
        folded = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    return folded.to(dtype)


def _factor(norm: _BatchNorm) -> Tensor:
    var = norm.running_var
    assert var is not None
    return norm_factor(var, norm.eps, norm.weight)


def folded_weight(layer: nn.Module, weight: Tensor, factor: Tensor) -> Tensor:
    """`times_factor` for a weight of the shape of the one of ``layer``, in the weight's dtype."""
    axis, groups = (1, layer.groups) if isinstance(layer, _ConvTransposeNd) else (0, 1)
    return times_factor(weight, factor, axis=axis, groups=groups).to(weight.dtype)


def is_weight(tensor: Tensor) -> bool:
    """Whether a tensor is a dense floating-point one of two dimensions or more."""
    dense = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
    return dense and tensor.is_floating_point() and tensor.ndim >= 2


def is_vector(name: str, tensor: Tensor) -> bool:
    """Whether a tensor has one dimension, also as [C, 1, 1] unless its name is a layer's weight's.

    Such are layer scales, class tokens and biases of [1, C, 1, 1]; int8 kernels do not quantize
    them.
    """
    last = name.rpartition(".")[2]
    shown = "weight" in last or "kernel" in last
    return tensor.ndim < 2 or (1 < tensor.numel() == max(tensor.shape) and not shown)


def weight_names(source: nn.Module | Mapping[str, Tensor]) -> list[str]:
    """Names of the weights of a network: floating-point tensors of two dimensions or more.

    Of a model its parameters, of a state dict all tensors. Biases and the vectors of normalisation
    are not weights; a tensor with several names is listed under the first.
    """
    if isinstance(source, nn.Module):
        tensors: Mapping[str, Tensor] = dict(source.named_parameters(remove_duplicate=False))
    else:
        tensors = source
    again = tied(tensors)
    return [name for name, tensor in tensors.items() if is_weight(tensor) and name not in again]


def tied(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of tensors that are one with an earlier name again, and that name."""
    first: dict[object, str] = {}
    named = {name: first.setdefault(_place(tensor), name) for name, tensor in tensors.items()}
    return {name: earlier for name, earlier in named.items() if name != earlier}


def _pairs(module: nn.Module, graph: fx.Graph) -> Iterator[tuple[str, str]]:
    modules = dict(module.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    # Modules whose tensors the forward also uses by itself.
    used = {str(n.target).rpartition(".")[0] for n in graph.nodes if n.op == "get_attr"}
    for node in graph.nodes:
        if node.op != "call_module" or type(modules[node.target]) not in NORMS:
            continue
        before = node.all_input_nodes[0]
        if before.op != "call_module" or len(before.users) > 1:
            continue
        alone = calls[before.target] == calls[node.target] == 1
        if not alone or {before.target, node.target} & used:
            continue
        if _foldable(modules[before.target], modules[node.target]):
            yield before.target, node.target


def _foldable(layer: Any, norm: Any) -> bool:
    if type(layer) in CONVOLUTIONS + TRANSPOSED:
        channels = layer.out_channels
    elif type(layer) is nn.Linear and type(norm) in (nn.BatchNorm1d, nn.SyncBatchNorm):
        channels = layer.out_features
    else:
        return False
    # A weight that is recomputed before each call (pruning, weight norm) is no parameter.
    stored = "weight" in layer._parameters
    return stored and norm.running_var is not None and norm.num_features == channels


def branches_fused(model: nn.Module) -> nn.Module:
    """A copy of ``model`` with its deploy forms in place, in the same mode; see `deploy`."""
    with torch.no_grad():
        return _branches_fused(copy.deepcopy(model), {}).train(model.training)


def _branches_fused(network: nn.Module, fused: dict[str, tuple[str, ...]]) -> nn.Module:
    """``network`` with deploy forms in place; adds their weights and sources to ``fused``."""
    forms: dict[nn.Module, nn.Module] = {}
    inside: set[nn.Module] = set()
    for path, module in network.named_modules():
        deploy_form: Any = getattr(module, "deploy_form", None)
        if deploy_form is None or module in inside:
            continue
        inside.update(module.modules())
        forms[module] = deploy_form().eval()
        sources = tuple(_join(path, name) for name in weight_names(module))
        fused |= {_join(path, name): sources for name in weight_names(forms[module])}
    _replace(network, forms)
    return forms.get(network, network)


def _replace(network: nn.Module, replacement: Mapping[nn.Module, nn.Module]) -> None:
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            if child is not None and child in replacement:
                parent._modules[name] = replacement[child]


def _parted(model: nn.Module, deployed: nn.Module) -> dict[str, tuple[str, ...]]:
    """Weights that were one tensor of several names and are several now, each with the old one."""
    first: dict[int, str] = {}
    one = {
        name: first.setdefault(id(parameter), name)
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    names = weight_names(deployed)
    return {name: (one[name],) for name in names if one.get(name, name) != name}


def _place(tensor: Tensor) -> object:
    """Equal for tensors that are the same memory seen in the same way."""
    start = tensor.data_ptr()
    return (tensor.device, start, tensor.shape, tensor.stride()) if start else id(tensor)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
