"""Learning rates of trainings in which nothing moves."""

from collections.abc import Sequence

import torch
from torch import nn

from qwd.config import TrainConfig
from qwd.train.schedules import RateSchedule, peak_rate

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
