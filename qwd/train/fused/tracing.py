"""The operations of a function of tensors, as a graph."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

FACTS = "facts"
"""key of `fx.Node.meta` under which the `Facts` of a node are, where it is a tensor"""
UNREADABLE = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class Facts(NamedTuple):
    """What is known of a tensor before its elements are."""

    shape: torch.Size
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    device: torch.device


def traced(function: Callable[..., Sequence[Tensor]], arguments: Sequence[Any]) -> fx.GraphModule:
    """The operations that ``function(*arguments)`` performs, as a function of their tensors.

    ``arguments`` are tensors, or lists and tuples of such; the graph takes them flat, one after
    another. The function runs once. The tracers of `torch.fx` follow numbers and shapes too, which
    takes its time. Raises ValueError for a function that reads elements
    as numbers, or tensors that are not among its arguments.
    """
    recorder = _Recorder()
    for tensor in tree_leaves(list(arguments)):
        recorder.know(tensor, recorder.graph.placeholder(f"argument_{len(recorder.nodes)}"))
    with recorder:
        results = function(*arguments)
    recorder.graph.output([recorder.node(tensor) for tensor in results])
    return fx.GraphModule({}, recorder.graph)


class _Recorder(TorchDispatchMode):
    """Notes every operation, below autograd and `torch.func`."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.nodes: Any = WeakTensorKeyDictionary()

    def know(self, tensor: Tensor, node: fx.Node) -> None:
        self.nodes[tensor] = node
        node.meta[FACTS] = Facts(
            tensor.shape, tensor.stride(), int(tensor.storage_offset()), tensor.dtype, tensor.device
        )

    def node(self, tensor: Tensor) -> fx.Node:
        found = self.nodes.get(tensor)
        if found is None:
            raise ValueError("a tensor that is neither an argument nor the result of an operation")
        return found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if any(tag in func.tags for tag in UNREADABLE):
            raise ValueError(f"{func} depends on elements")
        given = tree_map_only(Tensor, self.node, (args, kwargs or {}))
        results = func(*args, **(kwargs or {}))
        node = self.graph.call_function(func, *given)
        if isinstance(results, Tensor):
            self.know(results, node)
        elif isinstance(results, (tuple, list)):
            for place, result in enumerate(results):
                if isinstance(result, Tensor):
                    part = self.graph.call_function(operator.getitem, (node, place))
                    self.know(result, part)
        return results
