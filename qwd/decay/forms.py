"""What a decay does to the weights: one small transform a form, applied around any optimizer.

A form acts on the weights of one parameter group at each step: on their gradients once these are
final, on the weights before the optimizer's own step, or on the weights after it. The optimizers
themselves run with a weight decay of zero, so "Adam with l2" and "SGD with decoupled decay" need
no optimizer of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Weights = list[Tensor]


@dataclass(frozen=True, kw_only=True)
class Form:
    """A decay form: one of ``gradient``, ``before`` and ``after``, and what it computes.

    All three change tensors in place; every weight has a gradient. ``dose(wd, lr, gain)`` is what
    one step contributes to the dose, ``gain`` being how far momentum amplifies a constant gradient
    or None for optimizers that divide the gradient by its own scale; None where the form has no
    dose. ``reference`` is the same transform as a formula, for `qwd.decay.audit`.
    """

    name: str
    summary: str
    dose: Callable[[float, float, float | None], float | None]
    reference: Callable[[Tensor, float, float], Tensor]
    """(w, wd, lr), float64: the gradient that ``gradient`` adds, or else w after an idle step"""
    gradient: Callable[[Weights, Weights, float], None] | None = None
    """(gradients, weights, wd)"""
    before: Callable[[Weights, float, float], None] | None = None
    """(weights, wd, lr)"""
    after: Callable[[Weights, Weights, float, float], None] | None = None
    """(weights, weights before the step, wd, lr)"""
    dose_is_bound: bool = False
    """the dose is the most that the form can take"""
    options: Mapping[str, "Form"] = field(default_factory=dict)
    """published extensions of the form by name"""

    @property
    def acts(self) -> bool:
        """Whether the form does anything."""
        return any(part is not None for part in (self.gradient, self.before, self.after))


def _l2(gradients: Weights, weights: Weights, wd: float) -> None:
    torch._foreach_add_(gradients, weights, alpha=wd)  # type: ignore[reportPrivateImportUsage]


def _l1(gradients: Weights, weights: Weights, wd: float) -> None:
    signs = torch._foreach_sign(weights)  # type: ignore[reportPrivateImportUsage]
    torch._foreach_add_(gradients, signs, alpha=wd)  # type: ignore[reportPrivateImportUsage]


def _decoupled(weights: Weights, wd: float, lr: float) -> None:
    torch._foreach_mul_(weights, 1 - lr * wd)  # type: ignore[reportPrivateImportUsage]


def _independent(weights: Weights, wd: float, lr: float) -> None:
    torch._foreach_mul_(weights, 1 - wd)  # type: ignore[reportPrivateImportUsage]


def _cautious(weights: Weights, previous: Weights, wd: float, lr: float) -> None:
    for w, before in zip(weights, previous, strict=True):
        # Signs, because a product of small numbers underflows.
        shrinking = (before - w).sign_().mul_(before.sign()) >= 0
        w.sub_(before * shrinking, alpha=lr * wd)


def _proximal(weights: Weights, previous: Weights, wd: float, lr: float) -> None:
    for w in weights:
        w.copy_(torch.nn.functional.softshrink(w, lr * wd))


def _rate_times_wd(wd: float, lr: float, gain: float | None) -> float:
    return wd * lr


cautious = Form(
    name="cautious",
    after=_cautious,
    dose=_rate_times_wd,
    dose_is_bound=True,
    # Without a gradient nothing is subtracted, and u * w >= 0 everywhere.
    reference=lambda w, wd, lr: w * (1 - lr * wd),
    summary="w <- w - lr * (u + wd * w where u * w >= 0), u the optimizer's direction "
    "(Chen et al. 2025)",
)
proximal = Form(
    name="proximal",
    after=_proximal,
    dose=lambda wd, lr, gain: None,
    reference=lambda w, wd, lr: w.sign() * (w.abs() - lr * wd).clamp(min=0),
    summary="w <- sign(w) * max(|w| - lr * wd, 0) after the step, with exact zeros "
    "(Daubechies et al. 2004)",
)
l2 = Form(
    name="l2",
    gradient=_l2,
    dose=lambda wd, lr, gain: None if gain is None else wd * lr * gain,
    reference=lambda w, wd, lr: wd * w,
    summary="g <- g + wd * w, then the optimizer: the L2 penalty wd/2 * |w|^2",
)
decoupled = Form(
    name="decoupled",
    before=_decoupled,
    dose=_rate_times_wd,
    reference=lambda w, wd, lr: w * (1 - lr * wd),
    summary="w <- w - lr * wd * w before the step, as torch's AdamW; --cautious, --lr-corrected",
    options={"cautious": cautious},
)
independent = Form(
    name="independent",
    before=_independent,
    dose=lambda wd, lr, gain: wd,
    reference=lambda w, wd, lr: w * (1 - wd),
    summary="w <- w - wd * w before the step, whatever the rate (Hanson & Pratt 1988); with "
    "--wd-schedule proportional times lr_t / lr_0 (Loshchilov & Hutter 2019)",
)
l1 = Form(
    name="l1",
    gradient=_l1,
    dose=lambda wd, lr, gain: None,
    reference=lambda w, wd, lr: wd * w.sign(),
    summary="g <- g + wd * sign(w), then the optimizer: the L1 penalty wd * |w|; --proximal",
    options={"proximal": proximal},
)
none = Form(
    name="none",
    dose=lambda wd, lr, gain: 0.0,
    reference=lambda w, wd, lr: w,
    summary="no decay: the control",
)
