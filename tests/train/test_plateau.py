"""The plateau schedule: the rate falls where the validation loss stalls."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from qwd.config import TrainConfig
from qwd.train.schedules import RateSchedule
from tests.train.idle_training import optimizer_of


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
