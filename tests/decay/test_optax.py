"""Decay forms against optax, which is given torch's gradients."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from qwd.decay import forms, schedules
from tests.decay.classifier import (
    LR,
    MOMENTUM,
    NESTEROV,
    STEPS,
    WD,
    batches,
    classifier,
    close,
    ours,
)

OPTIM = torch.optim


def with_optax(optax, transform) -> list[Tensor]:
    """The weights after training with an optax transform, on torch's gradients."""
    jnp = pytest.importorskip("jax.numpy")
    model = classifier()
    weights = {n: jnp.asarray(p.detach().numpy()) for n, p in model.named_parameters()}
    state = transform.init(weights)
    for images, labels in batches():
        F.cross_entropy(model(images), labels).backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        slopes = {n: jnp.asarray(g.numpy()) for n, g in grads.items()}
        updates, state = transform.update(slopes, state, weights)
        weights = optax.apply_updates(weights, updates)
        for name, parameter in model.named_parameters():
            parameter.data = torch.from_dlpack(weights[name]).clone()
            parameter.grad = None
    return [p.detach() for p in model.parameters()]


def matrices(weights: dict) -> dict:
    return {name: value.ndim > 1 for name, value in weights.items()}


def optax_cases(optax) -> dict[str, tuple[Any, Callable[[], list[Tensor]]]]:
    """Each form as a transform, masked to matrices, and as qwd has it."""
    added, chain, adamw = optax.add_decayed_weights, optax.chain, optax.adamw
    lr, wd = (optax.cosine_decay_schedule(peak, STEPS) for peak in (LR, WD))
    moving, scaled = optax.trace(0.9), optax.scale_by_learning_rate(lr)
    adam_with = functools.partial(ours, OPTIM.AdamW, forms.decoupled)
    sgd_with = functools.partial(ours, OPTIM.SGD)
    return {
        "sgd, l2": (
            chain(added(WD, matrices), optax.sgd(lr, 0.9)),
            lambda: sgd_with(forms.l2, **MOMENTUM),
        ),
        "sgd, l2, nesterov": (
            chain(added(WD, matrices), optax.sgd(lr, 0.9, nesterov=True)),
            lambda: sgd_with(forms.l2, **NESTEROV),
        ),
        "sgd, decoupled": (
            chain(moving, added(WD, matrices), scaled),
            lambda: sgd_with(forms.decoupled, **MOMENTUM),
        ),
        "sgd, independent": (
            chain(moving, scaled, added(-WD, matrices)),
            lambda: sgd_with(forms.independent, **MOMENTUM),
        ),
        "sgd, proportional": (
            chain(moving, scaled, added(lambda t: -wd(t), matrices)),
            lambda: sgd_with(forms.independent, schedule=schedules.proportional, **MOMENTUM),
        ),
        "adam, l2": (
            chain(added(WD, matrices), optax.adam(lr)),
            lambda: ours(OPTIM.Adam, forms.l2),
        ),
        "adamw": (adamw(lr, weight_decay=WD, mask=matrices), adam_with),
        "adamw, all": (adamw(lr, weight_decay=WD), lambda: adam_with(decay_all=True)),
        "adamw, corrected": (
            adamw(lr, weight_decay=wd, mask=matrices),
            lambda: adam_with(lr_corrected="weight"),
        ),
        "adamw, cosine": (
            adamw(lr, weight_decay=optax.cosine_decay_schedule(WD, 80, 0.2), mask=matrices),
            lambda: adam_with(schedule=schedules.cosine(80, 0.2)),
        ),
        "adamw, linear": (
            adamw(lr, weight_decay=optax.linear_schedule(WD, 0.3 * WD, 60), mask=matrices),
            lambda: adam_with(schedule=schedules.linear(60, 0.3)),
        ),
        "adamw, piecewise": (
            adamw(
                lr,
                weight_decay=optax.piecewise_constant_schedule(WD, {30: 0.5, 70: 0.0}),
                mask=matrices,
            ),
            lambda: adam_with(schedule=schedules.piecewise({30: 0.5, 70: 0.0})),
        ),
    }


OPTAX_CASES = [
    "sgd, l2",
    "sgd, l2, nesterov",
    "sgd, decoupled",
    "sgd, independent",
    "sgd, proportional",
    "adam, l2",
    "adamw",
    "adamw, all",
    "adamw, corrected",
    "adamw, cosine",
    "adamw, linear",
    "adamw, piecewise",
]


@pytest.mark.parametrize("case", OPTAX_CASES)
def test_optax(optax, case: str) -> None:
    # optax computes its linear schedule in float32 even where everything else is float64.
    rtol = 1e-6 if case == "adamw, linear" else 1e-10
    transform, as_qwd = optax_cases(optax)[case]
    close(with_optax(optax, transform), as_qwd(), rtol)
