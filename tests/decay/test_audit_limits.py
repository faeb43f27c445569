"""What the audit cannot judge, or doubts, it says: warnings in place of certificates."""

import math

import pytest
import torch
from torch import nn

from qwd import decay
from qwd.decay import forms
from qwd.errors import UsageError, VerificationError
from tests.decay.problems import network

ADAPTIVE = [torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adagrad]


def test_too_small_for_the_format_is_a_warning() -> None:
    model = network(1, torch.float32)
    found = decay.audit(model, torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-5))
    assert "is too small for float32 weights" in found.warnings[0]
    assert "takes 0 in place of 1e-08" in found.warnings[0]
    model = network(1, torch.bfloat16)
    found = decay.audit(model, torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-3))
    assert "is too small for bfloat16 weights" in found.warnings[0]
    assert "0.weight and 3 more: l2 by 0.001" in found.warnings[0]


def test_a_parameter_that_the_optimizer_lacks_is_a_warning_and_none_of_them_an_error() -> None:
    model = network(3)
    found = decay.audit(model, torch.optim.SGD(model.get_submodule("0").parameters(), lr=0.1))
    assert found.warnings == ("2.weight and 1 more: trainable and not in the optimizer",)
    with pytest.raises(UsageError, match="none of the model's parameters"):
        decay.audit(network(4), torch.optim.SGD(model.parameters(), lr=0.1))


def test_a_rate_of_zero_is_no_lie_and_no_rate_no_fault() -> None:
    model = network(1)
    still = decay.audit(model, torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.1))
    still.check()
    assert "a rate of 0 shows no decay" in still.warnings[0]
    own_rate = torch.optim.SGD(model.parameters(), lr=0.1)
    own_rate.param_groups[0]["lr"] = None
    with pytest.raises(VerificationError, match="SGD cannot take a step"):
        decay.audit(model, own_rate)


def test_frozen_weights_are_not_decayed() -> None:
    model = network(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    model.get_submodule("0").requires_grad_(False)
    found = decay.audit(model, optimizer)
    found.check()
    assert [p.form for p in found.parameters] == [None, None, "decoupled", "decoupled"]
    assert "0.weight and 1 more: frozen" in found.warnings[0]
    model.requires_grad_(False)
    with pytest.raises(VerificationError, match="no parameter of the model is decayed"):
        decay.audit(model, optimizer).check()


def test_weights_that_are_not_finite_or_empty_do_not_hide_the_others() -> None:
    model = nn.ParameterDict({"odd": torch.rand(2, 3), "none": torch.rand(0, 2)})
    model["odd"].data[0] = torch.tensor([math.nan, math.inf, 1.0])
    optimizer = torch.optim.SGD(decay.param_groups(model, 0.1), lr=0.1)
    decay.attach(optimizer, forms.decoupled)
    found = decay.audit(model, optimizer)
    found.check()
    assert found.decayed == 6


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("wd", [1e-12, 1e-18])
@pytest.mark.parametrize("made", ADAPTIVE)
def test_a_penalty_that_real_gradients_swallow_is_not_certified(made, wd: float, own: bool) -> None:
    """Without gradient, Adam makes a step of the least penalty; beside one, none is left."""
    model = network(1, torch.float32)
    if own:
        optimizer = made(model.parameters(), lr=1e-3, weight_decay=wd)
    else:
        optimizer = made(decay.param_groups(model, wd), lr=1e-3)
        decay.attach(optimizer, forms.l2)
    found = decay.audit(model, optimizer)
    found.check()
    decayed = [p for p in found.parameters if p.form is not None]
    assert decayed
    assert all(p.ulps is None and p.form in ("l2", "unknown") for p in decayed)
    assert "judged" in found.warnings[0]
    assert "not verified" in str(found)


def test_the_smallest_penalty_that_is_judged() -> None:
    """4 * wd / eps: what it takes for wd * w to be half the distance of gradients in float32."""
    model = network(1, torch.float32)
    optimizer = torch.optim.Adam(decay.param_groups(model, 1e-8), lr=1e-3)
    decay.attach(optimizer, forms.l1)
    (warning,) = decay.audit(model, optimizer).warnings
    assert "l1 by 1e-08 cannot be judged without gradients: beside those above 3e-01" in warning
    slope, weight = torch.tensor(0.35), torch.tensor(1.0)
    assert slope + 1e-8 * weight == slope
    for group in optimizer.param_groups:
        group["decay"] *= 10
    assert decay.audit(model, optimizer).warnings == ()


def test_steps_that_fit_several_forms_are_of_none() -> None:
    model = network(1, torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-9)
    found = decay.audit(model, optimizer)
    found.check()
    assert {p.form for p in found.parameters} == {"unknown"}
    assert "a weight decay of 1e-09 is too small to be judged on float32" in found.warnings[0]


class Rounding(torch.optim.SGD):
    """Moves idle weights by units in the last place."""

    ulps = 1

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                for _ in range(self.ulps):
                    parameter.data = torch.nextafter(parameter, parameter + 1).detach()


def test_an_idle_weight_that_is_rounded_anew_is_a_warning_and_one_that_moves_a_failure() -> None:
    model = network(1, torch.float32)
    optimizer = Rounding(model.parameters(), lr=0.1)
    found = decay.audit(model, optimizer)
    found.check()
    assert found.warnings == (
        "0.weight and 3 more: not decayed; a step without gradient rounds it anew",
    )
    assert found.ulps == 1
    optimizer.ulps = 2
    with pytest.raises(VerificationError, match="not decayed, yet a step"):
        decay.audit(model, optimizer).check()


def test_zeros_show_no_decay() -> None:
    model = nn.ParameterDict({"zero": torch.zeros(2, 3)})
    own = decay.audit(model, torch.optim.AdamW(model.parameters()))
    own.check()
    assert own.warnings == ("zero: all zeros, of which no decay can be seen",)
    assert [(p.form, p.ulps) for p in own.parameters] == [("unknown", None)]
    model["other"] = nn.Parameter(torch.ones(2, 3))
    found = decay.audit(model, torch.optim.AdamW(model.parameters()))
    assert found.warnings == ()
    assert [(p.form, p.ulps is None) for p in found.parameters] == [
        ("decoupled", True),
        ("decoupled", False),
    ]
    assert "verified within" in str(found)
    assert "6 not verified" in str(found)


def test_a_weight_decay_that_reaches_no_group_is_a_warning() -> None:
    model = network(1)
    groups = [{"params": list(model.parameters()), "weight_decay": 0.0}]
    found = decay.audit(model, torch.optim.SGD(groups, lr=0.1, weight_decay=0.1))
    found.check()
    assert found.warnings == ("SGD: a weight_decay of 0.1 was given, and every group has one of 0",)
    groups[0]["weight_decay"] = 0.1
    assert decay.audit(model, torch.optim.SGD(groups, lr=0.1, weight_decay=0.1)).warnings == ()


def test_a_later_group_without_a_decay_is_a_warning() -> None:
    model, late = network(1), network(2)
    optimizer = torch.optim.SGD(decay.param_groups(model, 0.1), lr=0.1)
    decay.attach(optimizer, forms.l2)
    optimizer.add_param_group({"params": list(late.named_parameters())})
    found = decay.audit(nn.ModuleList([model, late]), optimizer)
    found.check()
    assert found.warnings == (
        "1.0.weight and 3 more: in a group without 'decay' that was added after the decay was "
        "attached: not decayed",
    )
    optimizer.param_groups[-1]["decay"] = 0.0
    assert decay.audit(nn.ModuleList([model, late]), optimizer).warnings == ()
