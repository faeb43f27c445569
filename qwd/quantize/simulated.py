"""qwd's own fake quantization of weights and activations, the reference for integer kernels.

Every layer computes in float with the w' of `qwd.quantize.arithmetic` on activations x' that lie on
a grid themselves. The grids stand where integer kernels have them (`qwd.quantize.placement`), and
are one per activation: affine with unsigned codes and a zero point, as torch's quint8, for affine
and, as integer kernels have it, for symmetric weights; pow2 with signed ones; minmax the formula to
the letter with its offset. Ranges come from the calibration images (`qwd.quantize.activations`),
and scales have no floor. Biases are the int32 codes that integer kernels add
(`qwd.quantize.layer_parameters`). Sums are those of float32.

It runs on any device, at any width from 2 to 8 bits.
"""

import contextlib
import copy
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from qwd.errors import reason
from qwd.graphs import UntraceableError, traced
from qwd.quantize.activations import ActivationGrid, Extremes, second_pass
from qwd.quantize.backend import Backend, Description, NotQuantizableError
from qwd.quantize.clipping import WORDS
from qwd.quantize.layer_parameters import LayerParameters, with_plain_weights
from qwd.quantize.parameter_names import left_float
from qwd.quantize.placement import Placement
from qwd.quantize.schemes import Scheme

Names = Collection[str]


@dataclass
class Observed:
    """A network whose activations are looked at."""

    module: fx.GraphModule
    scheme: Scheme
    layers: tuple[str, ...]
    left_float: tuple[str, ...]
    names: tuple[str, ...]
    """what the activations are called"""
    inputs: dict[str, int]
    """layer -> which of the activations it reads"""
    container: str
    """name of the list of the modules that they pass"""
    observers: list[Any] = field(default_factory=list)
    """these modules"""
    batches: list[Tensor] = field(default_factory=list)
    """of a calibration that needs a second pass"""

    def __call__(self, images: Tensor) -> Tensor:
        """The output in float."""
        return self.module(images)

    def observe(self, observers: Sequence[nn.Module]) -> None:
        """Let the activations pass these modules."""
        self.observers = list(observers)
        setattr(self.module, self.container, nn.ModuleList(observers))


class SimulatedNetwork(nn.Module):
    """A network with quantized weights and activations, computed in float.

    ``layers`` are the names of its quantized layers, ``activations`` those of its quantized
    activations, in the order in which they compute. A layer's output has the layer's name, the
    network's input is "input", and others have the name of the module that gives them or of their
    node in the graph of torch.fx. The outputs of a layer that is called several times share its
    name.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        parameters: Sequence[LayerParameters],
        grids: Sequence[ActivationGrid],
        description: Description,
    ):
        super().__init__()
        self.network = network
        self.parameters_of_layers = nn.ModuleList(parameters)
        self.grids: Sequence[ActivationGrid] = list(grids)
        """members of ``network``"""
        self.description = description
        self.layers = tuple(each.name for each in parameters)
        self.activations = tuple(dict.fromkeys(grid.name for grid in grids))
        self._select(None, None)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs, float32 [N, classes], for images [N, C, H, W]."""
        return self.network(images)

    def get_submodule(self, target: str) -> nn.Module:
        """The module that the float network calls ``target``."""
        return self.network.get_submodule(target)

    @contextlib.contextmanager
    def selected(self, weights: Names | None, activations: Names | None) -> Iterator[None]:
        """Inside, only the named weights (of layers) and activations are quantized.

        None: all of them. With none of either the network computes what the float network
        computes, to the last bit. Raises ValueError for a name that it does not have.
        """
        before = self._quantized()
        self._select(weights, activations)
        try:
            yield
        finally:
            self._select(*before)

    def _quantized(self) -> tuple[Names, Names]:
        weights = {each.name for each in self._parameters_of_layers() if each.quantized}
        return weights, {grid.name for grid in self.grids if grid.quantizing}

    def _select(self, weights: Names | None, activations: Names | None) -> None:
        weights = _chosen(weights, self.layers)
        activations = _chosen(activations, self.activations)
        for each in self._parameters_of_layers():
            each.use(self.get_submodule(each.name), quantized=each.name in weights)
        for grid in self.grids:
            grid.quantizing = grid.name in activations

    def _parameters_of_layers(self) -> Iterator[LayerParameters]:
        modules: Any = self.parameters_of_layers
        yield from modules


class Simulated(Backend):
    """qwd's own fake quantization of weights and activations: the reference, on any device."""

    device = None

    def check(self, scheme: Scheme) -> None:
        """NotQuantizableError where a scheme is none that is simulated."""
        if scheme.activation_bits is None:
            raise NotQuantizableError(
                "the backend 'simulated' quantizes weights and activations; weights alone run on "
                "the backend 'weights'"
            )
        if scheme.engine is not None:
            raise NotQuantizableError(
                f"the backend 'simulated' has no engine {scheme.engine!r}; it has none"
            )

    @torch.no_grad()
    def prepare(self, network: nn.Module, scheme: Scheme, example: Tensor) -> Observed:
        """Trace a copy and look at its activations; see `qwd.quantize.backend.Backend`."""
        copied = with_plain_weights(copy.deepcopy(network).eval())
        try:
            graph = traced(copied)
        except UntraceableError as error:
            raise NotQuantizableError(str(error)) from error
        _use_first_names(graph, copied)
        floats = _floats(copied, graph, example[:2])
        placement = Placement(graph, dict(copied.named_modules()), floats)
        places = list(placement.grids)
        container = _free_name("observers", copied)
        for index, node in enumerate(places):
            with graph.inserting_after(node):
                observer = graph.call_module(f"{container}.{index}", (node,))
            node.replace_all_uses_with(observer)
            observer.args = (node,)
        observers = [Extremes() for _ in places]
        setattr(copied, container, nn.ModuleList(observers))
        prepared = Observed(
            module=fx.GraphModule(copied, graph),
            scheme=scheme,
            layers=placement.layers,
            left_float=tuple(left_float(network, placement.layers)),
            names=tuple(placement.grids.values()),
            inputs={name: places.index(node) for name, node in placement.inputs.items()},
            container=container,
        )
        prepared.observe(observers)
        return prepared

    def calibrate(self, prepared: Observed, batches: Sequence[Tensor]) -> None:
        """Find the extremes; see `qwd.quantize.backend.Backend`."""
        super().calibrate(prepared, batches)
        if prepared.scheme.clip != "none":
            prepared.batches.extend(batches)

    @torch.no_grad()
    def convert(self, prepared: Observed) -> SimulatedNetwork:
        """Quantize weights and activations; see `qwd.quantize.backend.Backend`."""
        scheme, module = prepared.scheme, prepared.module
        bits = scheme.activation_bits
        assert bits is not None
        kind = "affine" if scheme.kind == "symmetric" else scheme.kind
        if prepared.batches:
            prepared.observe(
                [
                    second_pass(first, clip=scheme.clip, kind=kind, bits=bits)
                    for first in prepared.observers
                ]
            )
            super().calibrate(prepared, prepared.batches)
        grids = [
            ActivationGrid(name, *observer.ends(), kind=kind, bits=bits)
            for name, observer in zip(prepared.names, prepared.observers, strict=True)
        ]
        prepared.observe(grids)
        scales = {name: grids[at].scale.double() for name, at in prepared.inputs.items()}
        parameters = [
            LayerParameters(name, module.get_submodule(name), scheme, scales.get(name))
            for name in prepared.layers
        ]
        description = Description(
            activation_bits=bits,
            engine=None,
            observer=f"{WORDS[scheme.clip]} (activations and weights)",
            quantized=prepared.layers,
            left_float=prepared.left_float,
        )
        return SimulatedNetwork(module, parameters, grids, description)

    def describe(self, converted: SimulatedNetwork) -> Description:
        """Which layers compute with w' in place of w."""
        return converted.description


class _Floats(fx.Interpreter):
    """Runs a graph and notes which nodes give floating-point tensors."""

    def __init__(self, module: nn.Module, graph: fx.Graph):
        super().__init__(module, graph=graph)
        self.found: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and result.is_floating_point():
            self.found.add(n)
        return result


def _floats(module: nn.Module, graph: fx.Graph, images: Tensor) -> set[fx.Node]:
    interpreter = _Floats(module, graph)
    try:
        interpreter.run(images.clone())
    except Exception as error:
        # A graph that was traced may be of another network than the one that runs.
        raise NotQuantizableError(
            f"the graph that torch.fx traced does not run: {reason(error)}"
        ) from error
    return interpreter.found


def _use_first_names(graph: fx.Graph, network: nn.Module) -> None:
    """Call modules by the first of their names, as everyone does but torch.fx (the last)."""
    names = {module: name for name, module in network.named_modules()}
    for node in graph.nodes:
        if node.op == "call_module":
            node.target = names[network.get_submodule(node.target)]


def _free_name(name: str, module: nn.Module) -> str:
    while hasattr(module, name):
        name += "_"
    return name


def _chosen(names: Names | None, known: Names) -> Names:
    if names is None:
        return known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"the quantized network has no {unknown[0]!r}")
    return names
