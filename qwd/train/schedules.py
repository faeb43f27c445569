"""The learning rate over time, as a factor of the peak rate."""

import math
from collections.abc import Callable

from qwd.config import TrainConfig
from qwd.registry import SCHEDULES


def constant(progress: float, config: TrainConfig) -> float:
    """1 throughout."""
    return 1.0


def cosine(progress: float, config: TrainConfig) -> float:
    """(1 + cos(pi * progress)) / 2 (Loshchilov & Hutter 2017, without restarts)."""
    return (1 + math.cos(math.pi * progress)) / 2


def step(progress: float, config: TrainConfig) -> float:
    """``lr_gamma`` to the number of fractions ``lr_step`` that have passed."""
    return config.lr_gamma ** sum(progress >= fraction for fraction in config.lr_step)


def rate_factor(config: TrainConfig, steps_per_epoch: int) -> Callable[[int], float]:
    """Factor of the peak rate at step t = 0, 1, ..., T - 1.

    Linear warm-up first, (t + 1) / W over its W steps; then the schedule at progress
    (t - W) / (T - W), in [0, 1).
    """
    schedule = SCHEDULES.get(config.lr_schedule)
    total = config.epochs * steps_per_epoch
    warmup = round(config.warmup * steps_per_epoch)

    def factor(t: int) -> float:
        if t < warmup:
            return (t + 1) / warmup
        return schedule((t - warmup) / max(total - warmup, 1), config)

    return factor
