"""The audited copy does what the live optimizer does, or the audit says that it does not."""

import types
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from qwd import decay
from qwd.decay import forms
from tests.decay.problems import network, trajectory


class Switched(torch.optim.SGD):
    """Has its form in an attribute, which no argument of its class sets."""

    decouple = True

    def __init__(self, params, lr: float = 0.1, weight_decay: float = 0.0):
        super().__init__(params, lr=lr)
        self.defaults["weight_decay"] = weight_decay
        self.factors = {p: 1.0 for g in self.param_groups for p in g["params"]}
        self.first = self.param_groups[0]["params"][0]

    def step(self, closure=None):
        assert self.first is self.param_groups[0]["params"][0]
        for group in self.param_groups:
            for p in group["params"]:
                wd = self.defaults["weight_decay"] * self.factors[p]
                p.data.mul_(1 - (group["lr"] if self.decouple else 1.0) * wd)


def audited(optimizer: torch.optim.Optimizer, model: nn.Module) -> decay.Audit:
    """The audit, which has changed nothing that lives."""
    before = [p.detach().clone() for p in model.parameters()]
    found = decay.audit(model, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    return found


def test_attributes_of_the_instance_are_those_of_its_copy() -> None:
    model = network(1)
    optimizer = Switched(decay.param_groups(model, 0.1), weight_decay=0.0)
    decay.attach(optimizer, forms.decoupled)
    audited(optimizer, model).check()
    optimizer.decouple = False
    optimizer.defaults["weight_decay"] = 0.1
    found = audited(optimizer, model)
    assert "decoupled by 0.1 is missed by" in found.failures[0]
    live = [p.detach().clone() for p in model.parameters()]
    optimizer.factors[next(model.parameters())] = 0.0
    assert audited(optimizer, model).failures != found.failures
    assert all(torch.equal(a, b) for a, b in zip(live, model.parameters(), strict=True))


def test_pytorch_optimizers_switch(others) -> None:
    model = network(1, torch.float32)
    optimizer = others.Lion(model.parameters(), lr=0.1, weight_decay=0.1, weight_decouple=True)
    assert audited(optimizer, model).parameters[0].form == "decoupled"
    for group in optimizer.param_groups:
        group["weight_decouple"] = False
    assert audited(optimizer, model).parameters[0].form == "l2"


def forgets(self: Any, closure: Any = None) -> None:
    """A step that changes nothing."""


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("bound", [types.MethodType, lambda step, own: partial(step, own)])
def test_a_step_of_the_instance_is_audited(bound: Any, scheduled: bool) -> None:
    model = network(1)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    optimizer.step = bound(forgets, optimizer)  # type: ignore[method-assign]
    if scheduled and bound is types.MethodType:
        torch.optim.lr_scheduler.StepLR(optimizer, 1)
    found = audited(optimizer, model)
    assert "a weight decay of 0.1 takes nothing" in found.failures[0]


def test_a_schedulers_wrapper_is_no_step_of_its_own() -> None:
    model = network(1)
    optimizer = torch.optim.SGD(decay.param_groups(model, 0.1), lr=0.1)
    decay.attach(optimizer, forms.decoupled)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    trajectory(model, optimizer, 1)
    found = audited(optimizer, model)
    found.check()
    assert found.warnings == ()


def test_a_step_that_refers_to_live_objects_is_not_run() -> None:
    model = network(1)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    original = optimizer.step

    def counting(closure: Any = None) -> Any:
        return original(closure)

    optimizer.step = counting  # type: ignore[method-assign]
    found = audited(optimizer, model)
    found.check()
    assert "AdamW: its decay cannot be audited: its step was replaced by" in found.warnings[0]
    assert "counting, which refers to live objects" in found.warnings[0]
    assert {(p.form, p.ulps) for p in found.parameters} == {("unknown", None)}
    assert "not verified" in str(found)
    assert not optimizer.state


def test_step_hooks_of_others_are_named_and_not_run() -> None:
    model = network(1)
    optimizer = torch.optim.SGD(decay.param_groups(model, 0.1), lr=0.1)
    decay.attach(optimizer, forms.l2)
    runs = []

    def clips(*_: Any) -> None:
        runs.append(1)

    optimizer.register_step_post_hook(clips)
    found = audited(optimizer, model)
    found.check()
    assert not runs
    (warning,) = found.warnings
    assert warning.startswith("SGD: the audit is of a step without its step hooks (")
    assert "clips)" in warning


class AttachesItself(torch.optim.SGD):
    """Has qwd's decay from its constructor on."""

    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, lr=lr)
        self.form = decay.attach(self, forms.decoupled)


def test_a_decay_that_the_constructor_attaches_is_there_once() -> None:
    model = network(1)
    found = audited(AttachesItself(decay.param_groups(model, 0.1)), model)
    found.check()
    assert found.decayed == 56


class Uncopyable:
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("a lock")


def test_an_attribute_that_cannot_be_copied_is_a_warning() -> None:
    model = network(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    optimizer.lock = Uncopyable()  # type: ignore[attr-defined]
    found = audited(optimizer, model)
    found.check()
    assert found.warnings == (
        "SGD: its attribute 'lock' cannot be copied (a lock): the audit is of a step without it",
    )


WRAPPERS = ["Lookahead", "TRAC", "OrthoGrad", "ScheduleFreeWrapper"]


@pytest.mark.parametrize("attached", ["outside", "inside", None])
@pytest.mark.parametrize("name", WRAPPERS)
def test_optimizers_that_wrap_another_one_get_no_certificate(
    others, name: str, attached: Any
) -> None:
    model = network(1, torch.float32)
    groups = decay.param_groups(model, 0.1) if attached else model.parameters()
    inner = torch.optim.SGD(groups, lr=0.1, weight_decay=0.0 if attached else 0.1)
    if attached == "inside":
        decay.attach(inner, forms.decoupled)
    outer = getattr(others, name)(inner)
    if attached == "outside":
        decay.attach(outer, forms.decoupled)
    getattr(outer, "train", lambda: None)()
    for trained in (False, True):
        if trained:
            trajectory(model, outer, 1)
        found = audited(outer, model)
        found.check()
        assert found.warnings == (f"{name}: its decay cannot be audited: it wraps SGD",)
        assert all(p.ulps is None for p in found.parameters)
        assert found.parameters[0].form == ("decoupled" if attached else "unknown")
        assert found.decayed == (56 if attached else 66)
        assert "not verified" in str(found)


def test_timms_lookahead(timm) -> None:
    model = network(1, torch.float32)
    outer = timm.optim.Lookahead(torch.optim.AdamW(model.parameters(), weight_decay=0.1))
    found = audited(outer, model)
    assert found.warnings == ("Lookahead: its decay cannot be audited: it wraps AdamW",)
