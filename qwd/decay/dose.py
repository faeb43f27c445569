"""How much a decay will do, before any training."""

import math
from collections.abc import Sequence

import torch
from torch.optim import SGD, Optimizer

from qwd.decay.forms import Form
from qwd.decay.schedules import Schedule, constant

VISIBLE = 0.05
"""Below this dose a weight without gradient shrinks by less than 5 %: no visible effect."""


def dose(
    form: Form,
    wd: float,
    rates: Sequence[float],
    gain: float | None,
    *,
    schedule: Schedule = constant,
    lr_corrected: bool = False,
    peak: float | None = None,
) -> float | None:
    """D, the sum over steps of what the form takes from a weight without gradient.

        l2 under SGD   D = sum wd * m_t * lr_t * gain,  gain = (1 - dampening) / (1 - momentum)
        decoupled      D = sum wd * m_t * lr_t, with ``lr_corrected`` times lr_t / lr_max
        independent    D = sum wd * m_t

    Such a weight shrinks by 1 - exp(-D). ``rates`` are the learning rates of all steps, ``peak``
    lr_max where that is not one of them, m_t the ``schedule``; ``gain`` comes from the function of
    that name. None where a form has no dose: ``l1``, and ``l2`` where the optimizer divides the
    gradient by its own scale (``gain`` None).
    """
    steps = _of_each_step(form, wd, rates, gain, schedule, lr_corrected, peak)
    return None if steps is None else math.fsum(steps)


def wd_for(
    target: float,
    form: Form,
    rates: Sequence[float],
    gain: float | None,
    *,
    schedule: Schedule = constant,
    lr_corrected: bool = False,
    peak: float | None = None,
) -> float | None:
    """The coefficient whose dose is ``target``; None where a form has none, or D = 0 for all."""
    steps = _of_each_step(form, 1.0, rates, gain, schedule, lr_corrected, peak)
    of_one = None if steps is None else math.fsum(steps)
    return target / of_one if of_one else None


def unfelt(
    form: Form,
    wd: float,
    rates: Sequence[float],
    gain: float | None,
    dtype: torch.dtype = torch.float32,
    *,
    schedule: Schedule = constant,
    lr_corrected: bool = False,
    peak: float | None = None,
) -> float:
    """Share of the decaying steps that are too small to change a weight of ``dtype`` by themselves.

    w * (1 - x) rounds to w for every w where x < eps / 4, half the distance of the numbers below a
    power of two: 3e-8 in float32, 2e-3 in bfloat16.
    """
    steps = _of_each_step(form, wd, rates, gain, schedule, lr_corrected, peak) or []
    decaying = [step for step in steps if step > 0]
    small = sum(step < torch.finfo(dtype).eps / 4 for step in decaying)
    return small / len(decaying) if decaying else 0.0


def gain(optimizer: Optimizer) -> float | None:
    """How far the optimizer amplifies a constant gradient: (1 - dampening) / (1 - momentum).

    That is SGD's, with or without Nesterov's momentum; None for optimizers of other kinds, which
    divide the gradient by its own scale.
    """
    if not isinstance(optimizer, SGD):
        return None
    group = optimizer.param_groups[0]
    return (1 - group["dampening"]) / (1 - group["momentum"]) if group["momentum"] else 1.0


def _of_each_step(
    form: Form,
    wd: float,
    rates: Sequence[float],
    gain: float | None,
    schedule: Schedule,
    lr_corrected: bool,
    peak: float | None,
) -> list[float] | None:
    peak = max(rates, default=0.0) if peak is None else peak
    steps = []
    for t, lr in enumerate(rates):
        rate = lr / peak if peak else 1.0
        step = form.dose(wd * schedule(t, rate) * (rate if lr_corrected else 1.0), lr, gain)
        if step is None:
            return None
        steps.append(step)
    return steps
