"""Learning-rate schedules, point by point against their formulas."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from qwd import decay
from qwd.config import TrainConfig
from qwd.errors import UsageError
from qwd.registry import SCHEDULES
from qwd.train.schedules import RateSchedule, peak_rate, planned_rates
from tests.train.idle_training import ROUNDING, optimizer_of, rates_of


def one_cycle(t: int, steps: int, share: float) -> float:
    """As in fastai: from 1 / 25 up to 1 and down to 1 / 250000."""
    top = share * steps - 1
    if t <= top:
        start, end, x = 1 / 25, 1.0, t / top
    else:
        start, end, x = 1.0, 1 / 250_000, (t - top) / (steps - 1 - top)
    return start + (end - start) * (1 - math.cos(math.pi * x)) / 2


# Each a schedule with settings, and its factor of the peak rate at step t of T after the warm-up,
# for a peak rate of 0.4, 11 steps an epoch and 8 epochs.
FORMULAS: dict[str, tuple[dict[str, Any], Callable[[int, int], float]]] = {
    "constant": ({}, lambda t, steps: 1.0),
    "cosine": ({}, lambda t, steps: (1 + math.cos(math.pi * t / steps)) / 2),
    "cosine to a rate": (
        {"lr_min": 0.02},
        lambda t, steps: (0.02 + 0.38 * (1 + math.cos(math.pi * t / steps)) / 2) / 0.4,
    ),
    "step": (
        {"lr_every": 2, "lr_gamma": 0.3},
        lambda t, steps: 0.3 ** (t // 22),
    ),
    "step by default": ({}, lambda t, steps: 0.1 ** sum(t >= fall for fall in (29, 59))),
    "multistep": (
        {"lr_step": (0.25, 3, 6), "lr_gamma": 0.2},
        lambda t, steps: 0.2 ** sum(t + 88 - steps >= 11 * epoch for epoch in (2, 3, 6)),
    ),
    "multistep by default": (
        {},
        lambda t, steps: 0.1 ** sum(t + 88 - steps >= 11 * epoch for epoch in (4, 6)),
    ),
    "exponential": ({"lr_rate": 0.7}, lambda t, steps: math.exp(-0.7 * t / 11)),
    "inverse": ({"lr_rate": 0.7}, lambda t, steps: 1 / (1 + 0.7 * t / 11)),
    "polynomial": ({}, lambda t, steps: 1 - t / steps),
    "polynomial of a power": ({"lr_power": 0.9}, lambda t, steps: (1 - t / steps) ** 0.9),
    "plateau": ({}, lambda t, steps: 1.0),
    "onecycle": ({}, lambda t, steps: one_cycle(t, steps, 0.3)),
    "onecycle with a late peak": (
        {"lr_peak_at": 0.8},
        lambda t, steps: one_cycle(t, steps, 0.8),
    ),
}


@pytest.mark.parametrize("warmup", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("name", FORMULAS)
def test_every_step_is_the_formulas(name: str, warmup: float) -> None:
    settings, factor = FORMULAS[name]
    schedule = name.split()[0]
    config = TrainConfig(lr=0.4, epochs=8, lr_schedule=schedule, warmup=warmup, **settings)
    multiples = (2.0, 1.0, 0.05)
    actual = rates_of(config, 11, multiples)
    first = round(11 * warmup)
    steps = 88 - first
    expected = [factor(0, steps) * (t + 1) / first for t in range(first)]
    expected += [factor(t, steps) for t in range(steps)]
    for t, rates in enumerate(actual):
        wanted = [0.4 * multiple * expected[t] for multiple in multiples]
        assert rates == pytest.approx(wanted, rel=1e-13, abs=0.4 * 1e-15), t


def test_every_schedule_that_ships_has_its_formula() -> None:
    shipped = {name for name in SCHEDULES.names() if SCHEDULES.ships(name)}
    assert {name.split()[0] for name in FORMULAS} == shipped


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({"lr_schedule": "cosine"}, lambda t: (1 + math.cos(math.pi * t / 100_000)) / 2),
        ({"lr_schedule": "polynomial", "lr_power": 2}, lambda t: (1 - t / 100_000) ** 2),
        ({"lr_schedule": "exponential"}, lambda t: math.exp(-0.05 * t / 1000)),
    ],
    ids=["cosine", "polynomial", "exponential"],
)
def test_recursions_do_not_drift_over_100_000_steps(settings: dict, factor) -> None:
    planned = planned_rates(TrainConfig(lr=0.1, epochs=100, **settings), 1000)
    assert len(planned) == 100_000
    worst = max(abs(rate - 0.1 * factor(t)) for t, rate in enumerate(planned))
    assert worst <= 0.1 * ROUNDING


# Against torch's own, where a schedule is not made of the scheduler of that name.


def torchs(make: Callable[[torch.optim.Optimizer], Any], steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_step_and_onecycle_equal_torchs() -> None:
    pairs: list[tuple[dict[str, Any], Any]] = [
        ({"lr_schedule": "cosine", "lr_min": 0.02}, lambda o: cosine(o, T_max=77, eta_min=0.02)),
        ({"lr_schedule": "step", "lr_every": 3}, lambda o: by_step(o, step_size=33, gamma=0.1)),
        ({"lr_schedule": "onecycle"}, lambda o: cycle(o, 0.4, total_steps=77)),
    ]
    cosine, by_step = lr_scheduler.CosineAnnealingLR, lr_scheduler.StepLR

    def cycle(*args: Any, **kwargs: Any) -> lr_scheduler.OneCycleLR:
        return lr_scheduler.OneCycleLR(*args, **kwargs, cycle_momentum=False)

    for settings, make in pairs:
        planned = planned_rates(TrainConfig(lr=0.4, epochs=7, **settings), 11)
        assert planned == pytest.approx(torchs(make, 77), rel=1e-13)


def test_onecycle_leaves_the_momentum_alone_and_takes_any_length() -> None:
    config = TrainConfig(lr=0.4, epochs=1, lr_schedule="onecycle", lr_peak_at=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4, momentum=0.77)
    RateSchedule(optimizer, config, 20)
    assert optimizer.param_groups[0]["momentum"] == 0.77
    # 0.1 * 10 - 1 = 0: the peak is the first step, and torch alone would divide by zero.
    assert planned_rates(config, 10)[0] == pytest.approx(0.4, rel=1e-6)
    for steps in range(1, 30):
        assert all(0 <= rate <= 0.4 for rate in planned_rates(config, steps))


# The plateau schedule.


# What every schedule has to keep.


# Around them.


def test_linear_scaling_rule() -> None:
    config = TrainConfig(lr=0.1, batch_size=512, base_batch_size=256)
    assert peak_rate(config) == 0.2
    assert planned_rates(config, 3)[0] == 0.2
    assert peak_rate(replace(config, base_batch_size=None)) == 0.1
    assert peak_rate(replace(config, batch_size=32)) == pytest.approx(0.0125)


def test_runs_that_differ_in_decay_and_seed_share_a_plan() -> None:
    config = TrainConfig(wd=1e-4, seed=0)
    assert planned_rates(config, 5) is planned_rates(replace(config, wd=1e-2, seed=7), 5)
    assert planned_rates(config, 5) is not planned_rates(replace(config, lr=0.2), 5)


def test_decay_sees_the_peak_rate_of_onecycle() -> None:
    config = TrainConfig(lr=0.4, epochs=2, lr_schedule="onecycle")
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([{"params": [weight], "decay": 0.1, "lr": 0.4}])
    attached = decay.attach(
        optimizer, decay.forms.independent, schedule=decay.schedules.proportional
    )
    RateSchedule(optimizer, config, 10)
    assert attached.coefficient(optimizer.param_groups[0]) == pytest.approx(0.1 / 25)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_schedule": "multistep", "lr_step": (60,)}, "--lr-step 60: must be before the end"),
        (
            {"lr_schedule": "cosine", "lr_min": 0.5},
            "--lr-min 0.5: exceeds the peak learning rate 0.1",
        ),
        (
            {"lr_schedule": "cosine", "lr_min": 0.05, "batch_size": 8, "base_batch_size": 32},
            "--lr-min 0.05: exceeds the peak learning rate 0.025",
        ),
        ({"lr_schedule": "plateau", "lr_gamma": 1}, "--lr-gamma 1: .* less than 1"),
        ({"lr_schedule": "step", "lr_every": 0.01}, "--lr-every 0.01: less than one of the 5"),
        (
            {"lr_schedule": "multistep", "lr_step": (30, 3), "warmup": 5},
            "--lr-step 3: epoch 3 is not after the --warmup of 5",
        ),
        (
            {"lr_schedule": "multistep", "lr_step": (0.05,), "warmup": 3},
            "--lr-step 0.05: epoch 3 is not after",
        ),
    ],
)
def test_settings_that_cannot_be(settings: dict, message: str) -> None:
    config = TrainConfig(lr=0.1, **settings)
    with pytest.raises(UsageError, match=message):
        RateSchedule(optimizer_of(config), config, 5)
    with pytest.raises(UsageError, match=message):
        planned_rates(config, 5)
