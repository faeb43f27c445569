"""Folding keeps what a network computes, and names what became of its weights."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

from qwd.quantize.folding import deploy, fold_plan, weight_names
from qwd.registry import MODELS

from .networks import Wired, conv_and_norm, image, randomized


def check(model: nn.Module, x: Tensor, folded: dict[str, str]) -> nn.Module:
    model = randomized(model)
    before = copy.deepcopy(model.state_dict())
    training = model.training
    deployed = deploy(model)
    assert deployed.warnings == ()
    assert deployed.folded == folded
    assert not any(m.training for m in deployed.module.modules())
    names = dict(deployed.module.named_parameters())
    for weight, norm in folded.items():
        assert weight in names
        assert type(deployed.module.get_submodule(norm)) is nn.Identity
    assert model.training is training
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in before.items())
    model.eval()
    torch.testing.assert_close(deployed.module(x), model(x), rtol=1e-10, atol=1e-10)
    return deployed.module


LAYERS: dict[str, Callable[[], nn.Conv2d | nn.ConvTranspose2d]] = {
    "plain": lambda: nn.Conv2d(4, 6, 3),
    "without bias": lambda: nn.Conv2d(4, 6, 3, bias=False),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, groups=4),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1, bias=False),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, stride=2),
    "grouped transposed": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False),
    "depthwise transposed": lambda: nn.ConvTranspose2d(4, 8, 3, groups=4),
}


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("layer", LAYERS)
def test_convolutions(layer, affine):
    conv = LAYERS[layer]()
    norm = nn.BatchNorm2d(conv.out_channels, affine=affine, eps=1e-3)
    check(nn.Sequential(conv, norm, nn.ReLU()), image(4), {"0.weight": "1"})


@pytest.mark.parametrize("affine", [True, False])
def test_other_dimensions(affine):
    x = image(4)
    conv1 = nn.Sequential(nn.Conv1d(4, 5, 3), nn.BatchNorm1d(5, affine=affine))
    check(conv1, x.flatten(2), {"0.weight": "1"})
    transposed1 = nn.Sequential(nn.ConvTranspose1d(4, 5, 3), nn.BatchNorm1d(5, affine=affine))
    check(transposed1, x.flatten(2), {"0.weight": "1"})
    conv3 = nn.Sequential(nn.Conv3d(4, 5, 3), nn.BatchNorm3d(5, affine=affine))
    check(conv3, x.reshape(2, 4, 4, 4, 4), {"0.weight": "1"})
    linear = nn.Sequential(nn.Linear(8, 5, bias=affine), nn.BatchNorm1d(5, affine=affine))
    check(linear, x[:, 0, 0], {"0.weight": "1"})
    synced = nn.Sequential(nn.Conv2d(4, 5, 3), nn.SyncBatchNorm(5, affine=affine))
    check(synced, x, {"0.weight": "1"})


class Block(nn.Module):
    """A residual block; its BatchNorms are called by keyword and through a function."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, drop: float = 0.0, features: Tensor | None = None) -> Tensor:
        if features is not None:
            x = x + features
        y = F.relu(self.bn1(input=self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(x + y) * (1 - drop) if drop else F.relu(x + y)


def test_a_network_of_blocks():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Block(4), Block(4), nn.Flatten(), nn.Linear(144, 2)
    )
    folded = {"0.weight": "1"}
    for block in "23":
        folded |= {f"{block}.conv{i}.weight": f"{block}.bn{i}" for i in (1, 2)}
    module = check(model, image(), folded)
    assert weight_names(module) == weight_names(model)
    # The options of forward: a graph is of their defaults.
    assert deploy(Block(2)).folded == {"conv1.weight": "bn1", "conv2.weight": "bn2"}


NOT_FOLDED: dict[str, nn.Module] = {
    "layer called twice": Wired(lambda m, x: m.bn(m.conv(m.conv(x))), **conv_and_norm()),
    "norm called twice": Wired(lambda m, x: m.bn(m.bn(m.conv(x))), **conv_and_norm()),
    "two consumers": Wired(lambda m, x: (y := m.conv(x)) + m.bn(y), **conv_and_norm()),
    "something between": Wired(lambda m, x: m.bn(F.relu(m.conv(x))), **conv_and_norm()),
    "pre-activation": Wired(lambda m, x: m.conv(F.relu(m.bn(x))), **conv_and_norm()),
    "weight used elsewhere": Wired(
        lambda m, x: m.bn(m.conv(x)) + F.conv2d(x, m.conv.weight, padding=1), **conv_and_norm()
    ),
    "norm used elsewhere": Wired(
        lambda m, x: m.bn(m.conv(x)) * m.bn.weight.sum(), **conv_and_norm()
    ),
    "no running statistics": Wired(
        lambda m, x: m.bn(m.conv(x)),
        **conv_and_norm(bn=nn.BatchNorm2d(3, track_running_stats=False)),
    ),
    "instance norm": Wired(lambda m, x: m.bn(m.conv(x)), **conv_and_norm(bn=nn.InstanceNorm2d(3))),
    "linear over positions": Wired(
        lambda m, x: m.bn(m.linear(x)), linear=nn.Linear(8, 3), bn=nn.BatchNorm2d(3)
    ),
}


@pytest.mark.parametrize("name", NOT_FOLDED)
def test_what_cannot_be_folded_stays(name):
    check(NOT_FOLDED[name], image(), {})


def test_other_features_stay():
    model = Wired(lambda m, x: m.bn(m.linear(x)), linear=nn.Linear(8, 5), bn=nn.BatchNorm1d(3))
    check(model, image()[:, :, 0], {})


class Standardized(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return F.conv2d(input, weight, self.bias, padding=self.padding)


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_weights_that_are_computed_stay():
    standardized = Standardized(3, 3, 3, padding=1)
    check(nn.Sequential(standardized, nn.BatchNorm2d(3)), image(), {})
    parametrized = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
    parametrize.register_parametrization(parametrized[0], "weight", Twice())
    check(parametrized, image(), {})
    pruned = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)).double()
    with torch.no_grad():  # without a graph, so that the network can be copied
        prune.random_unstructured(pruned[0], "weight", amount=0.5)
    deployed = deploy(pruned)
    assert deployed.folded == {}
    torch.testing.assert_close(deployed.module(image()), pruned.eval()(image()))


def test_a_network_that_cannot_be_traced_is_left_with_a_warning():
    model = randomized(
        Wired(lambda m, x: m.bn(m.conv(x)) if x.sum() > 0 else m.conv(x), **conv_and_norm())
    )
    deployed = deploy(model)
    assert deployed.folded == {}
    (warning,) = deployed.warnings
    assert warning.startswith("BatchNorm is not folded: torch.fx cannot trace Wired (")
    assert "control flow" in warning
    assert "\n" not in warning
    assert torch.equal(deployed.module(image()), model.eval()(image()))


def test_without_batchnorm_nothing_is_traced():
    model = Wired(lambda m, x: m.conv(x) if x.sum() > 0 else x, conv=nn.Conv2d(3, 3, 1))
    deployed = deploy(model)
    assert (deployed.folded, deployed.fused, deployed.warnings) == ({}, {}, ())


def test_a_tied_weight_that_folds_is_two_weights():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3))
    model[2].weight = model[0].weight
    module = check(model, image(), {"0.weight": "1"})
    assert weight_names(model) == ["0.weight"]
    assert weight_names(module) == ["0.weight", "2.weight"]
    assert deploy(model).fused == {"2.weight": ("0.weight",)}


def test_a_module_of_two_names():
    conv, norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)
    model = Wired(lambda m, x: m.again[1](m.conv(x)), conv=conv, bn=norm)
    model.add_module("again", nn.Sequential(conv, norm))
    module = check(model, image(), {"conv.weight": "bn"})
    assert not any(isinstance(m, nn.BatchNorm2d) for m in module.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_are_kept(dtype):
    model = randomized(nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3))).to(dtype)
    deployed = deploy(model).module
    assert {p.dtype for p in deployed.parameters()} == {dtype}
    exact = deploy(copy.deepcopy(model).double()).module
    for name, parameter in deployed.named_parameters():
        expected = exact.get_parameter(name)
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(parameter.double(), expected, rtol=2 * eps, atol=2 * eps)


def test_weight_names():
    head = nn.Linear(6, 6)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LayerNorm([4, 6, 6]), head)
    head.weight = tied = nn.Parameter(torch.ones(6, 6))
    model.register_parameter("tied", tied)
    model.register_parameter("codes", nn.Parameter(torch.ones(2, 2, dtype=torch.int8), False))
    model.register_parameter("scalar", nn.Parameter(torch.tensor(1.0)))
    model.register_buffer("table", torch.ones(3, 3))
    assert weight_names(model) == ["tied", "0.weight", "2.weight", "2.bias"]
    state = model.state_dict()
    assert weight_names(state) == ["tied", "table", "0.weight", "2.weight", "2.bias"]
    assert weight_names({}) == []
    whole = torch.randn(4, 4)
    parts = {"all": whole, "left": whole[:, :2], "again": whole[:], "none": torch.empty(0, 2)}
    assert weight_names(parts) == ["all", "left", "none"]


@pytest.mark.parametrize("name", [*MODELS.names(), "tied"])
def test_the_weights_alone_are_those_of_the_deployed_network(name: str):
    if name == "tied":
        model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3))
        model[2].weight = model[0].weight
    else:
        model = MODELS.get(name)(in_channels=3, image_size=32, num_classes=10)
    model = randomized(model).float()
    before = copy.deepcopy(model.state_dict())
    plan = fold_plan(model)
    whole = plan.apply(model).module
    parameters = dict(whole.named_parameters(remove_duplicate=False))
    weights = plan.weights(model)
    assert sorted(weights) == sorted(weight_names(whole))
    assert all(torch.equal(weights[n], parameters[n]) for n in weights)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
