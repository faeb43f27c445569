"""Where the grids of activations stand in a network: where integer kernels put them.

An integer kernel reads codes and writes codes. So a grid stands behind every convolution and linear
layer, every sum, product and concatenation, and behind whatever else these read. A ReLU, ReLU6 or
Hardtanh that alone reads such a result is part of the kernel, and the grid stands behind it.
Operators that move or select values keep their input's grid. All others compute in float.

This is what ONNX Runtime makes of QDQ models, and torch.ao's FX graphs but for three points: there
averages keep their input's grid, ReLU6 and Hardtanh are no part of the kernel, and the operands of
a concatenation share one grid.
"""

import operator
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from qwd.quantize.folding import CONVOLUTIONS, TRANSPOSED

KNOWN_LAYERS = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
"""Layers that compute with their weight what their type says; a subclass may do anything."""

INPUT = "input"
"""what the network's input is called"""

Operators = frozenset[type[nn.Module] | Callable[..., Any] | str]
"""types of modules, functions, and names of a tensor's methods"""

JOINS: Operators = frozenset(
    {operator.add, operator.iadd, torch.add, "add", "add_"}
    | {operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply"}
    | {torch.cat, torch.concat, torch.concatenate, torch.stack}
)
"""Sums, products and concatenations: their operands have grids of their own."""

RELUS: Operators = frozenset([nn.ReLU, F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"])
FUSED: Operators = RELUS | {nn.ReLU6, F.relu6, nn.Hardtanh, F.hardtanh, F.hardtanh_}
"""What kernels apply to a result before it is rounded."""

NOTHING: Operators = frozenset(
    {nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout}
    | {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, torch.dropout}
    | {"contiguous", "clone", "detach", torch.clone, torch.detach}
)
"""What does nothing at inference."""

MOVES: Operators = (
    NOTHING
    | RELUS  # of values on a grid that has a 0
    | {nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d}
    | {F.max_pool1d, F.max_pool2d, F.max_pool3d, F.adaptive_max_pool1d, F.adaptive_max_pool2d}
    | {torch.max_pool1d, torch.max_pool2d, torch.max_pool3d, torch.amax, torch.amin}
    | {nn.Flatten, nn.Unflatten, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d}
    | {nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d}
    | {nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d}
    | {nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, nn.UpsamplingNearest2d}
    | {F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle}
    | {torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.unflatten}
    | {torch.permute, torch.transpose, torch.swapaxes, torch.movedim, torch.t, torch.flip}
    | {torch.roll, torch.narrow, torch.select, torch.chunk, torch.split, torch.unbind, torch.tile}
    | {operator.getitem, getattr}
    | {"flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten", "permute", "transpose"}
    | {"swapaxes", "movedim", "t", "flip", "roll", "narrow", "select", "chunk", "split", "unbind"}
    | {"expand", "repeat", "tile", "amax", "amin"}
)
"""Whose results are values of their input; of padding see `_pads_with_other_values`."""


class Placement:
    """The layers of a graph that are quantized, and where grids of activations stand.

    ``modules`` are those of the network by name, ``floats`` the nodes of the graph whose results
    are floating-point tensors.
    """

    def __init__(
        self, graph: fx.Graph, modules: Mapping[str, nn.Module], floats: Collection[fx.Node]
    ):
        self._modules = modules
        self._floats = floats
        self.layers: tuple[str, ...] = tuple(
            dict.fromkeys(str(n.target) for n in graph.nodes if self._is_layer(n))
        )
        """names of the quantized layers, in order of their first call"""
        ends: dict[fx.Node, fx.Node] = {}  # where a grid stands -> whose result it is of
        for node in graph.nodes:
            if self._is_layer(node) or (self._is(node, JOINS) and node in floats):
                for source in self._sources(node):
                    self._put_grid_at(source, ends)
                ends[self._end_of_kernel(node)] = node
        self.grids: dict[fx.Node, str] = self._named([n for n in graph.nodes if n in ends], ends)
        """the node that each grid stands behind, in the order of the graph, and what it is called:
        as the layer whose output it is, or by the module or the node that gives the result"""
        self.inputs: dict[str, fx.Node] = self._inputs_of_layers(graph)
        """the member of ``grids`` that a layer reads, if it is the same at every call"""

    def _put_grid_at(self, node: fx.Node, ends: dict[fx.Node, fx.Node]) -> None:
        """See that what ``node`` gives lies on a grid."""
        if node in ends:
            return
        sources = list(self._sources(node))
        # What moves values has their grid, if there is one place for it.
        if self._moves(node) and len(sources) == 1 and self._can_have_one(sources[0]):
            self._put_grid_at(sources[0], ends)
        else:
            ends[node] = node

    def _inputs_of_layers(self, graph: fx.Graph) -> dict[str, fx.Node]:
        found: dict[str, set[fx.Node]] = {}
        for node in graph.nodes:
            if self._is_layer(node):
                (source,) = self._sources(node)
                while source not in self.grids:
                    (source,) = self._sources(source)
                found.setdefault(str(node.target), set()).add(source)
        return {name: nodes.pop() for name, nodes in found.items() if len(nodes) == 1}

    def _can_have_one(self, node: fx.Node) -> bool:
        """Whether a grid can stand behind ``node`` or before it; there is none for a tuple."""
        if node in self._floats:
            return True
        return self._moves(node) and any(map(self._can_have_one, node.all_input_nodes[:1]))

    def _sources(self, node: fx.Node) -> Iterator[fx.Node]:
        """The inputs whose values count."""
        if self._moves(node):
            yield from node.all_input_nodes[:1]
        else:
            yield from (source for source in node.all_input_nodes if source in self._floats)

    def _end_of_kernel(self, node: fx.Node) -> fx.Node:
        """The activation function that a kernel applies to the result of ``node``, or ``node``."""
        last = node
        while len(last.users) == 1:
            (last,) = last.users
            if self._is(last, FUSED):
                return last
            if not self._is(last, NOTHING):
                break
        return node

    def _moves(self, node: fx.Node) -> bool:
        if node.op == "call_function" and node.target is F.pad:
            options: Any = node.args[2:]
            return not _pads_with_other_values(*options, **node.kwargs)  # type: ignore[arg-type]
        return self._is(node, MOVES)

    def _is_layer(self, node: fx.Node) -> bool:
        module = self._modules.get(str(node.target)) if node.op == "call_module" else None
        # A weight that is recomputed before each call is no parameter.
        return type(module) in KNOWN_LAYERS and "weight" in module._parameters  # type: ignore[union-attr]

    def _is(self, node: fx.Node, operators: Operators) -> bool:
        if node.op == "call_module":
            return type(self._modules[str(node.target)]) in operators
        return node.op in ("call_function", "call_method") and node.target in operators

    def _named(
        self, places: Sequence[fx.Node], ends: Mapping[fx.Node, fx.Node]
    ) -> dict[fx.Node, str]:
        calls = Counter(ends[place].target for place in places)
        taken = set(self.layers)
        names = {}
        for place in places:
            node = ends[place]
            if self._is_layer(node):
                names[place] = str(node.target)
                continue
            once = node.op == "call_module" and calls[node.target] == 1
            name = str(node.target) if once else node.name
            name = INPUT if node.op == "placeholder" else name
            while name in taken:
                name += "_"
            taken.add(name)
            names[place] = name
        return names


def _pads_with_other_values(
    mode: str = "constant", value: float | None = None, **others: Any
) -> bool:
    """Whether F.pad adds values that its input does not have, given its options."""
    return mode == "constant" and bool(value)
