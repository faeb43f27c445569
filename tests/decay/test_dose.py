"""Doses by hand, and the weights that they leave."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qwd import decay
from qwd.decay import CONVENTIONS, forms, schedules
from tests.decay.problems import idle

RATES = [0.1, 0.08, 0.05, 0.02]


def test_by_hand() -> None:
    total = 0.25
    assert decay.dose(forms.l2, 0.01, RATES, 10.0) == pytest.approx(0.01 * total * 10)
    assert decay.dose(forms.decoupled, 0.01, RATES, 10.0) == pytest.approx(0.01 * total)
    assert decay.dose(forms.cautious, 0.01, RATES, None) == pytest.approx(0.01 * total)
    assert decay.dose(forms.independent, 0.01, RATES, None) == pytest.approx(0.04)
    following = decay.dose(forms.independent, 0.01, RATES, None, schedule=schedules.proportional)
    assert following == pytest.approx(0.01 * total / 0.1)
    below = decay.dose(
        forms.independent, 0.01, RATES, None, schedule=schedules.proportional, peak=0.2
    )
    assert below == pytest.approx(0.01 * total / 0.2)
    corrected = decay.dose(forms.decoupled, 0.01, RATES, None, lr_corrected=True)
    assert corrected == pytest.approx(0.01 * sum(r * r for r in RATES) / 0.1)
    halves = schedules.piecewise({2: 0.5})
    assert decay.dose(forms.decoupled, 0.01, RATES, 1.0, schedule=halves) == pytest.approx(
        0.01 * (0.18 + 0.07 / 2)
    )
    assert decay.dose(forms.none, 0.01, RATES, 1.0) == 0
    assert decay.dose(forms.l2, 0.01, [], 1.0) == 0


def test_there_is_none_where_the_penalty_is_divided_by_the_gradients_scale() -> None:
    assert decay.dose(forms.l2, 1e-4, RATES, gain=None) is None
    assert decay.dose(forms.l1, 1e-4, RATES, gain=1.0) is None
    assert decay.wd_for(0.5, forms.l2, RATES, gain=None) is None
    assert decay.wd_for(0.5, forms.none, RATES, gain=None) is None


@given(target=st.floats(1e-6, 5), momentum=st.floats(0, 0.99))
def test_the_coefficient_of_a_dose_has_that_dose(target: float, momentum: float) -> None:
    for form in (forms.l2, forms.decoupled, forms.independent):
        wd = decay.wd_for(target, form, RATES, 1 / (1 - momentum))
        assert wd is not None
        assert decay.dose(form, wd, RATES, 1 / (1 - momentum)) == pytest.approx(target)


def test_gain_of_an_optimizer() -> None:
    p = [nn.Parameter(torch.ones(2))]
    assert decay.gain(torch.optim.SGD(p, lr=1.0)) == 1
    assert decay.gain(torch.optim.SGD(p, lr=1.0, momentum=0.9)) == pytest.approx(10)
    assert decay.gain(torch.optim.SGD(p, lr=1.0, momentum=0.9, dampening=0.9)) == pytest.approx(1)
    assert decay.gain(torch.optim.SGD(p, lr=1.0, dampening=0.5)) == 1  # as torch: no momentum
    assert decay.gain(torch.optim.Adam(p)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_steps_that_are_too_small_for_a_format_change_no_weight(dtype: torch.dtype) -> None:
    weights = torch.rand(10_000).add(0.5).to(dtype)
    limit = torch.finfo(dtype).eps / 4
    for wd, changed in ((0.9 * limit, False), (4.1 * limit, True)):
        parameter = nn.Parameter(weights.clone())
        optimizer = torch.optim.SGD([{"params": [parameter], "decay": wd}], lr=1.0)
        decay.attach(optimizer, forms.decoupled)
        idle(optimizer, 1)
        assert torch.equal(parameter, weights) is not changed
        assert decay.unfelt(forms.decoupled, wd, [1.0], None, dtype) == (not changed)
    rates = [1.0, 0.5, 0.1, 0.0]
    assert decay.unfelt(forms.decoupled, 2 * limit, rates, None, dtype) == pytest.approx(1 / 3)
    assert decay.unfelt(forms.l1, 1e-30, rates, None, dtype) == 0


@pytest.mark.parametrize("to", CONVENTIONS)
def test_a_converted_coefficient_has_the_same_dose(to: str) -> None:
    amount = decay.dose(forms.l2, 1e-3, RATES, 10.0)
    assert amount is not None
    convention = CONVENTIONS[to]
    wd = decay.convert(amount, to, RATES, gain=10.0)
    assert wd is not None
    back = decay.dose(
        convention.form, wd / convention.factor, RATES, 10.0, schedule=convention.schedule
    )
    assert back == pytest.approx(amount)


def test_conversions_by_hand() -> None:
    rates = [0.1] * 1000
    amount = decay.dose(forms.l2, 5e-4, rates, 10.0)
    assert amount is not None
    assert amount == pytest.approx(0.5)
    assert decay.convert(amount, "torch.optim.SGD", rates, gain=10.0) == pytest.approx(5e-4)
    assert decay.convert(amount, "torch.optim.AdamW", rates) == pytest.approx(5e-3)
    assert decay.convert(amount, "Keras regularizers.L2", rates, gain=10.0) == pytest.approx(2.5e-4)
    assert decay.convert(amount, "Keras weight_decay", rates, gain=10.0) == pytest.approx(5e-3)
    assert decay.convert(amount, "Caffe weight_decay", rates, gain=10.0) == pytest.approx(5e-4)
    composer = decay.convert(amount, "Composer DecoupledSGDW, DecoupledAdamW", rates)
    assert composer == pytest.approx(5e-4)
    assert decay.convert(amount, "pytorch_optimizer fixed_decay", rates) == pytest.approx(5e-4)
    assert decay.convert(amount, "torch.optim.SGD", rates, gain=None) is None
    assert math.isclose(1 - math.exp(-amount), 0.3935, abs_tol=1e-4)
