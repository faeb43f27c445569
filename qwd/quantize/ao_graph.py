"""Where torch.ao's grids stand, made those of other integer runtimes.

Left to itself, torch.ao keeps a convolution and the ReLU behind it apart where folding has left an
identity between them, gives the average of a pool the wide grid of what it averages, and lays a
second grid over values that were only moved.
"""

import operator
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from qwd.graphs import UntraceableError, traced
from qwd.quantize.backend import LAYERS, NotQuantizableError

POOLS = (
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
)
AVERAGES = (
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
    *(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, torch.mean),
)
"""Computed in float: what they return has a grid of its own, over a smaller range."""

MOVES = (operator.getitem, F.pad)
"""Functions that torch.ao computes in float and whose values, padding aside, were there before."""

CLAMPS = (F.relu6, F.hardtanh, F.hardtanh_, torch.clamp, torch.clip, "clamp", "clamp_", "clip")

LARGEST_BIAS = 2**30
"""of the codes of a bias: half of what 32 bits hold"""


class Hidden(nn.Module):
    """A module or function under a type that torch.ao does not know, and so leaves in float."""

    def __init__(self, call: Callable[..., Any], name: str):
        super().__init__()
        self.call, self.name = call, name

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """What is hidden, called."""
        return self.call(*arguments, **options)


def rewired(network: nn.Module, *, averages_in_float: bool) -> nn.Module:
    """The graph of ``network`` without identities, its averages left in float where that is asked.

    Its modules are those of ``network``, under their names. Raises what tracing by torch.fx raises,
    and NotQuantizableError for a layer that is called several times.
    """
    graph = fx.Tracer().trace(network)
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    shared = [n for n in calls if calls[n] > 1 and isinstance(network.get_submodule(n), LAYERS)]
    if shared:
        raise NotQuantizableError(
            f"{', '.join(map(str, shared))} is called several times, and torch.ao has one scale "
            "and one fused ReLU for all calls; use a layer for each call"
        )
    changed = fx.GraphModule(network, graph)
    for index, node in enumerate(list(graph.nodes)):
        if node.op == "call_module" and type(network.get_submodule(node.target)) is nn.Identity:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif averages_in_float and (call := _average(network, node)) is not None:
            _hide(changed, node, f"average_{index}", call)
    changed.recompile()
    return changed.eval()


def _average(network: nn.Module, node: fx.Node) -> Callable[..., Tensor] | None:
    """The function of a node that averages; None of another one."""
    target: Any = node.target
    if node.op == "call_module":
        module = network.get_submodule(target)
        return module if isinstance(module, POOLS) else None
    plain = all(not isinstance(a, fx.Node) for a in (*node.args[1:], *node.kwargs.values()))
    if node.op == "call_function" and target in AVERAGES and node.args and plain:
        return target
    return torch.mean if (node.op, target) == ("call_method", "mean") and plain else None


def hide(observed: Any, kinds: Collection[Any]) -> None:
    """Make calls of these modules and functions unknown to torch.ao.

    Without a QConfig they would still be lowered to integer kernels where they stand between two
    that are quantized.
    """
    for index, node in enumerate(list(observed.graph.nodes)):
        if node.op == "call_module" and type(observed.get_submodule(node.target)) in kinds:
            _hide(observed, node, f"hidden_{index}", observed.get_submodule(node.target))
        elif node.op == "call_function" and node.target in kinds:
            _hide(observed, node, f"hidden_{index}", node.target)
    observed.recompile()


def hidden(converted: nn.Module, kinds: Collection[Any]) -> list[str]:
    """Names of the modules and functions of these kinds that are hidden."""
    modules = [module for module in converted.modules() if isinstance(module, Hidden)]
    return [m.name for m in modules if type(m.call) in kinds or m.call in kinds]


def _hide(owner: fx.GraphModule, node: fx.Node, place: str, call: Callable[..., Any]) -> None:
    """Let ``node`` call ``call`` through a `Hidden`, with the same arguments."""
    name = node.target if isinstance(node.target, str) else getattr(call, "__name__", str(call))
    owner.add_submodule(place, Hidden(call, name))
    node.op, node.target = "call_module", place


def clamps(network: nn.Module) -> bool:
    """Whether a network clamps values, as ReLU6 does; no, where it cannot be traced."""
    if any(isinstance(module, nn.Hardtanh) for module in network.modules()):
        return True
    try:
        graph = traced(network)
    except UntraceableError:
        return False
    return any(node.op.startswith("call_") and node.target in CLAMPS for node in graph.nodes)


def share_ranges_of_moved_values(observed: Any) -> None:
    """Give observers of values that were only moved the range of where they came from.

    Padding is with zeros, which every grid holds.
    """
    for node in observed.graph.nodes:
        observer = _observer(observed, node)
        if observer is None:
            continue
        source = node.args[0]
        while source.op == "call_function" and source.target in MOVES:
            source = source.args[0]
        first = _observer(observed, source)
        # An observer with a fixed range, as of a sigmoid, has no extremes.
        if (
            source is not node.args[0]
            and hasattr(first, "min_val")
            and hasattr(observer, "min_val")
        ):
            observer.min_val, observer.max_val = first.min_val.clone(), first.max_val.clone()


def input_scales(observed: Any) -> dict[str, float]:
    """The scale of what each module reads, where that is observed; by the module's name.

    ``observed`` has observers, or the fake quantization of a training.
    """
    scales = {}
    for node in observed.graph.nodes:
        if node.op == "call_module" and node.args and isinstance(node.args[0], fx.Node):
            observer = _observer(observed, node.args[0])
            if observer is not None:
                scales[str(node.target)] = float(observer.calculate_qparams()[0])
    return scales


def integer_bias(bias: Tensor, input_scale: float, weight_scale: Tensor) -> Tensor:
    """The bias as integer kernels add it: in whole steps of input scale times weight scale.

        bias' = round(bias / step) * step,   step = input scale * weight scale

    ``bias`` [C], ``weight_scale`` 0-d or [C]. Kept where its code would not fit: beyond 2^30, or
    where the step is 0.
    """
    step = (input_scale * weight_scale.double()).float()
    codes = (bias / step).round()
    whole = (step > 0) & (codes.abs() <= LARGEST_BIAS)
    return torch.where(whole, codes * step, bias)


def _observer(observed: Any, node: fx.Node) -> Any:
    """The observer that a node calls; None where it calls none."""
    if node.op != "call_module":
        return None
    module = observed.get_submodule(node.target)
    return module if hasattr(module, "calculate_qparams") else None
