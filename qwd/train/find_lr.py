"""The learning-rate range test: one short training whose rate rises, and what its loss says."""

import csv
import io
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qwd.config import TrainConfig, fields
from qwd.errors import DivergedError
from qwd.train import seeding
from qwd.train.devices import device_called, enough_memory
from qwd.train.prepare import data_for
from qwd.train.session import Session

SMOOTHING = 0.98
"""What the average keeps of itself from step to step: fastai's value, a memory of 50 steps."""
STOP = 4.0
"""The test ends where the smoothed loss is this many times its minimum (fastai's value too)."""
LEAST_FALL = 0.01
"""A smoothed loss that falls by less than this share has not fallen."""
CLEAR = 4.0
"""Nor has one that falls by less than so many standard errors of the loss at the start."""

PEAK_AND_RATE = {"lr", "initial_lr", "max_lr"}


@dataclass(frozen=True)
class Point:
    """One step: the rate it was taken with, and the loss on its batch before it."""

    step: int
    lr: float
    loss: float
    smoothed: float


@dataclass(frozen=True)
class RangeTest:
    """The course of a range test, and the two rates that are read from it."""

    config: TrainConfig
    points: tuple[Point, ...]
    stopped: str | None
    """why it ended before the last rate"""
    lowest: float
    """the rate at which the smoothed loss is lowest"""
    steepest: float
    """the rate at which the smoothed loss falls fastest, per unit of log rate"""
    notes: tuple[str, ...]

    @property
    def tenth(self) -> float:
        """A tenth of `lowest`."""
        return self.lowest / 10

    @property
    def suggestion(self) -> float:
        """`tenth` to two digits.

        As a peak rate of a schedule that falls to zero, the steepest descent is on the low side.
        """
        return float(f"{self.tenth:.2g}")

    @property
    def open_ended(self) -> bool:
        """Whether the loss might be lower still beyond the last rate."""
        return self.stopped is None and self.lowest == self.points[-1].lr

    def to_json(self) -> str:
        """Everything as JSON."""
        content: dict[str, Any] = {
            "suggestion": self.suggestion,
            "tenth_of_lowest": self.tenth,
            "lowest": self.lowest,
            "steepest": self.steepest,
            "stopped": self.stopped,
            "notes": self.notes,
            "config": self.config.to_dict(),
            "points": [vars(point) for point in self.points],
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """The steps as CSV; the same settings give the same bytes on the same machine."""
        page = io.StringIO()
        writer = csv.writer(page, lineterminator="\n")
        writer.writerow(["step", "lr", "loss", "smoothed"])
        writer.writerows([p.step, p.lr, p.loss, p.smoothed] for p in self.points)
        return page.getvalue()


def range_test(
    config: TrainConfig,
    *,
    first: float = 1e-6,
    last: float = 10.0,
    steps: int = 200,
    on_step: Callable[[Point], None] | None = None,
) -> RangeTest:
    """Train with a rate that rises from ``first`` to ``last``, batch by batch (Smith 2017).

    rate_t = first * (last / first)^(t / (steps - 1)) in place of the schedule and its warm-up;
    model, optimizer, decay, augmentation and the order of the data are those of `train`, the
    coefficient of the decay constant. Rates are on the scale of ``config.lr``: what multiplies
    that for a group of parameters multiplies them. The test ends early where the smoothed loss
    (`Smoothing`) exceeds 4 times its minimum or a loss is not finite. Nothing is written, and the
    validation and test splits are not touched.

    Raises DivergedError where the first loss is not finite already, or no rate lowers the loss.
    """
    device = device_called(config.device)
    data = data_for(config)
    rates = [first * (last / first) ** (t / (steps - 1)) for t in range(steps)]
    points: list[Point] = []
    stopped = None
    with seeding.reproducible(device, config.threads), enough_memory(config, device):
        session = Session(_steady(config), data, device)
        notes = session.compile()
        smoothing = Smoothing()
        for rate, loss in zip(rates, _losses(session, rates), strict=False):
            if not math.isfinite(loss):
                stopped = f"at lr {rate:.3g} the loss is not finite"
                break
            points.append(Point(len(points) + 1, rate, loss, smoothing.add(loss)))
            if on_step:
                on_step(points[-1])
            if smoothing.value > STOP * smoothing.lowest:
                stopped = f"at lr {rate:.3g} the smoothed loss exceeds {STOP:g} times its minimum"
                break
    if not points:
        raise DivergedError(f"--from {first:g}: the loss is not finite at the first step")
    read = lowest_and_steepest(
        [p.lr for p in points], [p.loss for p in points], [p.smoothed for p in points]
    )
    if read is None:
        raise DivergedError(
            f"no rate from {first:g} to {points[-1].lr:.3g} lowered the loss "
            f"({points[0].loss:.4g} at first); try a lower --from, a higher --to or more --steps"
        )
    return RangeTest(config, tuple(points), stopped, *read, tuple(notes))


class Smoothing:
    """An exponential average without the bias of its start, and its minimum so far.

    a_t = beta * a_(t-1) + (1 - beta) * loss_t from a_0 = 0; value = a_t / (1 - beta^t), beta 0.98.
    """

    def __init__(self) -> None:
        self.value = math.nan
        self.lowest = math.inf
        self._sum = 0.0
        self._steps = 0

    def add(self, loss: float) -> float:
        """The value after one more loss."""
        self._steps += 1
        self._sum = SMOOTHING * self._sum + (1 - SMOOTHING) * loss
        self.value = self._sum / (1 - SMOOTHING**self._steps)
        self.lowest = min(self.lowest, self.value)
        return self.value


def lowest_and_steepest(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float]
) -> tuple[float, float] | None:
    """The rate of the lowest smoothed loss, and that of its steepest descent on the way there.

    ``rates`` rise geometrically. The slope against the logarithm of the rate is that of the
    least-squares line through a twentieth of the steps on either side. None where the smoothed
    loss does not fall clearly, by 1 % and 4 standard errors, below the mean of the first tenth of
    ``losses``; what batches differ by is the median difference of one to the next, as normal.
    """
    side = max(1, len(rates) // 20)
    lowest = int(np.argmin(smoothed))
    if lowest < 2 * side:
        return None
    first = np.asarray(losses[: 2 * side])
    noise = np.median(np.abs(np.diff(losses[: lowest + 1]))) / (0.6745 * math.sqrt(2))
    fall = first.mean() - smoothed[lowest]
    if fall <= max(LEAST_FALL * first.mean(), CLEAR * noise / math.sqrt(len(first))):
        return None
    offsets = np.arange(-side, side + 1)
    windows = np.lib.stride_tricks.sliding_window_view(smoothed[: lowest + 1], len(offsets))
    steepest = side + int((windows @ offsets).argmin())
    return rates[lowest], rates[steepest]


def _steady(config: TrainConfig) -> TrainConfig:
    """The same settings with rate and coefficient constant."""
    schedules = ("lr_schedule", "wd_schedule")
    without = {
        field.name: None
        for field in fields()
        if field.metadata["only"] and field.metadata["only"].field in schedules
    }
    constant = dict.fromkeys(schedules, "constant")
    return replace(config, **without, **constant, warmup=0.0, wd_until=None, early_stop=None)


def _losses(session: Session, rates: Sequence[float]) -> Iterator[float]:
    """The loss at each rate, the step with that rate taken after it."""
    groups = session.optimizer.param_groups
    factors = [group["lr"] / session.config.lr for group in groups]
    session.model.train()
    batches = itertools.chain.from_iterable(map(session.batches, itertools.count()))
    for rate, (images, labels) in zip(rates, batches, strict=False):
        # After every step the schedule sets the rates back: they are set anew before each. Each
        # is the peak rate of a run with it, to which a decay may refer.
        for group, factor in zip(groups, factors, strict=True):
            group |= dict.fromkeys(PEAK_AND_RATE & group.keys(), rate * factor)
        yield session.step(images, labels)[0].item()
