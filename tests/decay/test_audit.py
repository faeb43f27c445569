"""The audit finds what is decayed, proves it, and catches optimizers that do something else."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qwd import decay
from qwd.decay import forms
from qwd.registry import FORMS
from tests.decay.problems import network, trajectory

OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    "nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "ascent": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "maximize": True}),
    "differentiable": (torch.optim.SGD, {"lr": 0.1, "differentiable": True}),
    "rate as a tensor": (torch.optim.Adam, {"lr": torch.tensor(1e-3), "foreach": False}),
    "adam": (torch.optim.Adam, {"lr": 1e-3}),
    "adamw fused": (torch.optim.AdamW, {"lr": 1e-3, "fused": True, "weight_decay": 0.0}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 1e-3}),
    "nadam": (torch.optim.NAdam, {"decoupled_weight_decay": True}),
    "radam": (torch.optim.RAdam, {}),
    "adamax": (torch.optim.Adamax, {}),
    "adagrad": (torch.optim.Adagrad, {}),
    "adadelta": (torch.optim.Adadelta, {}),
    "adafactor": (torch.optim.Adafactor, {}),
    "rprop": (torch.optim.Rprop, {}),
    "asgd": (torch.optim.ASGD, {"lambd": 0.0}),
}
EVERY = [FORMS.get(name) for name in FORMS.names()]
EVERY += [option for form in EVERY for option in form.options.values()]


class Net(nn.Module):
    """Convolution, normalisation, a tied and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.one = nn.Linear(8, 8)
        self.two = nn.Linear(8, 8)
        self.two.weight = self.one.weight
        self.frozen = nn.Linear(8, 2).requires_grad_(False)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("form", EVERY, ids=lambda form: form.name)
def test_contract_every_form_is_verified_under_every_optimizer(name: str, form) -> None:
    made, options = OPTIMIZERS[name]
    model = Net()
    optimizer = made(decay.param_groups(model, 1e-2), **options)
    decay.attach(optimizer, form)
    found = decay.audit(model, optimizer)
    found.check()
    assert found.warnings == ()
    assert found.ulps <= 2
    by_name = {p.name: p for p in found.parameters}
    assert by_name.keys() == {name for name, _ in model.named_parameters()}
    assert found.decayed == (216 + 64 if form.acts else 0)
    for entry in by_name.values():
        if entry.name in ("conv.weight", "one.weight") and form.acts:
            assert (entry.form, entry.coefficient) == (form.name, 1e-2)
            assert entry.lost
        else:
            assert (entry.form, entry.coefficient) == (None, 0.0)
            assert not entry.lost


@pytest.mark.parametrize(
    ("made", "form", "lost"),
    [
        (lambda p: torch.optim.AdamW(p, lr=1e-3), "decoupled", 1e-5),
        (lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01), "l2", 1e-3),
        (
            lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01, momentum=0.9, nesterov=True),
            "l2",
            1.9e-3,
        ),
        (lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=0.01), "l2", None),
        (lambda p: torch.optim.Muon([q for q in p if q.ndim == 2], lr=1e-3), "decoupled", 1e-4),
    ],
)
def test_decay_of_the_optimizers_own_is_recognised(made, form: str, lost: float | None) -> None:
    model = network(0, torch.float32)
    found = decay.audit(model, made(list(model.parameters())))
    found.check()
    decayed = [p for p in found.parameters if p.form is not None]
    assert {p.form for p in decayed} == {form}
    if lost is not None:
        for entry in decayed:
            assert entry.lost == pytest.approx(lost, rel=1e-2)


def test_the_live_optimizer_model_and_random_numbers_are_untouched() -> None:
    def run(audited: bool) -> list[torch.Tensor]:
        model = network(6)
        optimizer = torch.optim.Adam(decay.param_groups(model, 0.1), lr=0.01)
        decay.attach(optimizer, forms.l2, schedule=decay.schedules.linear(20))
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        trajectory(model, optimizer, 1)
        scheduler.step()
        before = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        torch.manual_seed(3)
        if audited:
            decay.audit(model, optimizer).check()
        drawn, fresh = torch.rand(1), torch.Generator().manual_seed(3)
        assert torch.equal(drawn, torch.rand(1, generator=fresh))
        assert str(before) == str((optimizer.state_dict(), scheduler.state_dict()))
        assert all(
            torch.equal(p.grad, g)  # type: ignore[arg-type]
            for p, g in zip(model.parameters(), gradients, strict=True)
        )
        return trajectory(model, optimizer, 2)

    assert all(torch.equal(a, b) for a, b in zip(run(True), run(False), strict=True))


def test_the_step_is_one_at_the_peak_rate() -> None:
    model = network(1)
    optimizer = torch.optim.SGD(decay.param_groups(model, 0.1), lr=0.5)
    decay.attach(optimizer, forms.decoupled)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.0)
    assert optimizer.param_groups[0]["lr"] == 0
    entry = next(p for p in decay.audit(model, optimizer).parameters if p.form)
    assert (entry.lr, entry.lost) == (0.5, pytest.approx(0.05))


def test_the_table_names_every_parameter_and_the_share() -> None:
    model = network(5)
    optimizer = torch.optim.SGD(decay.param_groups(model, 0.1), lr=0.1)
    decay.attach(optimizer, forms.l2)
    found = decay.audit(model, optimizer)
    text = str(found)
    for name, parameter in model.named_parameters():
        assert f"{name} " in text
        assert f"{parameter.numel():,}" in text
    assert found.share == pytest.approx((35 + 21) / (35 + 7 + 21 + 3))
    assert "56 elements decayed, 84.8% of all; verified within" in text
    assert found.to_dict()["parameters"][0]["name"] == "0.weight"


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), wd=st.floats(1e-6, 1), lr=st.floats(1e-4, 1.0))
def test_rounding_raises_no_false_alarm(seed: int, wd: float, lr: float) -> None:
    for made in (torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.SGD):
        model = network(seed, torch.float32)
        optimizer = made(decay.param_groups(model, wd), lr=lr)
        decay.attach(optimizer, forms.l2)
        decay.audit(model, optimizer).check()
        own = made(model.parameters(), lr=lr, weight_decay=wd)
        assert {p.form for p in decay.audit(model, own).parameters} == {"l2"}


class OtherArguments(torch.optim.SGD):
    """Cannot be made again from its defaults, and refers to its parameters by an attribute."""

    def __init__(self, network: nn.Module, speed: float):
        super().__init__(decay.param_groups(network, 0.1), lr=speed)
        self.first = self.param_groups[0]["params"][0]


def test_an_optimizer_of_another_signature() -> None:
    model = network(1)
    optimizer = OtherArguments(model, 0.1)
    decay.attach(optimizer, forms.decoupled)
    found = decay.audit(model, optimizer)
    found.check()
    assert found.decayed == 56


class Drawing(torch.optim.SGD):
    """Draws random numbers."""

    def step(self, closure=None):
        torch.rand(3)
        return super().step(closure)


def test_random_numbers_that_the_step_draws_are_given_back() -> None:
    model = network(2)
    torch.manual_seed(4)
    decay.audit(model, Drawing(model.parameters(), lr=0.1, weight_decay=0.1)).check()
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(4)))
