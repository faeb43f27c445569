"""Decay forms against torch.optim's own, bitwise, and against each other."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qwd import decay
from qwd.decay import forms
from qwd.errors import UsageError
from qwd.registry import FORMS


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double()


def trajectory(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int, steps: int = 6):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        images = torch.randn(8, 5, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def with_decay(model: nn.Module, optimizer_class, form, wd: float, **options):
    groups = decay.param_groups(model, wd, decay_bias=True)
    optimizer = optimizer_class(groups, weight_decay=0.0, **options)
    decay.attach(optimizer, form)
    return optimizer


CASES = {
    "sgd l2": (torch.optim.SGD, forms.l2, torch.optim.SGD, {"momentum": 0.9}),
    "sgd nesterov l2": (
        torch.optim.SGD,
        forms.l2,
        torch.optim.SGD,
        {"momentum": 0.8, "nesterov": True},
    ),
    "adam l2": (torch.optim.Adam, forms.l2, torch.optim.Adam, {}),
    "adam decoupled": (torch.optim.Adam, forms.decoupled, torch.optim.AdamW, {}),
    "adamw decoupled": (torch.optim.AdamW, forms.decoupled, torch.optim.AdamW, {}),
}


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), wd=st.floats(1e-6, 0.5), lr=st.floats(1e-4, 0.2))
def test_equals_the_decay_of_torch_optim(case: str, seed: int, wd: float, lr: float) -> None:
    ours, form, theirs, options = CASES[case]
    model = network(seed)
    reference = copy.deepcopy(model)
    mine = trajectory(model, with_decay(model, ours, form, wd, lr=lr, **options), seed)
    optimizer = theirs(reference.parameters(), lr=lr, weight_decay=wd, **options)
    for own, other in zip(mine, trajectory(reference, optimizer, seed), strict=True):
        assert torch.equal(own, other)


def test_l2_and_decoupled_are_one_update_under_plain_sgd_and_two_under_momentum() -> None:
    def final(form, momentum: float) -> torch.Tensor:
        model = network(3)
        optimizer = with_decay(model, torch.optim.SGD, form, 0.01, lr=0.1, momentum=momentum)
        return torch.cat([p.flatten() for p in trajectory(model, optimizer, 5)])

    torch.testing.assert_close(
        final(forms.l2, 0.0), final(forms.decoupled, 0.0), rtol=1e-13, atol=0
    )
    assert not torch.allclose(final(forms.l2, 0.9), final(forms.decoupled, 0.9), rtol=1e-6)


def test_l2_is_the_penalty_of_half_the_coefficient() -> None:
    model, penalised = network(4), network(4)
    wd, lr = 0.03, 0.1
    mine = trajectory(
        model, with_decay(model, torch.optim.SGD, forms.l2, wd, lr=lr, momentum=0.9), 1
    )
    optimizer = torch.optim.SGD(penalised.parameters(), lr=lr, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        images = torch.randn(8, 5, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        penalty = sum((p.square().sum() for p in penalised.parameters()), torch.zeros(()))
        (penalised(images).square().mean() + wd / 2 * penalty).backward()
        optimizer.step()
    for own, other in zip(mine, penalised.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-14)


def test_none_changes_nothing_and_the_handle_ends_the_decay() -> None:
    model, control = network(5), network(5)
    mine = trajectory(model, with_decay(model, torch.optim.SGD, forms.none, 0.5, lr=0.1), 2)
    plain = trajectory(control, torch.optim.SGD(control.parameters(), lr=0.1), 2)
    assert all(torch.equal(a, b) for a, b in zip(mine, plain, strict=True))

    removed, again = network(5), network(5)
    optimizer = torch.optim.SGD(decay.param_groups(removed, 0.5, decay_bias=True), lr=0.1)
    decay.attach(optimizer, forms.l2).remove()
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            trajectory(removed, optimizer, 2),
            trajectory(again, torch.optim.SGD(again.parameters(), lr=0.1), 2),
            strict=True,
        )
    )


@pytest.mark.parametrize("name", FORMS.names())
def test_contract_undecayed_parameters_and_those_without_gradient_are_untouched(name: str) -> None:
    weight, frozen = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    idle = nn.Parameter(torch.ones(3))
    groups = [{"params": [weight, idle], "decay": 0.1}, {"params": [frozen], "decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.5)
    decay.attach(optimizer, FORMS.get(name))
    weight.grad, frozen.grad = torch.zeros(3), torch.zeros(3)
    optimizer.step()
    assert torch.equal(frozen, torch.ones(3))
    assert torch.equal(idle, torch.ones(3))
    expected = 1.0 if name == "none" else 1 - 0.5 * 0.1
    torch.testing.assert_close(weight.detach(), torch.full((3,), expected))


@pytest.mark.parametrize("name", FORMS.names())
def test_contract_dose_is_what_an_idle_weight_loses(name: str) -> None:
    """Thousands of small steps without gradient: the weight must end at exp(-D)."""
    form, wd, lr, momentum = FORMS.get(name), 1e-3, 0.1, 0.5
    weight = nn.Parameter(torch.ones((), dtype=torch.float64))
    optimizer = torch.optim.SGD([{"params": [weight], "decay": wd}], lr=lr, momentum=momentum)
    decay.attach(optimizer, form)
    for _ in range(4000):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    dose = decay.dose(form, wd, [lr] * 4000, gain=1 / (1 - momentum))
    assert dose is not None
    # Momentum starts from zero: the formula is asymptotic, one step of 4,000 in error.
    torch.testing.assert_close(weight.log().item(), -dose, rtol=1e-3, atol=1e-12)


def test_l2_has_no_dose_under_an_adaptive_optimizer() -> None:
    assert decay.dose(forms.l2, 1e-4, [0.1] * 10, gain=None) is None
    assert decay.dose(forms.decoupled, 1e-4, [0.1] * 10, gain=None) == pytest.approx(1e-4)


def test_an_optimizer_that_decays_by_itself_is_refused() -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(2))])
    with pytest.raises(UsageError, match="AdamW has a weight_decay of 0.01 of its own"):
        decay.attach(optimizer, forms.decoupled)


def test_a_second_decay_is_refused() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    handle = decay.attach(optimizer, forms.l2)
    with pytest.raises(UsageError, match="has a decay attached already"):
        decay.attach(optimizer, forms.l2)
    handle.remove()
    decay.attach(optimizer, forms.decoupled)
