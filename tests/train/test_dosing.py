"""The dose table against hand-made figures."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from qwd.config import TrainConfig
from qwd.train import seeding
from qwd.train.data import load
from qwd.train.dosing import advice, dose_table
from qwd.train.planning import GivenDose, course
from qwd.train.prepare import model_for

CONSTANT = TrainConfig(lr_schedule="constant", epochs=10, batch_size=50, lr=0.1)


def test_rows_by_hand() -> None:
    """200 images, 4 steps an epoch, 40 steps, momentum 0.9: D = 40 * 0.1 * 10 * wd."""
    table = dose_table(CONSTANT, (1e-3, 1e-2, 0.0), images=200, target=0.8)
    small, large, none = table.rows
    assert (small.dose, large.dose, none.dose) == (pytest.approx(0.04), pytest.approx(0.4), 0)
    assert large.shrinkage == pytest.approx(1 - math.exp(-0.4))
    assert small.tau_steps == pytest.approx(1000)
    assert small.tau_epochs == pytest.approx(250)
    assert none.tau_steps is None
    assert none.decades is None
    assert large.decades == pytest.approx(1)
    assert table.wd_for_target == pytest.approx(0.02)
    assert not table.too_small
    assert dose_table(CONSTANT, (1e-3, 0.0), images=200).too_small
    assert small.penalty_share is None


def test_the_penalty_at_the_start() -> None:
    data = load("digits")
    seeding.seed_everything(3, seeding.INITIALIZATION)
    config = TrainConfig(seed=3)
    model = model_for(config, data).train()
    cpu = torch.device("cpu")
    images, labels = next(iter(data.train.batches(torch.arange(256), 256, device=cpu)))
    loss = F.cross_entropy(model(images), labels).item()
    square = sum(
        p.detach().double().square().sum().item() for p in model.parameters() if p.ndim >= 2
    )
    table = dose_table(config, (1e-4,))
    assert table.rows[0].penalty_share == pytest.approx(1e-4 / 2 * square / loss, rel=1e-4)
    assert table.suggestion == pytest.approx(0.1 * 2 * loss / square, rel=1e-4)


def test_conversion_to_another_rate() -> None:
    table = dose_table(CONSTANT, (1e-3,), images=200, lr=1e-3)
    assert table.conversions["qwd l2"] == (pytest.approx(0.1),)
    assert table.conversions["torch.optim.AdamW"] == (pytest.approx(1.0),)
    slower = dose_table(CONSTANT, (1e-3,), images=200, momentum=0.5)
    assert slower.conversions["torch.optim.SGD"] == (pytest.approx(5e-3),)
    assert table.conversions["pytorch_optimizer fixed_decay"] == (pytest.approx(1e-3),)


def test_what_has_no_dose() -> None:
    table = dose_table(TrainConfig(optimizer="adam"), (1e-3,), images=200)
    assert table.rows[0].dose is None
    assert table.wd_for_target is None
    assert not table.too_small
    assert set(table.conversions["qwd l2"]) == {None}


def test_advice_is_for_doses_too_small_to_show() -> None:
    planned = course(CONSTANT, 200)
    assert advice(planned, 1e-2) is None
    assert advice(planned, 0.0) is None
    assert advice(planned, 1e-3) == (
        "below 0.05, too small to show; for a dose of 0.5 use --wd 0.0125"
    )


def test_written_forms_hold_every_figure() -> None:
    table = dose_table(CONSTANT, (1e-3, 1e-2), images=200)
    content = json.loads(table.to_json())
    assert [row["dose"] for row in content["rows"]] == [row.dose for row in table.rows]
    assert content["too_small"] is False
    header, *lines = table.to_csv().splitlines()
    assert header.startswith("wd,dose,shrinkage,tau_steps")
    assert len(lines) == 2


def test_the_callers_random_numbers_are_his_own() -> None:
    def drawn() -> tuple[float, float]:
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        dose_table(TrainConfig(), (1e-4,))
        return torch.rand(1).item(), float(np.random.rand())  # noqa: NPY002

    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = torch.rand(1).item(), float(np.random.rand())  # noqa: NPY002
    assert drawn() == expected


@pytest.mark.parametrize(
    ("settings", "bound"),
    [
        ({}, False),
        ({"early_stop": 3}, True),
        ({"lr_schedule": "plateau"}, True),
        ({"form": "decoupled", "cautious": True}, True),
        ({"form": "decoupled"}, False),
    ],
)
def test_what_may_come_to_less_is_a_bound(settings: dict, bound: bool) -> None:
    config = TrainConfig(**{"epochs": 10, "batch_size": 50, "lr": 0.1} | settings)
    table = dose_table(config, (1e-5,), images=200)
    assert table.is_bound is bound
    assert json.loads(table.to_json())["is_bound"] is bound
    words = advice(course(config, 200), 1e-5)
    assert words is not None
    assert words.endswith(" or more") is bound


def test_weights_that_are_not_corrected_have_a_dose_of_their_own() -> None:
    config = TrainConfig(form="decoupled", lr_corrected="auto", epochs=10, batch_size=50, lr=0.1)
    plain = TrainConfig(form="decoupled", epochs=10, batch_size=50, lr=0.1)
    (row,) = dose_table(config, (1e-2,), images=200).rows
    rates = course(config, 200).rates
    assert row.dose == pytest.approx(1e-2 * sum(rate**2 for rate in rates) / 0.1)
    assert row.other_dose == pytest.approx(1e-2 * sum(rates))
    (row,) = dose_table(plain, (1e-2,), images=200).rows
    assert row.other_dose is None


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"form": "decoupled", "lr_corrected": "auto"},
        {"form": "independent", "wd_schedule": "proportional", "wd_until": 6, "warmup": 2},
        {"form": "independent", "wd_schedule": "linear", "lr_schedule": "onecycle"},
    ],
)
def test_the_dose_that_was_given_is_the_planned_one_of_an_undisturbed_training(
    settings: dict,
) -> None:
    config = TrainConfig(**{"epochs": 10, "batch_size": 50, "lr": 0.1} | settings)
    planned = course(config, 200)
    given = GivenDose(planned, 1e-3)
    halfway = None
    for t, rate in enumerate(planned.rates):
        if t == 20:
            halfway = GivenDose(planned, 1e-3, steps=t, taken=given.taken)
        given.step(rate)
        if halfway is not None:
            halfway.step(rate)
    assert given.taken == pytest.approx(planned.dose(1e-3), rel=1e-12)
    assert halfway is not None
    assert halfway.taken == given.taken


def test_the_dose_that_was_given_at_rates_that_fell() -> None:
    """20 steps at 0.1, 20 at 0.01, momentum 0.9: D = 20 * (0.1 + 0.01) * 10 * wd."""
    config = TrainConfig(lr_schedule="plateau", epochs=10, batch_size=50, lr=0.1)
    planned = course(config, 200)
    given = GivenDose(planned, 1e-3)
    for rate in [0.1] * 20 + [0.01] * 20:
        given.step(rate)
    assert given.taken == pytest.approx(0.022)
    assert planned.dose(1e-3) == pytest.approx(0.04)
    adaptive = GivenDose(course(TrainConfig(optimizer="adam"), 200), 1e-3)
    adaptive.step(0.1)
    assert adaptive.taken is None
