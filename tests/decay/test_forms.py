"""Decay forms against torch.optim's own, bitwise, against float64 NumPy, and each other."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qwd import decay
from qwd.decay import forms
from qwd.registry import FORMS
from tests.decay.problems import network, same, trajectory, with_decay

SGD, ADAM, ADAMW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
EVERY = [FORMS.get(name) for name in FORMS.names()]
EVERY += [option for form in EVERY for option in form.options.values()]

AS_TORCH = {
    "sgd l2": (SGD, forms.l2, SGD, {"momentum": 0.9}),
    "sgd l2 dampened": (SGD, forms.l2, SGD, {"momentum": 0.9, "dampening": 0.5}),
    "sgd l2 nesterov": (SGD, forms.l2, SGD, {"momentum": 0.8, "nesterov": True}),
    "sgd l2 ascending": (SGD, forms.l2, SGD, {"momentum": 0.8, "maximize": True}),
    "sgd l2 fused": (SGD, forms.l2, SGD, {"momentum": 0.9, "fused": True}),
    "sgd l2 for-loop": (SGD, forms.l2, SGD, {"momentum": 0.9, "foreach": False}),
    "adam l2": (ADAM, forms.l2, ADAM, {}),
    "adam l2 foreach": (ADAM, forms.l2, ADAM, {"foreach": True}),
    "adam decoupled": (ADAM, forms.decoupled, ADAMW, {}),
    "adamw decoupled": (ADAMW, forms.decoupled, ADAMW, {"amsgrad": True}),
    "adamw decoupled foreach": (ADAMW, forms.decoupled, ADAMW, {"foreach": True}),
    "rmsprop l2": (torch.optim.RMSprop, forms.l2, torch.optim.RMSprop, {"momentum": 0.9}),
    "nadam l2": (torch.optim.NAdam, forms.l2, torch.optim.NAdam, {}),
    "adagrad l2": (torch.optim.Adagrad, forms.l2, torch.optim.Adagrad, {}),
    "adamax l2": (torch.optim.Adamax, forms.l2, torch.optim.Adamax, {}),
}


@pytest.mark.parametrize("case", AS_TORCH)
@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), wd=st.floats(1e-6, 0.5), lr=st.floats(1e-4, 0.2))
def test_equals_the_decay_of_torch_optim_bitwise(
    case: str, seed: int, wd: float, lr: float
) -> None:
    ours, form, theirs, options = AS_TORCH[case]
    model = network(seed)
    reference = copy.deepcopy(model)
    mine = trajectory(model, with_decay(model, ours, form, wd, lr=lr, **options), seed)
    optimizer = theirs(reference.parameters(), lr=lr, weight_decay=wd, **options)
    for own, other in zip(mine, trajectory(reference, optimizer, seed), strict=True):
        if "fused" in options:  # its kernel adds and multiplies in one rounding
            torch.testing.assert_close(own, other, rtol=1e-14, atol=1e-16)
        else:
            assert torch.equal(own, other)


def numpy_step(form: str, w, g, buffer, wd: float, lr: float, momentum: float):
    """One step of SGD with momentum under a form, in float64 NumPy."""
    start = w
    if form == "l2":
        g = g + wd * w
    if form == "l1":
        g = g + wd * np.sign(w)
    if form == "decoupled":
        w = w - lr * wd * w
    if form == "independent":
        w = w - wd * w
    buffer = g if buffer is None else momentum * buffer + g
    w = w - lr * buffer
    if form == "cautious":
        w = w - lr * wd * start * (buffer * start >= 0)
    if form == "proximal":
        w = np.sign(w) * np.maximum(np.abs(w) - lr * wd, 0)
    return w, buffer


@pytest.mark.parametrize("form", EVERY, ids=lambda form: form.name)
@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    wd=st.floats(1e-5, 0.5),
    lr=st.floats(1e-4, 0.2),
    momentum=st.sampled_from([0.0, 0.9]),
)
def test_equals_float64_numpy_under_sgd(form, seed: int, wd: float, lr: float, momentum) -> None:
    random = np.random.default_rng(seed)
    start, gradients = random.normal(size=9), random.normal(size=(8, 9))
    weight = nn.Parameter(torch.tensor(start))
    optimizer = SGD([{"params": [weight], "decay": wd}], lr=lr, momentum=momentum)
    decay.attach(optimizer, form)
    expected, buffer = start, None
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        expected, buffer = numpy_step(form.name, expected, gradient, buffer, wd, lr, momentum)
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-12, atol=1e-14)


def test_l2_decoupled_and_independent_are_one_update_under_plain_sgd_alone() -> None:
    def final(form, wd: float, optimizer: Any = SGD, **options: Any) -> torch.Tensor:
        model = network(3)
        made = with_decay(model, optimizer, form, wd, lr=0.1, **options)
        return torch.cat([p.flatten() for p in trajectory(model, made, 5)])

    plain = final(forms.l2, 0.01)
    torch.testing.assert_close(plain, final(forms.decoupled, 0.01), rtol=1e-13, atol=0)
    torch.testing.assert_close(plain, final(forms.independent, 0.1 * 0.01), rtol=1e-13, atol=0)
    cases: list[dict[str, Any]] = [{"momentum": 0.9}, {"optimizer": ADAM}]
    for options in cases:
        different = final(forms.decoupled, 0.01, **options)
        assert not torch.allclose(final(forms.l2, 0.01, **options), different, rtol=1e-6)


@pytest.mark.parametrize(("optimizer", "options"), [(SGD, {"momentum": 0.9}), (ADAM, {})])
def test_l2_is_a_penalty_of_half_the_coefficient_in_the_loss(optimizer, options) -> None:
    model, penalised = network(4), network(4)
    wd, lr = 0.03, 0.1
    mine = trajectory(model, with_decay(model, optimizer, forms.l2, wd, lr=lr, **options), 1)
    theirs = optimizer(penalised.parameters(), lr=lr, **options)
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        images = torch.randn(8, 5, generator=generator, dtype=torch.float64)
        theirs.zero_grad()
        square = sum((p.square().sum() for p in penalised.parameters()), torch.zeros(()))
        (penalised(images).square().mean() + wd / 2 * square).backward()
        theirs.step()
    for own, other in zip(mine, penalised.parameters(), strict=True):
        torch.testing.assert_close(own, other.detach(), rtol=1e-9, atol=1e-12)


def test_cautious_decays_what_the_step_shrinks_and_nothing_else() -> None:
    w = nn.Parameter(torch.tensor([1.0, 1.0, -1.0, -1.0, 1e-30]))
    optimizer = SGD([{"params": [w], "decay": 0.5}], lr=0.1)
    decay.attach(optimizer, forms.cautious)
    w.grad = torch.tensor([2.0, -2.0, 2.0, -2.0, 1e-30])
    optimizer.step()
    expected = [1 - 0.2 - 0.05, 1 + 0.2, -1 - 0.2, -1 + 0.2 + 0.05, 1e-30 * (1 - 0.1 - 0.05)]
    torch.testing.assert_close(w.detach(), torch.tensor(expected))


def test_proximal_gives_exact_zeros_where_the_subgradient_does_not() -> None:
    def zeros(form) -> int:
        w = nn.Parameter(torch.linspace(-1, 1, 101, dtype=torch.float64))
        optimizer = SGD([{"params": [w], "decay": 0.3}], lr=0.1)
        decay.attach(optimizer, form)
        for _ in range(20):
            w.grad = torch.zeros_like(w)
            optimizer.step()
        return int((w == 0).sum())

    assert zeros(forms.proximal) == 2 * 29 + 1 + 2  # |w| <= 20 * 0.03 = 0.6, ends included
    assert zeros(forms.l1) < 5


def test_the_scale_of_a_weight_before_batchnorm_does_not_show() -> None:
    """Up to eps in training mode; in evaluation mode once the statistics scale with it."""
    torch.manual_seed(0)
    images = torch.randn(64, 3, 8, 8, dtype=torch.float64)
    conv, norm = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6, eps=1e-12)
    model = nn.Sequential(conv, norm).double()
    model(images)
    original = copy.deepcopy(model)
    with torch.no_grad():
        conv.weight.mul_(0.25)
        for statistic, factor in ((norm.running_mean, 0.25), (norm.running_var, 0.25**2)):
            assert statistic is not None
            statistic.mul_(factor)
    for mode in (False, True):
        outputs = [network_.train(mode)(images) for network_ in (original, model)]
        torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", EVERY, ids=lambda form: form.name)
def test_contract_undecayed_parameters_and_those_without_gradient_are_untouched(form) -> None:
    weight, excluded, without_gradient = (nn.Parameter(torch.ones(3)) for _ in range(3))
    groups = [
        {"params": [weight, without_gradient], "decay": 0.1},
        {"params": [excluded], "decay": 0.0},
    ]
    optimizer = SGD(groups, lr=0.5)
    decay.attach(optimizer, form)
    weight.grad, excluded.grad = torch.zeros(3), torch.zeros(3)
    optimizer.step()
    assert torch.equal(excluded, torch.ones(3))
    assert torch.equal(without_gradient, torch.ones(3))
    assert torch.equal(weight, torch.ones(3)) == (not form.acts)


@pytest.mark.parametrize("form", EVERY, ids=lambda form: form.name)
def test_contract_dose_is_what_an_idle_weight_loses(form) -> None:
    """Thousands of small steps without gradient: the weight must end at exp(-D)."""
    wd, lr, momentum, steps = 1e-4, 0.1, 0.5, 4000
    weight = nn.Parameter(torch.ones((), dtype=torch.float64))
    optimizer = SGD([{"params": [weight], "decay": wd}], lr=lr, momentum=momentum)
    decay.attach(optimizer, form)
    for _ in range(steps):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    amount = decay.dose(form, wd, [lr] * steps, decay.gain(optimizer))
    if form.name in ("l1", "proximal"):
        assert amount is None
        return
    assert amount is not None
    # Momentum starts from zero: the formula is asymptotic, one step of 4,000 in error.
    torch.testing.assert_close(weight.log().item(), -amount, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", EVERY, ids=lambda form: form.name)
def test_contract_every_format_keeps_its_dtype(form, dtype: torch.dtype) -> None:
    model = network(1, dtype)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = with_decay(model, SGD, form, 0.5, lr=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = [p.detach() for p in model.parameters()]
    assert {p.dtype for p in after} == {dtype}
    assert same(before, after) == (not form.acts)
