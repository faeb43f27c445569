"""Branches that deploy as one kernel, and plans that serve a whole training."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qwd.quantize.folding import deploy, fold_plan, weight_names

from .networks import Wired, image, randomized


class Branches(nn.Module):
    """y = conv3(x) + conv1(x); deploys as one 3x3 kernel."""

    def __init__(self):
        super().__init__()
        self.three = nn.Conv2d(3, 3, 3, padding=1)
        self.one = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.training or x.shape[0] >= 0:
            return self.three(x) + self.one(x)
        return x

    def deploy_form(self) -> nn.Conv2d:
        assert not self.training
        form = copy.deepcopy(self.three)
        form.weight += F.pad(self.one.weight, [1, 1, 1, 1])
        form.bias += self.one.bias  # pyright: ignore[reportOperatorIssue]
        return form


SOURCES = ("three.weight", "one.weight")


def test_branches_become_one_kernel():
    model = randomized(nn.Sequential(Branches(), nn.ReLU(), Branches(), nn.BatchNorm2d(3)))
    before = copy.deepcopy(model.state_dict())
    deployed = deploy(model)
    assert deployed.fused == {
        f"{block}.weight": tuple(f"{block}.{source}" for source in SOURCES) for block in (0, 2)
    }
    assert deployed.folded == {"2.weight": "3"}
    assert deployed.warnings == ()
    assert [type(m) for m in deployed.module.children()] == [
        nn.Conv2d,
        nn.ReLU,
        nn.Conv2d,
        nn.Identity,
    ]
    assert weight_names(deployed.module) == ["0.weight", "2.weight"]
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in before.items())
    torch.testing.assert_close(deployed.module(image()), model.eval()(image()))


def test_branches_of_a_network_that_cannot_be_traced():
    model = randomized(
        Wired(
            lambda m, x: m.bn(m.branches(x)) if x.sum() < 1e9 else x,
            branches=Branches(),
            bn=nn.BatchNorm2d(3),
        )
    )
    deployed = deploy(model)
    assert deployed.fused == {"branches.weight": tuple(f"branches.{s}" for s in SOURCES)}
    assert len(deployed.warnings) == 1
    torch.testing.assert_close(deployed.module(image()), model.eval()(image()))


def test_a_network_that_is_one_branched_module():
    model = randomized(Branches())
    deployed = deploy(model)
    assert isinstance(deployed.module, nn.Conv2d)
    assert deployed.fused == {"weight": SOURCES}
    torch.testing.assert_close(deployed.module(image()), model.eval()(image()))


def test_one_plan_serves_every_state_of_training():
    model = nn.Sequential(Branches(), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    plan = fold_plan(model.train())
    for seed in range(3):
        randomized(model, seed).train()
        deployed = plan.apply(model)
        assert deployed.folded == {"0.weight": "1", "2.weight": "3"}
        assert model.training
        expected = copy.deepcopy(model).eval()(image())
        torch.testing.assert_close(deployed.module(image()), expected)
