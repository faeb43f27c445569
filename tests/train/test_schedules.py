"""Learning-rate schedules, point by point against their formulas."""

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from qwd import decay
from qwd.config import TrainConfig
from qwd.decay.attach import peak_rate as peak_of
from qwd.errors import UsageError
from qwd.registry import SCHEDULES
from qwd.train.schedules import RateSchedule, peak_rate, planned_rates

ROUNDING = 1e-12
"""of the peak: what torch's recursions lose over 100,000 steps, 1.4e-13, and some more"""


def optimizer_of(config: TrainConfig, factors: Sequence[float] = (1.0,)) -> torch.optim.Optimizer:
    """Parameters that never move, in groups at multiples of the peak rate."""
    lr = peak_rate(config)
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr * f} for f in factors]
    return torch.optim.SGD(groups)


def rates_of(config: TrainConfig, spe: int, factors: Sequence[float] = (1.0,)) -> list[list[float]]:
    """The rates of all groups at every step of a real training loop."""
    optimizer = optimizer_of(config, factors)
    schedule = RateSchedule(optimizer, config, spe)
    rates = []
    for _ in range(config.epochs * spe):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return rates


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


def on_plateau(losses: Sequence[float], **settings: Any) -> Iterator[tuple[float, bool]]:
    """Of each epoch, which has one step: its rate, and whether training should stop after it."""
    config = TrainConfig(**{"lr": 0.512, "lr_schedule": "plateau", **settings})
    optimizer = optimizer_of(config)
    schedule = RateSchedule(optimizer, config, 1)
    for loss in losses:
        rate = schedule.rate
        optimizer.step()
        schedule.step()
        yield rate, schedule.epoch_ended(loss)


def rates_after(losses: Sequence[float], **settings: Any) -> list[float]:
    """The rate of each epoch of a training that does not stop."""
    course = list(on_plateau(losses, **settings))
    assert not any(stop for _, stop in course)
    return [rate for rate, _ in course]


def test_the_rate_falls_when_the_loss_stalls() -> None:
    # The rate falls after the third epoch without a new minimum. A loss that is the least bit
    # lower is one, an equal one is not.
    losses = [1.0, 1.0 - 1e-9, 1.0, 2.0, 1.0 - 1e-9, 0.5, 0.6, 0.7, 0.8, 0.4]
    expected = [0.512] * 5 + [0.0512] * 4 + [0.00512]
    assert rates_after(losses, lr_patience=3) == pytest.approx(expected)


def test_halving_goes_down_to_a_1024th_and_then_training_stops() -> None:
    course = list(on_plateau([1.0] * 23, lr_gamma=0.5, lr_patience=2))
    # The first epoch is the minimum, and after every second one from there the rate falls.
    expected = [0.512, *(0.512 / 2 ** (epoch // 2) for epoch in range(22))]
    assert [rate for rate, _ in course] == expected
    assert expected[-1] == 0.512 / 1024
    assert [stop for _, stop in course] == [False] * 22 + [True]


def test_tenths_end_at_the_same_floor() -> None:
    course = list(on_plateau([1.0] * 6, lr_patience=1))
    assert [rate for rate, _ in course] == pytest.approx(
        [0.512, 0.512, 0.0512, 0.00512, 0.000512, 0.0005]
    )
    assert [stop for _, stop in course] == [False] * 5 + [True]


def test_a_lower_loss_at_the_floor_lets_training_go_on() -> None:
    losses = [1.0] * 5 + [0.9, 0.8, 0.8]
    assert [stop for _, stop in on_plateau(losses, lr_patience=1)] == [False] * 7 + [True]


def test_small_rates_fall_too() -> None:
    last, stop = list(on_plateau([1.0] * 6, lr=1e-7, lr_patience=1))[-1]
    assert (last, stop) == (pytest.approx(1e-7 / 1024), True)


def test_all_groups_fall_together() -> None:
    config = TrainConfig(lr=0.1, lr_schedule="plateau", lr_patience=1)
    optimizer = optimizer_of(config, (1.0, 2.0, 0.01))
    schedule = RateSchedule(optimizer, config, 1)
    for expected in (0.1, 0.01, 0.001, 0.0001, 0.1 / 1024):
        stop = schedule.epoch_ended(1.0)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([expected, 2 * expected, 0.01 * expected])
        assert not stop
    assert schedule.epoch_ended(1.0)


def test_epochs_of_the_warmup_do_not_count() -> None:
    course = [rate for rate, _ in on_plateau([1, 2, 3, 4, 5, 6], lr_patience=1, warmup=4)]
    # The fourth epoch ends with the warm-up and is the first to count.
    assert course == pytest.approx([0.128, 0.256, 0.384, 0.512, 0.512, 0.0512])


# What every schedule has to keep.


def small(name: str, warmup: float = 0.0) -> TrainConfig:
    return TrainConfig(lr=0.3, epochs=6, lr_schedule=name, warmup=warmup)


@pytest.mark.parametrize("warmup", [0.0, 0.7])
@pytest.mark.parametrize("name", SCHEDULES.names())
def test_contract(name: str, warmup: float) -> None:
    config = small(name, warmup)
    factors = (1.0, 2.0, 0.01)
    optimizer = optimizer_of(config, factors)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = RateSchedule(optimizer, config, 10)
        first = schedule.rate
        for step in range(60):
            for group, factor in zip(optimizer.param_groups, factors, strict=True):
                assert 0 <= group["lr"] <= 0.3 * factor * (1 + ROUNDING)
                assert group["lr"] == pytest.approx(schedule.rate * factor)
                assert peak_of(group) == 0.3 * factor
                assert "initial_lr" in group
            assert schedule.rate == planned_rates(config, 10)[step]
            optimizer.step()
            schedule.step()
        last = schedule.rate
        schedule.step()
        assert schedule.rate == last
    assert first == planned_rates(config, 10)[0]
    assert max(planned_rates(config, 10)) <= 0.3 * (1 + ROUNDING)


@pytest.mark.parametrize("stop", [0, 3, 7, 30, 59])
@pytest.mark.parametrize("name", SCHEDULES.names())
def test_contract_resume_is_exact(name: str, stop: int) -> None:
    config = small(name, warmup=0.7)

    def run(optimizer, schedule, begin: int, end: int) -> list[list[float]]:
        rates = []
        for step in range(begin, end):
            rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            schedule.step()
            if step % 10 == 9:
                schedule.epoch_ended(1.0)
        return rates

    whole = optimizer_of(config, (1.0, 0.3))
    schedule = RateSchedule(whole, config, 10)
    run(whole, schedule, 0, stop)
    stored = io.BytesIO()
    torch.save([schedule.state_dict(), whole.state_dict()], stored)
    expected = run(whole, schedule, stop, 60)

    for with_optimizer in (True, False):
        stored.seek(0)
        state, optimizer_state = torch.load(stored, weights_only=True)
        again = optimizer_of(config, (1.0, 0.3))
        resumed = RateSchedule(again, config, 10)
        if with_optimizer:
            again.load_state_dict(optimizer_state)
        resumed.load_state_dict(state)
        assert run(again, resumed, stop, 60) == expected


def test_a_state_of_other_groups_is_refused() -> None:
    config = small("cosine")
    state = RateSchedule(optimizer_of(config, (1.0, 2.0)), config, 10).state_dict()
    with pytest.raises(ValueError, match="shorter|longer|argument"):
        RateSchedule(optimizer_of(config), config, 10).load_state_dict(state)


@given(
    name=st.sampled_from(SCHEDULES.names()),
    epochs=st.integers(1, 5),
    spe=st.integers(1, 7),
    warmup=st.floats(0, 0.99),
)
def test_contract_short_trainings(name: str, epochs: int, spe: int, warmup: float) -> None:
    warmup = min(warmup, 0.3) if name == "multistep" else warmup
    rates = planned_rates(TrainConfig(lr=0.3, epochs=epochs, lr_schedule=name, warmup=warmup), spe)
    assert len(rates) == epochs * spe
    assert all(0 <= rate <= 0.3 * (1 + ROUNDING) for rate in rates)


def test_schedules_of_others_are_warmed_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def rising(optimizer, config, steps, steps_per_epoch):
        return lr_scheduler.LambdaLR(optimizer, lambda t: 0.5 + 0.5 * t / steps)

    monkeypatch.setattr(SCHEDULES, "_entries", {**SCHEDULES._entries})
    SCHEDULES.register("rising")(rising)
    config = TrainConfig(lr=1.0, epochs=3, lr_schedule="rising", warmup=1)
    assert planned_rates(config, 2) == pytest.approx([0.25, 0.5, 0.5, 0.625, 0.75, 0.875])


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
