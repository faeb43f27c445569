"""The operations of a function of tensors, recorded once and replayed without the needless ones."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

from qwd.train.fused.tracing import FACTS, Facts, traced

ATEN = torch.ops.aten
VIEWS = (
    ATEN.view.default,
    ATEN._unsafe_view.default,
    ATEN.expand.default,
    ATEN.transpose.int,
    ATEN.detach.default,
)
OF_SHAPES = (ATEN.ones_like.default, ATEN.zeros_like.default)
"""operations that read nothing of a tensor but its shape"""


class Recorded:
    """``function(*standing, *given)``, a list of tensors, where it changes none of its arguments.

    The results are the caller's, who may change them in place where the function allows it.
    ``standing`` are tensors, or lists of such, whose memory stays where it is while their values
    change: views of them are taken once, as is all that follows from no tensor at all.
    """

    def __init__(self, function: Callable[..., Any], standing: Sequence[Any], given: Sequence[Any]):
        made = traced(function, (*standing, *given))
        self.standing = tree_leaves(list(standing))
        changed = _changed(made)
        _drop_idle(made, changed)
        _settle(made, self.standing, changed)
        made.graph.eliminate_dead_code()
        made.recompile()
        _bind(made, [*self.standing, *tree_leaves(list(given))])
        self.graph = made

    def __call__(self, *given: Tensor) -> list[Tensor]:
        """What the function gives."""
        return self.graph.forward(*self.standing, *given)


def _drop_idle(made: fx.GraphModule, changed: set[fx.Node]) -> None:
    """Without views of what is there, which vmap leaves many of, and without products by one."""
    for node in list(made.graph.nodes):
        if node.target is ATEN.mul.Scalar and node.args[1] == 1:
            factor = node.args[0]
            if _dtype(factor) == _dtype(node) and not changed & {factor, node}:
                _replace(made, node, factor)
            continue
        before = node
        while before.target in VIEWS and isinstance(before.args[0], fx.Node):
            before = before.args[0]
            # Of one memory, so that where these agree the elements do.
            if _layout(before) is not None and _layout(before) == _layout(node):
                _replace(made, node, before)
                break


def _settle(made: fx.GraphModule, standing: Sequence[Tensor], changed: set[fx.Node]) -> None:
    """Work out once what stays the same, and keep it in the module."""
    arguments = [node for node in made.graph.nodes if node.op == "placeholder"]
    constants: dict[fx.Node, Any] = {}
    views: dict[fx.Node, Any] = dict(zip(arguments, standing, strict=False))
    for node in made.graph.nodes:
        target = node.target
        if not isinstance(target, OpOverload) or torch.Tag.nondeterministic_seeded in target.tags:
            continue
        if node in changed:
            continue
        if _is_view(node) and all(each in views for each in node.all_input_nodes):
            views[node] = _result(node, views)
        elif target in OF_SHAPES:
            of: Facts = node.meta[FACTS]
            constants[node] = target(torch.empty(of.shape, dtype=of.dtype, device=of.device))
        elif all(each in constants for each in node.all_input_nodes):
            constants[node] = _result(node, constants)
    known = constants | views
    for number, (node, value) in enumerate(known.items()):
        inside = all(user in known for user in node.users)
        if node.op == "placeholder" or inside or not isinstance(value, Tensor):
            continue
        made.register_buffer(name := f"settled_{number}", value)
        with made.graph.inserting_before(node):
            _replace(made, node, made.graph.get_attr(name))


def _bind(made: fx.GraphModule, arguments: Sequence[Tensor]) -> None:
    """Call torch's functions in place of operators, at less cost, where that is the same."""
    operators = {n: n.target for n in made.graph.nodes if isinstance(n.target, OpOverload)}
    before = made.forward(*arguments)
    for node, operator in operators.items():
        name = operator._schema.name.removeprefix("aten::")
        node.target = getattr(torch._VF, name, None) or getattr(Tensor, name, operator)
    made.recompile()
    try:
        after = made.forward(*arguments)
        same = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    except (RuntimeError, TypeError):  # of a function that takes other arguments
        same = False
    if not same:
        for node, operator in operators.items():
            node.target = operator
        made.recompile()


def _changed(made: fx.GraphModule) -> set[fx.Node]:
    """What an operation or the caller may change in place, and what that is a view of."""
    found: set[fx.Node] = set()
    for node in made.graph.nodes:
        written = list(node.all_input_nodes) if node.op == "output" else []
        if isinstance(node.target, OpOverload):
            pairs = zip(node.args, node.target._schema.arguments, strict=False)
            written = [
                given
                for given, argument in pairs
                if argument.alias_info is not None and argument.alias_info.is_write
            ]
        for given in written:
            while isinstance(given, fx.Node) and given not in found:
                found.add(given)
                given = given.args[0] if _is_view(given) else None
    return found


def _result(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    function: Any = node.target
    args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
    return function(*args, **kwargs)


def _is_view(node: fx.Node) -> bool:
    """Whether an operation gives, or may give, the memory of its first argument."""
    if not isinstance(node.target, OpOverload):
        return False
    return node.target in VIEWS or any(each.alias_info for each in node.target._schema.returns)


def _replace(made: fx.GraphModule, node: fx.Node, other: Any) -> None:
    node.replace_all_uses_with(other)
    made.graph.erase_node(node)


def _layout(node: fx.Node) -> tuple[Any, ...] | None:
    facts: Facts | None = node.meta.get(FACTS)
    return None if facts is None else (facts.shape, facts.stride, facts.offset)


def _dtype(node: fx.Node) -> torch.dtype:
    return node.meta[FACTS].dtype
