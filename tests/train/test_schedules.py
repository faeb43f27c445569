"""Learning-rate schedules against torch's own and against their formulas."""

import math

import pytest
import torch
from torch import nn

from qwd.config import TrainConfig
from qwd.registry import SCHEDULES
from qwd.train.planning import batch_geometry, planned_dose
from qwd.train.schedules import rate_factor


def factors(config: TrainConfig, steps: int) -> list[float]:
    factor = rate_factor(config, steps)
    return [factor(t) for t in range(config.epochs * steps)]


def theirs(scheduler_of, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = scheduler_of(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_equals_torch() -> None:
    ours = factors(TrainConfig(epochs=7, lr_schedule="cosine"), 11)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR
    assert ours == pytest.approx(theirs(lambda o: cosine(o, T_max=77), 77), abs=1e-12)


def test_step_equals_torch() -> None:
    config = TrainConfig(epochs=8, lr_schedule="step", lr_step=(0.5, 0.75), lr_gamma=0.2)
    multistep = torch.optim.lr_scheduler.MultiStepLR
    expected = theirs(lambda o: multistep(o, milestones=[40, 60], gamma=0.2), 80)
    assert factors(config, 10) == pytest.approx(expected)


def test_warmup_rises_to_the_peak_and_the_schedule_starts_there() -> None:
    ours = factors(TrainConfig(epochs=4, warmup=1.5, lr_schedule="cosine"), 10)
    assert ours[:15] == pytest.approx([(t + 1) / 15 for t in range(15)])
    expected = [(1 + math.cos(math.pi * t / 25)) / 2 for t in range(25)]
    assert ours[15:] == pytest.approx(expected)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_contract_factors_lie_between_zero_and_the_peak(name: str) -> None:
    ours = factors(TrainConfig(epochs=3, lr_schedule=name), 9)
    assert ours[0] == 1
    assert all(0 <= factor <= 1 for factor in ours)


def test_planned_dose_by_hand() -> None:
    config = TrainConfig(
        wd=1e-3, lr=0.5, momentum=0.9, lr_schedule="constant", epochs=4, batch_size=25
    )
    # 100 images, 4 steps an epoch, 16 steps: 16 * 1e-3 * 0.5 / (1 - 0.9)
    assert planned_dose(config, 100) == pytest.approx(0.08)
    adam = TrainConfig(wd=1e-3, optimizer="adam", form="l2")
    assert planned_dose(adam, 100) is None


def test_only_whole_batches_are_used() -> None:
    assert batch_geometry(TrainConfig(batch_size=32), 100) == (32, 3)
    assert batch_geometry(TrainConfig(batch_size=32), 10) == (10, 1)
