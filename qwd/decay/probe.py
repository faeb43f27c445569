"""Steps on copies of an optimizer and its parameters, and how far they are from a formula."""

import copy
from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from qwd.decay.attach import Attached, attached_to, peak_rate
from qwd.decay.clone import cloned
from qwd.decay.forms import Form
from qwd.decay.schedules import constant
from qwd.errors import VerificationError, reason

Group = dict[str, Any]


def stepped(
    optimizer: Optimizer,
    gradient: Callable[[Tensor, Group], Tensor],
    *,
    form: Form | None = None,
    without_decay: bool = False,
    steps: int = 1,
) -> tuple[dict[int, Tensor], list[str]]:
    """Each parameter, by the id of the live one, after the first steps on copies of all.

    Also what the copied optimizer lacks. ``gradient(w, group)`` is what every step is given;
    ``form`` is attached for it; ``without_decay`` takes the optimizer's own away. Raises
    VerificationError where it cannot take a step, and NotCopyableError as `cloned` does.
    """
    copies: dict[int, Any] = {}
    groups = []
    for group in optimizer.param_groups:
        for p in group["params"]:
            copies[id(p)] = nn.Parameter(p.detach().clone(), p.requires_grad)
        entries = {k: copy.deepcopy(v) for k, v in group.items() if not k.startswith("param")}
        rate = entries["lr"]
        peak = peak_rate(group)
        if rate is not None:
            entries["lr"] = rate.fill_(peak) if isinstance(rate, Tensor) else peak
        # A step to differentiate through would refuse to change leaves.
        entries |= dict.fromkeys({"differentiable"} & entries.keys(), False)
        if without_decay and "weight_decay" in entries:
            entries["weight_decay"] = 0.0
        groups.append({"params": [copies[id(p)] for p in group["params"]], **entries})
    clone, lacks = cloned(optimizer, groups, copies)
    attached = attached_to(clone)
    if attached is not None:  # by the constructor of its class
        attached.remove()
    if form is not None:
        # Not by `attach`, which refuses what an audit is to find.
        Attached(clone, form, constant)
    take: Any = clone.step
    closure = signature(take).parameters.get("closure")
    needed = closure is not None and closure.default is Parameter.empty
    try:
        with torch.random.fork_rng(devices=[]):
            for _ in range(steps):
                for group in optimizer.param_groups:
                    for p in group["params"]:
                        copies[id(p)].grad = gradient(p.detach(), group)
                take(*[lambda: torch.zeros(())] if needed else [])
    except Exception as error:  # of a class that anyone may have written
        raise VerificationError(
            f"{type(optimizer).__name__} cannot take a step without gradient: {reason(error)}"
        ) from error
    return {place: parameter.detach() for place, parameter in copies.items()}, lacks


def lost_share(w: Tensor, after: Tensor) -> float | None:
    """w . (w - w') / |w|^2, the share of a weight that a step takes; None for zero weights."""
    before, exact = w.double().flatten(), after.double().flatten()
    square = float(before @ before)
    return float(before @ (before - exact)) / square if square else None


def ulps_apart(w: Tensor, after: Tensor, expected: Tensor) -> float:
    """Largest |after - expected|, in units in the last place of the largest number in the step."""
    limits, before = torch.finfo(w.dtype), w.detach().double()
    numbers = torch.stack([before, expected, expected - before])
    _, exponent = torch.frexp(numbers.abs().amax(dim=0))
    unit = limits.eps * torch.exp2(exponent.double() - 1)
    unit = unit.clamp(min=limits.smallest_normal * limits.eps)
    distance = ((after.double() - expected).abs() / unit)[expected.isfinite()]
    return float(distance.max()) if distance.numel() else 0.0


def same_bits(w: Tensor, after: Tensor) -> bool:
    """Whether two tensors of one dtype are the same to the last bit."""
    bits = [t.detach().flatten().contiguous().view(torch.uint8) for t in (w, after)]
    return torch.equal(*bits)
