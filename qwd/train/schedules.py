"""The learning rate over time: torch's schedulers, a linear warm-up before any of them.

A schedule is a function of an optimizer, whose groups are at their peak rates, of the settings,
of the number of steps after the warm-up, and of the steps in an epoch. It returns a torch
scheduler that is stepped after each optimizer step, or a `ReduceLROnPlateau`, which is stepped
after each epoch. Groups of different rates all follow the same curve. In the formulas t counts
the steps, or epochs where it says so, after the warm-up, T is the number of those steps, and lr
the peak rate.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ExponentialLR,
    LambdaLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
)

from qwd.config import TrainConfig
from qwd.errors import UsageError
from qwd.registry import SCHEDULES

LEAST = 1 / 1024
"""Of the peak rate: where the plateau schedule ends, after halving it ten times."""


def peak_rate(config: TrainConfig) -> float:
    """The highest rate: --lr, times batch size / --base-batch-size where that is given.

    Source: the linear scaling rule (Goyal et al. 2017).
    """
    if config.base_batch_size is None:
        return config.lr
    return config.lr * (config.batch_size / config.base_batch_size)


def constant(
    optimizer: Optimizer, config: TrainConfig, steps: int, steps_per_epoch: int
) -> LRScheduler:
    """lr throughout."""
    return LambdaLR(optimizer, lambda t: 1.0)


def cosine(
    optimizer: Optimizer, config: TrainConfig, steps: int, steps_per_epoch: int
) -> LRScheduler:
    """lr_min + (lr - lr_min) (1 + cos(pi t / T)) / 2 (Loshchilov & Hutter 2017, no restarts).

    A group of another peak rate ends at ``lr_min`` times as much, which torch's
    CosineAnnealingLR, with one ``eta_min`` for all groups, cannot do.

    Raises UsageError where ``lr_min`` exceeds the peak rate.
    """
    peak = peak_rate(config)
    if config.lr_min > peak:
        raise UsageError(f"--lr-min {config.lr_min:g}: exceeds the peak learning rate {peak:g}")
    least, length = config.lr_min / peak, max(steps, 1)
    return LambdaLR(
        optimizer, lambda t: least + (1 - least) * (1 + math.cos(math.pi * t / length)) / 2
    )


def step(
    optimizer: Optimizer, config: TrainConfig, steps: int, steps_per_epoch: int
) -> LRScheduler:
    """lr * lr_gamma^floor(t / lr_every), t in epochs (torch's ImageNet example: 0.1, 30).

    ``lr_every`` need not be a whole number of steps: each fall is at the nearest step.

    Raises UsageError where ``lr_every`` is less than one step.
    """
    every = (config.epochs / 3 if config.lr_every is None else config.lr_every) * steps_per_epoch
    if config.lr_every is not None and every < 1:
        raise UsageError(
            f"--lr-every {config.lr_every:g}: less than one of the {steps_per_epoch} steps of an "
            "epoch"
        )
    falls = range(1, math.ceil(steps / every) + 1)
    return MultiStepLR(optimizer, [_place(k * every) for k in falls], config.lr_gamma)


def multistep(
    optimizer: Optimizer, config: TrainConfig, steps: int, steps_per_epoch: int
) -> LRScheduler:
    """lr * lr_gamma^(number of lr_step that have passed) (He et al. 2016: at 1/2 and 3/4).

    Values below 1 are fractions of the epochs, others are epochs. They count from the start of the
    training, the warm-up included, and each fall is at the nearest step.

    Raises UsageError where one is not after the warm-up.
    """
    places = []
    for value in config.lr_step:
        epoch = value * config.epochs if value < 1 else value
        if epoch >= config.epochs:
            raise UsageError(
                f"--lr-step {value:g}: must be before the end of --epochs {config.epochs}"
            )
        if epoch <= config.warmup:
            raise UsageError(
                f"--lr-step {value:g}: epoch {epoch:g} is not after the --warmup of "
                f"{config.warmup:g} epochs"
            )
        warm = _warmup_steps(config, steps_per_epoch)
        places.append(_place(epoch * steps_per_epoch - warm))
    return MultiStepLR(optimizer, places, config.lr_gamma)


def exponential(
    optimizer: Optimizer, config: TrainConfig, steps: int, steps_per_epoch: int
) -> LRScheduler:
    """lr * exp(-lr_rate t), t in epochs, falling at every step (Stanford CS231n, notes)."""
    return ExponentialLR(optimizer, math.exp(-config.lr_rate / steps_per_epoch))


def inverse(
    optimizer: Optimizer, config: TrainConfig, steps: int, steps_per_epoch: int
) -> LRScheduler:
    """lr / (1 + lr_rate t), t in epochs, falling at every step (Stanford CS231n, notes)."""
    return LambdaLR(optimizer, lambda t: 1 / (1 + config.lr_rate * (t / steps_per_epoch)))


def polynomial(
    optimizer: Optimizer, config: TrainConfig, steps: int, steps_per_epoch: int
) -> LRScheduler:
    """lr (1 - t / T)^lr_power (1: linear to zero, as BERT, Devlin et al. 2019)."""
    return PolynomialLR(optimizer, max(steps, 1), config.lr_power)


def plateau(
    optimizer: Optimizer, config: TrainConfig, steps: int, steps_per_epoch: int
) -> LRScheduler:
    """Times lr_gamma whenever the validation loss stalls, down to lr / 1024, then training stops.

    The loss stalls in the last of ``lr_patience`` epochs without a new minimum; then the counting
    begins anew. Epochs that end before the warm-up does are not counted. (He et al. 2016 divide by
    10 so on ImageNet.)

    Raises UsageError where ``lr_gamma`` is 1.
    """
    if config.lr_gamma == 1:
        raise UsageError("--lr-gamma 1: the plateau schedule needs a factor less than 1")
    return ReduceLROnPlateau(
        optimizer,
        factor=config.lr_gamma,
        patience=config.lr_patience - 1,  # torch counts the epochs that it bears before
        threshold=0.0,
        min_lr=[group["lr"] * LEAST for group in optimizer.param_groups],
        eps=0.0,  # torch ignores changes below 1e-8, which is much where the floor is lower
    )


def onecycle(
    optimizer: Optimizer, config: TrainConfig, steps: int, steps_per_epoch: int
) -> LRScheduler:
    """From lr / 25 up to lr at lr_peak_at, down to lr / 250000, on cosines (Smith & Topin 2019).

    fastai's variant of two phases: a + (b - a) (1 - cos(pi x)) / 2 from a to b, x the share of the
    phase. The peak is at step lr_peak_at * T - 1, the end at step T - 1. The momentum stays.
    """
    length, share = max(steps, 1), config.lr_peak_at
    if share * length == 1:  # a first phase of length zero, by which torch divides
        share *= 1 - 1e-9
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, peaks, total_steps=length, pct_start=share, cycle_momentum=False)


class RateSchedule:
    """The warm-up and the schedule of ``config`` at work on an optimizer at its peak rates.

    Over the W = warmup * steps per epoch steps of the warm-up, rounded, the rate at step t is
    (t + 1) / W of the one with which the schedule begins: the peak rate, or a 25th of it under
    one-cycle. The schedule's own t = 0 is step W. (torch's SequentialLR would not do: it refuses
    ReduceLROnPlateau.) A group's ``max_lr`` or, without one, ``initial_lr`` is its peak rate.

    Raises UsageError where a setting of the schedule cannot be.
    """

    def __init__(self, optimizer: Optimizer, config: TrainConfig, steps_per_epoch: int):
        self.optimizer = optimizer
        self._length = config.epochs * steps_per_epoch
        self._warmup = _warmup_steps(config, steps_per_epoch)
        self._taken = 0
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        self._unit = peak_rate(config) / optimizer.param_groups[0]["lr"]
        build = SCHEDULES.get(config.lr_schedule)
        self._scheduler: LRScheduler = build(
            optimizer, config, self._length - self._warmup, steps_per_epoch
        )
        self._first = self.rates
        self._warm_up()

    @property
    def rate(self) -> float:
        """The rate of the next step, for parameters without a factor of their own."""
        return self.optimizer.param_groups[0]["lr"] * self._unit

    def step(self) -> None:
        """To be called after every optimizer step; after the last one the rates stay."""
        self._taken += 1
        if self._taken >= self._length:
            return
        if self._taken <= self._warmup:
            self._warm_up()
        elif not isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step()

    def epoch_ended(self, validation_loss: float) -> bool:
        """To be called after every epoch; True where training should stop.

        That is where the loss stalls and all rates are at the plateau schedule's floor already.
        """
        scheduler = self._scheduler
        if not isinstance(scheduler, ReduceLROnPlateau) or self._taken < self._warmup:
            return False
        floors = zip(self.rates, scheduler.min_lrs, strict=True)
        last_chance = scheduler.num_bad_epochs >= scheduler.patience
        ending = last_chance and all(rate <= floor for rate, floor in floors)
        lowest = scheduler.best
        scheduler.step(validation_loss)
        return ending and scheduler.best == lowest

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs, in plain types."""
        state = self._scheduler.state_dict()
        return {"taken": self._taken, "rates": self.rates, "scheduler": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a stored state; the optimizer's rates follow."""
        self._taken = int(state["taken"])
        self._scheduler.load_state_dict(state["scheduler"])
        self._set(state["rates"])

    @property
    def rates(self) -> list[float]:
        """The rates of the next step, of all parameter groups."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def _set(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _warm_up(self) -> None:
        if self._warmup:
            share = min((self._taken + 1) / self._warmup, 1.0)
            self._set([rate * share for rate in self._first])


def planned_rates(config: TrainConfig, steps_per_epoch: int) -> Sequence[float]:
    """The rate of every step of a training, for parameters without a factor of their own.

    `RateSchedule` itself gives them, so that plan and training cannot differ. Under the plateau
    schedule, which depends on the training, they are an upper bound: the rate never falls.

    Raises UsageError as `RateSchedule` does.
    """
    if SCHEDULES.ships(config.lr_schedule):  # the runs of a sweep share one plan
        config = replace(config, wd=0.0, seed=0)
    return _planned(config, steps_per_epoch)


@functools.lru_cache(maxsize=4)
def _planned(config: TrainConfig, steps_per_epoch: int) -> Sequence[float]:
    idle = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([idle], lr=peak_rate(config))
    schedule = RateSchedule(optimizer, config, steps_per_epoch)
    optimizer.step()  # else torch warns of a schedule without training
    rates = []
    for _ in range(config.epochs * steps_per_epoch):
        rates.append(schedule.rate)
        schedule.step()
    return tuple(rates)


def _warmup_steps(config: TrainConfig, steps_per_epoch: int) -> int:
    return round(config.warmup * steps_per_epoch)


def _place(steps: float) -> int:
    """The step of a fall: the nearest one, and not the first, which is at the peak rate."""
    return max(round(steps), 1)
