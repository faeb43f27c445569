"""A factor before BatchNorm that its statistics take out again changes nothing that is deployed."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from qwd.graphs import UntraceableError
from qwd.quantize.folding import deploy
from qwd.quantize.rescale import norm_ratios, power_of_two, rescaled
from qwd.registry import MODELS
from qwd.train.models import build

from .networks import Wired, conv_and_norm, image, randomized

NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "convolution": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)), lambda: image(4)),
    "without bias": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False)),
        lambda: image(4),
    ),
    "grouped": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6, eps=1e-3)),
        lambda: image(4),
    ),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6)),
        lambda: image(4),
    ),
    "grouped transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)),
        lambda: image(4),
    ),
    "linear": (
        lambda: nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5)),
        lambda: image(4)[:, 0, 0],
    ),
    "repvgg": (
        lambda: build("repvgg", in_channels=4, image_size=8, num_classes=3),
        lambda: image(4),
    ),
}
FACTORS = (0.25, 0.5, 1.0, 2.0, 2.0**10)


def layers(network: nn.Module) -> list[str]:
    return list(norm_ratios(network, network))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_deployed_stays_the_same(name: str, factor: float) -> None:
    make, inputs = NETWORKS[name]
    network, x = randomized(make()).eval(), inputs()
    before = copy.deepcopy(network.state_dict())
    names = layers(network)
    assert names
    made, skipped = rescaled(network, dict.fromkeys(names, factor))
    assert skipped == {}
    torch.testing.assert_close(made(x), network(x), rtol=1e-9, atol=1e-9)
    expected = dict(deploy(network).module.named_parameters())
    for key, weight in deploy(made).module.named_parameters():
        torch.testing.assert_close(weight, expected[key], rtol=1e-9, atol=1e-12)
    # It is another network, of other weights, and the one given is left as it is.
    for layer in names:
        weight, other = (n.get_submodule(layer).weight for n in (network, made))
        assert torch.equal(weight * factor, other)  # type: ignore[operator]
    assert all(torch.equal(t, network.state_dict()[n]) for n, t in before.items())


@pytest.mark.parametrize("name", MODELS.names())
def test_in_float32_all_but_the_last_bits_of_every_built_in_model(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, in_channels=3, image_size=16, num_classes=10)
    x = torch.randn(4, 3, 16, 16)
    network.train()(x)
    network.eval()
    made, skipped = rescaled(network, dict.fromkeys(layers(network), 0.25))
    with torch.no_grad():
        expected = network(x)
        difference = (made(x) - expected).abs().max() / expected.abs().max()
    assert difference < 1e-4
    assert set(skipped) <= set(layers(network))


def test_a_dead_channel_keeps_its_layer_out() -> None:
    network = randomized(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))).eval()
    norm = network[1]  # type: ignore[index]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    norm.running_var[2] = 1e-7
    made, skipped = rescaled(network, {"0": 0.5})
    assert skipped == {"0": "var' = c^2 (var + eps) - eps is negative in 1 of 6 channels"}
    assert all(torch.equal(t, network.state_dict()[n]) for n, t in made.state_dict().items())
    # A larger factor leaves it positive.
    assert rescaled(network, {"0": 2.0})[1] == {}


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf, 1e300, 1e-300])
def test_what_is_no_factor_is_skipped(factor: float) -> None:
    network = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
    assert list(rescaled(network, {"0": factor})[1]) == ["0"]


def test_products_that_float32_cannot_hold_are_skipped() -> None:
    network = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
    _, skipped = rescaled(network, {"0": 2.0**-126})
    assert "negative" in skipped["0"]
    with torch.no_grad():
        network[0].weight.mul_(1e30)  # type: ignore[operator]
    made, skipped = rescaled(network, {"0": 2.0**60})
    assert skipped == {"0": "times 1.15292e+18 it is beyond the normal numbers of torch.float32"}
    assert torch.isfinite(made(torch.zeros(1, 4, 8, 8))).all()


def test_layers_before_anything_else_are_skipped() -> None:
    network = Wired(lambda m, x: m.head(m.bn(m.conv(x))), **conv_and_norm(head=nn.Conv2d(3, 3, 1)))
    made, skipped = rescaled(network, {"conv": 2.0, "head": 2.0, "nowhere": 2.0})
    assert set(skipped) == {"head", "nowhere"}
    assert torch.equal(made.conv.weight, 2 * network.conv.weight)  # type: ignore[operator]
    assert not made.training


def test_ratios_are_of_norms() -> None:
    network = randomized(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)))
    other = copy.deepcopy(network)
    with torch.no_grad():
        other[0].weight.mul_(-0.3)  # type: ignore[index]
    assert norm_ratios(network, other) == {"0": pytest.approx(0.3)}
    with torch.no_grad():
        network[0].weight.zero_()  # type: ignore[index]
    assert math.isnan(norm_ratios(network, other)["0"])
    assert list(rescaled(network, norm_ratios(network, other))[1]) == ["0"]


@given(st.floats(1e-30, 1e30))
def test_the_nearest_power_of_two(ratio: float) -> None:
    c = power_of_two(ratio)
    assert math.frexp(c)[0] == 0.5
    assert 2**-0.5 * (1 - 1e-12) <= ratio / c <= 2**0.5 * (1 + 1e-12)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) if x.mean() < 9 else x


def test_what_cannot_be_traced_is_said() -> None:
    with pytest.raises(UntraceableError, match="cannot trace Branching"):
        rescaled(Branching(), {"conv": 2.0})
