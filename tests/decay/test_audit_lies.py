"""The audit catches optimizers that decay otherwise than they say."""

import pytest
import torch

from qwd import decay
from qwd.decay import forms
from qwd.errors import VerificationError
from tests.decay.problems import network


class HalfDecay(torch.optim.SGD):
    """Forgets the decay of every second parameter."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"][::2]:
                parameter.data.mul_(1 - group["lr"] * group["weight_decay"])


class Drift(torch.optim.SGD):
    """Moves weights that nothing should move."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.mul_(0.999)


class Broken(torch.optim.SGD):
    def step(self, closure=None):
        raise RuntimeError("no\nstep")


def test_optimizers_that_lie_are_caught() -> None:
    model = network(2)
    half = decay.audit(model, HalfDecay(model.parameters(), lr=0.1, weight_decay=0.1))
    assert "in a form that is not known here" in half.warnings[0]
    assert [p.form for p in half.parameters] == ["unknown", None] * 2
    assert "0.bias and 1 more: a weight decay of 0.1 takes nothing" in half.failures[0]

    drift = Drift(decay.param_groups(model, 0.1), lr=0.1)
    decay.attach(drift, forms.decoupled)
    with pytest.raises(VerificationError, match="missed by .* ulps.*not decayed, yet a step"):
        decay.audit(model, drift).check()
    with pytest.raises(VerificationError, match="Broken cannot take a step .* no step"):
        decay.audit(model, Broken(model.parameters(), lr=0.1))


class NeverDecays(torch.optim.Adam):
    """Takes a weight decay and forgets it."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(parameter.grad, alpha=-group["lr"])


class GathersFirst(torch.optim.Adam):
    """Only counts in its first five steps, as rectified optimizers do."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["step"] = state.get("step", 0) + 1
                if state["step"] > 5:
                    parameter.data.mul_(1 - group["weight_decay"] / 7)


def test_a_weight_decay_that_does_nothing_is_a_failure() -> None:
    model = network(2)
    found = decay.audit(model, NeverDecays(model.parameters(), weight_decay=0.1))
    assert found.decayed == 0
    with pytest.raises(VerificationError, match="0.weight and 3 more: a weight decay of 0.1"):
        found.check()
    later = decay.audit(model, GathersFirst(model.parameters(), weight_decay=0.1))
    later.check()
    assert {p.form for p in later.parameters} == {"unknown"}


class SlightlyWrong(torch.optim.SGD):
    """Takes a millionth too much of every weight."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.mul_(1 - 1e-6)
        return super().step(closure)


def test_a_millionth_is_seen() -> None:
    model = network(2, torch.float32)
    optimizer = SlightlyWrong(decay.param_groups(model, 0.1, decay_bias=True), lr=0.1)
    decay.attach(optimizer, forms.decoupled)
    with pytest.raises(VerificationError, match="decoupled by 0.1 is missed by"):
        decay.audit(model, optimizer).check()


def test_a_decay_that_reaches_nothing_of_the_model_is_a_failure() -> None:
    model, other = network(1), network(2)
    groups = [
        {"params": list(model.parameters())},
        {"params": list(other.parameters()), "decay": 0.1},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    decay.attach(optimizer, forms.l2)
    with pytest.raises(VerificationError, match="no parameter of the model is decayed"):
        decay.audit(model, optimizer).check()


def test_decay_of_a_later_groups_own_is_a_failure_and_no_end_of_the_training() -> None:
    model, late = network(1), network(2)
    optimizer = torch.optim.Adam(decay.param_groups(model, 0.1))
    decay.attach(optimizer, forms.decoupled)
    optimizer.add_param_group({"params": list(late.named_parameters()), "weight_decay": 0.3})
    both = torch.nn.ModuleList([model, late])
    found = decay.audit(both, optimizer)
    assert found.failures == (
        "1.0.weight and 3 more: decayed by a weight_decay of 0.3 of the optimizer's own as well",
    )
    assert {p.form for p in found.parameters if p.name.startswith("0.")} == {"decoupled", None}
