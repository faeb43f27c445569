"""A form at work: hooks around the steps of any torch optimizer."""

import math
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from qwd.decay.clone import wrapped
from qwd.decay.forms import Form
from qwd.decay.schedules import Schedule, constant
from qwd.errors import UsageError

STEP = "decay_step"
PEAK = "decay_peak_lr"
"""steps taken and highest rate, kept in the groups so that the optimizer's state dict has them"""

OWN_DECAYS = ("weight_decay", "lambd")
"""what optimizers call a decay of their own; the second is ASGD's"""

MISSING = (
    "no parameter group of this {} has a 'decay': build it from qwd.decay.param_groups(model, wd), "
    "and load states of optimizers that were"
)


def attach(
    optimizer: Optimizer,
    form: Form,
    *,
    schedule: Schedule = constant,
    peak: float | Sequence[float] | None = None,
) -> "Attached":
    """Apply ``form`` around each ``optimizer.step()``, with each group's ``decay`` and ``lr``.

    Groups come from `qwd.decay.param_groups`; one whose ``decay`` is 0 or absent is not decayed.
    ``schedule(step, lr / peak lr)`` multiplies the coefficients; see `qwd.decay.schedules`.
    ``peak`` is the highest rate to come, of all groups or of each in turn: to be given where the
    rates rise first and no torch scheduler has said how far (a warm-up by hand, CyclicLR), as the
    peak is otherwise the highest rate so far. A state dict has it.
    Parameters without a gradient are left alone, as torch.optim does. Gradient forms add to
    ``.grad`` in place, after unscaling and clipping. Closures, ``maximize``, ``foreach``, and
    ``fused`` with torch's GradScaler are respected. ``remove()`` of what is returned ends it.

    Raises UsageError where no group has a ``decay``, where the optimizer decays already, by itself
    (as AdamW does by default) or through this, and where ``peak`` is not positive or not one for
    every group.
    """
    if attached_to(optimizer) is not None:
        raise UsageError("this optimizer has a decay attached already: remove() it first")
    name = type(optimizer).__name__
    for key in OWN_DECAYS:
        own = [g[key] for g in optimizer.param_groups if g.get(key)]
        if own:
            raise UsageError(f"{name} has a {key} of {own[0]:g} of its own: build it with {key}=0")
    if not any("decay" in group for group in optimizer.param_groups):
        raise UsageError(MISSING.format(name))
    groups = optimizer.param_groups
    if peak is not None:
        peaks = list(peak) if isinstance(peak, Sequence) else [peak] * len(groups)
        if len(peaks) != len(groups) or not all(0 < rate < math.inf for rate in peaks):
            raise UsageError(
                f"peak {peak!r}: expected a positive rate, or one for each of {len(groups)} groups"
            )
        for group, rate in zip(groups, peaks, strict=True):
            group[PEAK] = float(rate)
    return Attached(optimizer, form, schedule)


def attached_to(optimizer: Optimizer) -> "Attached | None":
    """The decay that is attached to ``optimizer``, or to the one that it wraps, if any."""
    hooks = optimizer._optimizer_step_pre_hooks.values()
    owners = (getattr(hook, "__self__", None) for hook in hooks)
    inner = wrapped(optimizer)
    found = next((owner for owner in owners if isinstance(owner, Attached)), None)
    return attached_to(inner) if found is None and inner is not None else found


def peak_rate(group: dict[str, Any]) -> float:
    """The highest learning rate of a group: its scheduler's, or that of a step, or what `attach`
    was given, where higher.

    0 for optimizers that find their rate themselves.
    """
    known = [group.get("max_lr", group.get("initial_lr")), group.get(PEAK), group["lr"]]
    return max((float(rate) for rate in known if rate is not None), default=0.0)


class Attached:
    """A form that acts at each step of one optimizer; made by `attach`."""

    def __init__(self, optimizer: Optimizer, form: Form, schedule: Schedule):
        self.form = form
        self.schedule = schedule
        self.groups = len(optimizer.param_groups)
        """how many there were"""
        self._previous: list[tuple[list[Tensor], list[Tensor], float, float]] = []
        self._begun = False
        self._step: FrameType | None = None
        self._handles = (
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        )

    def remove(self) -> None:
        """End the decay."""
        for handle in self._handles:
            handle.remove()

    def coefficient(self, group: dict[str, Any]) -> float:
        """What ``group`` is decayed by at its next step: its ``decay`` times the schedule."""
        wd = group.get("decay", 0.0)
        if not wd or not self.form.acts:
            return 0.0
        peak = peak_rate(group)
        rate = float(group["lr"]) / peak if peak else 1.0
        # AdamC: wd * lr_t^2 / lr_max, one lr_t being the decoupled form's own (Defazio 2025).
        corrected = rate if group.get("lr_corrected") else 1.0
        return wd * corrected * self.schedule(group.get(STEP, 0), rate)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        # torch calls the hooks again where a subclass's step calls super().step().
        if _is_running(self._step):
            return None
        self._step = sys._getframe(1)
        self._begun, self._previous = False, []
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(closure):
            self._act(optimizer)
            return None

        # The gradients exist once the closure has run; line searches run it several times.
        def decayed() -> Any:
            loss = closure()
            self._act(optimizer)
            return loss

        return args[:1], {**kwargs, "closure": decayed}

    @torch.no_grad()
    def _act(self, optimizer: Any) -> None:
        # Fused optimizers unscale their gradients, and skip a step, inside of it.
        skipped = getattr(optimizer, "found_inf", None)
        scale = getattr(optimizer, "grad_scale", None)
        if skipped is not None and float(skipped):
            return
        if not any("decay" in group for group in optimizer.param_groups):
            raise UsageError(MISSING.format(type(optimizer).__name__))
        first, self._begun = not self._begun, True
        for weights, wd, lr, sign in self._decayed(optimizer):
            if self.form.gradient is not None:
                gradients = [w.grad for w in weights if w.grad is not None]
                self.form.gradient(gradients, weights, sign * wd * _number(scale, 1.0))
            elif first and self.form.before is not None:
                self.form.before(weights, wd, lr)
            elif first:
                self._previous.append((weights, [w.clone() for w in weights], wd, lr))

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if sys._getframe(1) is not self._step:
            return
        self._step = None
        with torch.no_grad():
            for weights, previous, wd, lr in self._previous:
                assert self.form.after is not None
                self.form.after(weights, previous, wd, lr)
        if self._begun:
            for group in optimizer.param_groups:
                group |= {STEP: group.get(STEP, 0) + 1, PEAK: peak_rate(group)}
        self._previous = []

    def _decayed(self, optimizer: Optimizer) -> Iterator[tuple[list[Tensor], float, float, int]]:
        """Of each group: weights with a gradient, coefficient, rate, and -1 where it ascends."""
        for group in optimizer.param_groups:
            wd = self.coefficient(group)
            weights = [w for w in group["params"] if w.grad is not None] if wd else []
            if self.form.gradient is not None and any(w.grad.is_sparse for w in weights):
                raise UsageError("a form that changes gradients needs dense ones, not sparse")
            if weights:
                yield weights, wd, float(group["lr"] or 0.0), -1 if group.get("maximize") else 1


def _is_running(frame: FrameType | None) -> bool:
    """Whether a call has not returned; one that an exception has ended is not running."""
    caller = sys._getframe(1)
    while frame is not None and caller is not None:
        if caller is frame:
            return True
        caller = caller.f_back
    return False


def _number(scale: Tensor | None, default: float) -> float:
    return default if scale is None else float(scale)
