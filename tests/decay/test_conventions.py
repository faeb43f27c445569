"""A converted coefficient, in the tool that it is for, takes the dose that it should."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from qwd import decay
from qwd.decay import CONVENTIONS, Form, Schedule, forms, schedules
from tests.decay.classifier import LR

OPTIM = torch.optim
IDLE_RATES = [
    LR * min((t + 1) / 100, 1) * (0.5 + 0.5 * math.cos(math.pi * t / 2000)) for t in range(2000)
]


DOSE = 0.5


def left(optimizer: Optimizer, penalty: float = 0.0) -> float:
    """What an optimizer's decay leaves of a weight without gradient, or a penalty in its loss."""
    (group,) = optimizer.param_groups
    (weight,) = group["params"]
    for group["lr"] in IDLE_RATES:
        optimizer.zero_grad()
        (penalty * weight.square()).sum().backward()
        optimizer.step()
    return weight.item()


def idle_group(**entries: Any) -> list[dict[str, Any]]:
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    return [{"params": [weight], "initial_lr": max(IDLE_RATES), **entries}]


def left_by_qwd(form: Form, wd: float, schedule: Schedule = schedules.constant) -> float:
    optimizer = OPTIM.SGD(idle_group(decay=wd), lr=LR, momentum=0.9)
    decay.attach(optimizer, form, schedule=schedule)
    return left(optimizer)


def left_by_torch(name: str, wd: float, **options: Any) -> float:
    return left(getattr(OPTIM, name)(idle_group(), lr=LR, weight_decay=wd, **options))


def left_by_timm(timm, name: str, wd: float) -> float:
    create = timm.optim.create_optimizer_v2
    return left(create(idle_group(), opt=name, lr=LR, weight_decay=wd, momentum=0.9))


def left_by_others(others, name: str, wd: float, **options: Any) -> float:
    return left(getattr(others, name)(idle_group(), lr=LR, weight_decay=wd, **options))


def left_by_optax(optax, transform_at: Callable[[Any], Any]) -> float:
    jax, jnp = pytest.importorskip("jax"), pytest.importorskip("jax.numpy")
    rates = jnp.asarray(IDLE_RATES)
    transform, weight = transform_at(lambda t: rates[t]), jnp.ones(1)

    def step(carried, _):
        weight, state = carried
        updates, state = transform.update(jnp.zeros(1), state, weight)
        return (optax.apply_updates(weight, updates), state), None

    (weight, _), _ = jax.lax.scan(step, (weight, transform.init(weight)), length=len(IDLE_RATES))
    return float(weight[0])


LEFT: dict[str, tuple[str, Callable[..., float]]] = {
    "qwd l2": ("", lambda wd: left_by_qwd(forms.l2, wd)),
    "qwd decoupled": ("", lambda wd: left_by_qwd(forms.decoupled, wd)),
    "qwd independent": ("", lambda wd: left_by_qwd(forms.independent, wd)),
    "qwd independent, proportional": (
        "",
        lambda wd: left_by_qwd(forms.independent, wd, schedules.proportional),
    ),
    "penalty lambda * |w|^2 in the loss": (
        "",
        lambda wd: left(OPTIM.SGD(idle_group(), lr=LR, momentum=0.9), penalty=wd),
    ),
    "torch.optim.SGD": ("", lambda wd: left_by_torch("SGD", wd, momentum=0.9)),
    "torch.optim.AdamW": ("", lambda wd: left_by_torch("AdamW", wd)),
    "timm sgd": ("timm", lambda wd, timm: left_by_timm(timm, "sgd", wd)),
    "timm sgdw, adamw": ("timm", lambda wd, timm: left_by_timm(timm, "sgdw", wd)),
    "pytorch_optimizer weight_decouple": (
        "others",
        lambda wd, others: left_by_others(others, "SGDW", wd, momentum=0.9),
    ),
    "pytorch_optimizer fixed_decay": (
        "others",
        lambda wd, others: left_by_others(others, "Lion", wd, fixed_decay=True),
    ),
    "optax.add_decayed_weights, then sgd": (
        "optax",
        lambda wd, optax: left_by_optax(
            optax, lambda lr: optax.chain(optax.add_decayed_weights(wd), optax.sgd(lr, 0.9))
        ),
    ),
    "optax.adamw": (
        "optax",
        lambda wd, optax: left_by_optax(optax, lambda lr: optax.adamw(lr, weight_decay=wd)),
    ),
}


@pytest.mark.parametrize("convention", LEFT)
def test_a_converted_coefficient_takes_the_dose_in_the_tool_itself(
    request: pytest.FixtureRequest, convention: str
) -> None:
    tool, left_after = LEFT[convention]
    wd = decay.convert(DOSE, convention, IDLE_RATES, gain=10.0)
    share = left_after(wd, *([request.getfixturevalue(tool)] if tool else []))
    # Over 2000 steps, the sum in place of the product is off by 1e-4; momentum starts from rest.
    rel = 5e-3 if CONVENTIONS[convention].form is forms.l2 else 5e-4
    assert 1 - share == pytest.approx(1 - math.exp(-DOSE), rel=rel)
