"""The optimizers of `torch.optim`, with a rate and a coefficient for each replica.

An update changes a parameter [R, ...] in place. Numbers that differ between replicas are [R, 1,
...] in the dtype of the weights; those that follow from the step (rates, bias corrections) are
worked out in float64 on the host and rounded once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qwd.decay import Form
from qwd.decay.forms import l2

Array = np.ndarray
Numbers = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Update:
    """An optimizer: the matrices it keeps, the numbers of a step, and the step itself."""

    slots: tuple[str, ...]
    """names in the optimizer's own state"""
    apply: Callable[[Tensor, Tensor, Mapping[str, Tensor], Numbers], None]
    """(weights, gradients, slots, numbers), weights and slots in place; gradients may be used up"""
    numbers: Callable[[Array, Array, Array], dict[str, Array]]
    """float64: rates [T, blocks, R], momentum [R], steps [T] taken with each -> what `apply` takes,
    [T, blocks, R]"""
    names: tuple[str, ...] = ("lr", "momentum")
    """of those numbers"""
    counts: bool = False
    """whether its state has the number of steps"""


def update_of(optimizer: torch.optim.Optimizer) -> Update:
    """The update that is the step of ``optimizer``."""
    group = optimizer.param_groups[0]
    match type(optimizer):
        case torch.optim.SGD if not group["momentum"]:
            return Update(slots=(), apply=_plain, numbers=_rates)
        case torch.optim.SGD:
            apply = _nesterov if group["nesterov"] else _momentum
            return Update(slots=("momentum_buffer",), apply=apply, numbers=_rates)
        case torch.optim.Adam | torch.optim.AdamW:
            return _adam(group["betas"][1], group["eps"])
        case torch.optim.RMSprop:
            return _rmsprop(group["alpha"], group["eps"], bool(group["momentum"]))
        case other:
            raise TypeError(other)


def decay(form: Form, weights: Tensor, gradients: Tensor, wd: Any, lr: Any) -> None:
    """What the form does before a step, in place, by its own formula; ``wd``, ``lr`` [R, 1, ...].

    The formula is proved by the audit of every session to be what the form does. Forms that act
    after the step are not carried.
    """
    if form is l2:  # its formula in one pass
        gradients.addcmul_(weights, wd)
    elif form.gradient is not None:
        gradients.add_(form.reference(weights, wd, lr))
    elif form.before is not None:
        weights.copy_(form.reference(weights, wd, lr))


def momenta(optimizers: Sequence[torch.optim.Optimizer]) -> Array:
    """Momentum, or beta1, of each: float64 [R]."""
    groups = [optimizer.param_groups[0] for optimizer in optimizers]
    return np.array([g["betas"][0] if "betas" in g else g["momentum"] for g in groups])


def _rates(lr: Array, momentum: Array, steps: Array) -> dict[str, Array]:
    return {"lr": lr, "momentum": np.broadcast_to(momentum, lr.shape)}


def _plain(w: Tensor, g: Tensor, slots: Mapping[str, Tensor], at: Numbers) -> None:
    w.addcmul_(g, at["lr"], value=-1)


def _momentum(w: Tensor, g: Tensor, slots: Mapping[str, Tensor], at: Numbers) -> None:
    # A buffer of zeros before the first step gives what torch starts with, the gradient itself.
    buffer = slots["momentum_buffer"]
    torch.addcmul(g, buffer, at["momentum"], out=buffer)
    w.addcmul_(buffer, at["lr"], value=-1)


def _nesterov(w: Tensor, g: Tensor, slots: Mapping[str, Tensor], at: Numbers) -> None:
    buffer = slots["momentum_buffer"]
    torch.addcmul(g, buffer, at["momentum"], out=buffer)
    w.addcmul_(g.addcmul_(buffer, at["momentum"]), at["lr"], value=-1)


def _adam(beta2: float, eps: float) -> Update:
    def numbers(lr: Array, momentum: Array, steps: Array) -> dict[str, Array]:
        taken = steps[:, None, None]
        ones = np.ones_like(lr)
        return {
            "new": np.broadcast_to(1 - momentum, lr.shape),
            "step_size": lr / (1 - momentum**taken),
            "correction": np.sqrt(1 - beta2**taken) * ones,
        }

    def apply(w: Tensor, g: Tensor, slots: Mapping[str, Tensor], at: Numbers) -> None:
        first, second = slots["exp_avg"], slots["exp_avg_sq"]
        first.addcmul_(g - first, at["new"])
        second.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        scale = second.sqrt().div_(at["correction"]).add_(eps)
        w.addcmul_(first / scale, at["step_size"], value=-1)

    names = ("new", "step_size", "correction")
    return Update(
        slots=("exp_avg", "exp_avg_sq"), apply=apply, numbers=numbers, names=names, counts=True
    )


def _rmsprop(alpha: float, eps: float, has_momentum: bool) -> Update:
    def apply(w: Tensor, g: Tensor, slots: Mapping[str, Tensor], at: Numbers) -> None:
        square = slots["square_avg"]
        square.mul_(alpha).addcmul_(g, g, value=1 - alpha)
        direction = g / square.sqrt().add_(eps)
        if has_momentum:
            direction = slots["momentum_buffer"].mul_(at["momentum"]).add_(direction)
        w.addcmul_(direction, at["lr"], value=-1)

    slots = ("square_avg", *(["momentum_buffer"] if has_momentum else []))
    return Update(slots=slots, apply=apply, numbers=_rates, counts=True)
