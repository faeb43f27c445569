"""An optimizer like another one, for copies of its parameters, that has taken no step."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from inspect import signature
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from qwd.errors import reason

NUMBERS = (type(None), bool, int, float, complex, str, bytes)
PLAIN = (*NUMBERS, type, ModuleType, BuiltinFunctionType)
"""what a function may refer to without reaching anything that lives"""


class NotCopyableError(Exception):
    """Why a step of a copy would not be a step of the optimizer."""


def cloned(
    optimizer: Optimizer, groups: list[dict[str, Any]], copies: dict[int, Any]
) -> tuple[Optimizer, list[str]]:
    """The clone with these groups, without any state, and what of the optimizer it lacks.

    ``copies`` are its parameters by the ids of the live ones. What an instance holds beyond torch's
    own attributes is copied, a step of its own included, every parameter in it replaced by its
    copy. Step hooks are not: they may act on anything.

    Raises NotCopyableError where the optimizer wraps another one, which shares its state, or where
    its own step refers to objects that a copy of it would change.
    """
    inner = wrapped(optimizer)
    if inner is not None:
        raise NotCopyableError(f"it wraps {type(inner).__name__}")
    clone, made = _made(optimizer, groups)
    # One memo, so that what two attributes share they share in the clone.
    memo = {id(optimizer): clone, id(optimizer.param_groups): clone.param_groups, **copies}
    memo |= {id(optimizer.state): clone.state, id(optimizer.defaults): clone.defaults}
    pairs = zip(optimizer.param_groups, clone.param_groups, strict=True)
    memo |= {id(live): group for live, group in pairs}
    lacks = []
    for key, value in vars(optimizer).items():
        if key in _torch_attributes():
            continue
        try:
            vars(clone)[key] = copy.deepcopy(value, memo)
        except Exception as error:  # of a class that anyone may have written
            own = "" if made else ", nor made anew"
            lacks.append(f"its attribute {key!r} cannot be copied{own} ({reason(error, 80)})")
    step = own_step(optimizer)
    if step is not None:
        if any(_reaches_further(f) for f in _functions(step)):
            raise NotCopyableError(f"its step was replaced by {_called(step)}")
        vars(clone)["step"] = copy.deepcopy(step, memo)
    return clone, lacks


def wrapped(optimizer: Optimizer) -> Optimizer | None:
    """The optimizer that another one has inside of it, as Lookahead and SAM do."""
    for value in vars(optimizer).values():
        several = value.values() if isinstance(value, dict) else value
        for found in several if isinstance(value, list | tuple | dict) else (value,):
            if isinstance(found, Optimizer) and found is not optimizer:
                return found
    return None


def own_step(optimizer: Optimizer) -> Callable[..., Any] | None:
    """The step of the instance, where that is not its class's."""
    step: Any = vars(optimizer).get("step")
    if getattr(step, "_wrapped_by_lr_sched", False):
        # What torch's schedulers put there only notes that there was a step.
        step = MethodType(step.__wrapped__, optimizer)
    own = getattr(step, "__func__", step) is not type(optimizer).step
    return step if own else None


def _made(optimizer: Optimizer, groups: list[dict[str, Any]]) -> tuple[Any, bool]:
    """A new one by its class's constructor; False where only the bare object can be made."""
    made = type(optimizer)
    takes = signature(made).parameters
    defaults = {**optimizer.defaults, "differentiable": False}
    try:
        return made(groups, **{k: v for k, v in defaults.items() if k in takes}), True
    except Exception:
        # Of a class with arguments of its own: as torch unpickles one, but without its state.
        clone: Any = object.__new__(made)
        fresh = {"defaults": defaults, "state": defaultdict(dict), "param_groups": groups}
        clone.__setstate__(fresh)
        return clone, False


@cache
def _torch_attributes() -> frozenset[str]:
    """What torch's base class keeps in an instance, and what schedulers and scalers add."""
    bare = vars(Optimizer([torch.zeros(1)], {}))
    return frozenset({*bare, "step", "grad_scale", "found_inf"})


def _functions(step: Any) -> Iterator[Any]:
    """The functions that a callable is made of."""
    while step is not None:
        yield step
        step = getattr(step, "__func__", getattr(step, "func", None))


def _reaches_further(function: Any) -> bool:
    """Whether a function refers to models, tensors or optimizers beside its arguments."""
    if not isinstance(function, FunctionType):
        return False
    names = set(_names(function.__code__))
    around = [function.__globals__[name] for name in names & function.__globals__.keys()]
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    alive = (Optimizer, nn.Module, Tensor)
    return any(isinstance(getattr(value, "__self__", value), alive) for value in around) or any(
        _reaches_further(value) if isinstance(value, FunctionType) else not isinstance(value, PLAIN)
        for value in cells
    )


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _called(step: Any) -> str:
    inner = list(_functions(step))[-1]
    return f"{getattr(inner, '__qualname__', type(inner).__name__)}, which refers to live objects"
