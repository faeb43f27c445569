"""Channels without variance: found, and zeroed without a change of the function."""

from typing import Any

import torch
from torch import nn

from qwd.quantize.constant_channels import constant_channels, zero_constant_channels
from qwd.quantize.folding import deploy


def network() -> nn.Sequential:
    """Its first channel is dead; the second layer, depthwise, learned nothing of it."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.BatchNorm2d(4),
    )
    first: Any = made[1]
    with torch.no_grad():
        first.bias[0] = -100.0
        made.train()
        for _ in range(300):
            made(torch.randn(8, 3, 8, 8))
    return made.eval()


def test_a_channel_with_dead_inputs_is_found_and_zeroed() -> None:
    made = network()
    found = constant_channels(made)
    assert list(found) == ["3"]
    assert found["3"].tolist() == [True, False, False, False]
    images = torch.randn(4, 3, 8, 8)
    before = made(images)
    wide = deploy(made).module.get_submodule("3").weight.abs().amax()  # type: ignore[operator]
    assert zero_constant_channels(made) == {"3": 1}
    assert torch.allclose(made(images), before, atol=1e-3)
    narrow = deploy(made).module.get_submodule("3").weight.abs().amax()  # type: ignore[operator]
    assert narrow < wide / 10
    assert constant_channels(made) == {}


def test_a_bias_that_is_all_there_is_stays() -> None:
    layer, norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)
    made = nn.Sequential(layer, norm).eval()
    with torch.no_grad():
        norm.running_var.copy_(torch.tensor([0.0, 1.0]))  # type: ignore[union-attr]
        norm.running_mean.copy_(layer.bias)  # type: ignore[union-attr, arg-type]
    dead = torch.zeros(1, 1, 2, 2)
    before = made(dead)
    assert zero_constant_channels(made) == {"0": 1}
    assert torch.equal(made(dead), before)


def test_channels_that_vary_stay() -> None:
    made = network()
    other: Any = made[4]
    with torch.no_grad():
        other.running_var.fill_(1e-6)
    assert constant_channels(made) == {}
