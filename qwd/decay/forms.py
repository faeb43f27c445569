"""What a decay does to the weights: one small transform a form, applied around any optimizer.

A form acts once per step, after the gradients are final (unscaled, clipped) and before the
optimizer's own step, on the weights of one parameter group with that group's coefficient and
learning rate. The optimizers themselves run with a weight decay of zero, so "Adam with l2" and
"SGD with decoupled decay" need no optimizer of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from qwd.errors import UsageError


@dataclass(frozen=True)
class Form:
    """A decay form.

    ``apply(weights, wd, lr)`` changes weights or their gradients in place; every weight has a
    gradient. ``dose(wd, lr, gain)`` is what one step contributes to the dose, where ``gain`` is
    how far momentum amplifies a constant gradient, or None for optimizers that divide the
    gradient by its own scale; None where the form then has no dose.
    """

    apply: Callable[[list[Tensor], float, float], None]
    dose: Callable[[float, float, float | None], float | None]
    summary: str


def _l2(weights: list[Tensor], wd: float, lr: float) -> None:
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    torch._foreach_add_(gradients, weights, alpha=wd)  # type: ignore[reportPrivateImportUsage]


def _decoupled(weights: list[Tensor], wd: float, lr: float) -> None:
    torch._foreach_mul_(weights, 1 - lr * wd)  # type: ignore[reportPrivateImportUsage]


l2 = Form(
    apply=_l2,
    dose=lambda wd, lr, gain: None if gain is None else wd * lr * gain,
    summary="g <- g + wd * w, then the optimizer: the L2 penalty wd/2 * |w|^2",
)
decoupled = Form(
    apply=_decoupled,
    dose=lambda wd, lr, gain: wd * lr,
    summary="w <- w - lr * wd * w before the step (Loshchilov & Hutter 2019)",
)
none = Form(
    apply=lambda weights, wd, lr: None,
    dose=lambda wd, lr, gain: 0.0,
    summary="no decay: the control",
)


def attach(optimizer: Optimizer, form: Form) -> RemovableHandle:
    """Apply ``form`` before each ``optimizer.step()``, with each group's ``decay`` and ``lr``.

    Groups come from `qwd.decay.param_groups`; one without a ``decay`` entry is not decayed.
    Parameters without a gradient are left alone, as torch.optim does. ``l2`` adds to ``.grad`` in
    place. Returns the hook's handle; ``handle.remove()`` ends the decay. Raises UsageError where
    the optimizer decays already, by itself (as AdamW does by default) or through this.
    """
    if any(isinstance(hook, _Decay) for hook in optimizer._optimizer_step_pre_hooks.values()):
        raise UsageError(
            "this optimizer has a decay attached already: remove it by its handle first"
        )
    own = [g["weight_decay"] for g in optimizer.param_groups if g.get("weight_decay")]
    if own:
        name = type(optimizer).__name__
        raise UsageError(
            f"{name} has a weight_decay of {own[0]:g} of its own: build it with weight_decay=0"
        )

    return optimizer.register_step_pre_hook(_Decay(form))


@dataclass(frozen=True)
class _Decay:
    """The hook before each step."""

    form: Form

    @torch.no_grad()
    def __call__(self, optimizer: Optimizer, args: object, kwargs: object) -> None:
        for group in optimizer.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            if weights and group.get("decay"):
                self.form.apply(weights, group["decay"], group["lr"])
