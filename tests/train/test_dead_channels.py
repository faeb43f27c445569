"""The share of ReLU channels that no validation image wakes."""

import math

import pytest
import torch
from torch import Tensor, nn

from qwd.train.watch import Watch


class Reused(nn.Module):
    """One ReLU for two layers of 3 channels and one of 2; signs of the biases decide what lives."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(1, n, 1) for n in (3, 3, 2))
        self.relu = nn.ReLU(inplace=True)
        self.never = nn.ReLU()
        biases = [[1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, 1.0]]
        for conv, bias in zip(self.convs, biases, strict=True):
            nn.init.zeros_(conv.get_parameter("weight"))
            conv.get_parameter("bias").data = torch.tensor(bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.relu(conv(x)).add_(1) for conv in self.convs], dim=1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dead_channels_are_dead_in_all_calls(layout: torch.memory_format) -> None:
    model = Reused().eval()
    watch = Watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    images = torch.randn(6, 1, 4, 4)
    with watch.validating(), torch.no_grad():
        seen = model(images.to(memory_format=layout))
    row = watch.row()
    # Of 3 + 2 channels, the third of the first two calls and the first of the last.
    assert row["dead_channels"] == row["dead_channels:relu"] == pytest.approx(2 / 5)
    assert row["dead_channels:never"] is None
    assert torch.equal(seen, model(images))
    assert not model.relu._forward_hooks


@pytest.mark.parametrize(("shape", "channel"), [((4, 3), 1), ((2, 3, 4, 4), 1), ((2, 5, 3), 2)])
@pytest.mark.parametrize("relu", [nn.ReLU, nn.ReLU6])
def test_dead_channels_of_every_shape(shape: tuple[int, ...], channel: int, relu: type) -> None:
    """One channel lives by a single position of the second batch, one by a NaN, one is dead."""
    model = nn.Sequential(nn.Identity(), relu())
    watch = Watch(model, torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1))
    negative = -torch.ones(shape)
    positive = negative.clone().movedim(channel, 0)
    positive[(0, *[-1] * (len(shape) - 1))] = 1e-30
    positive[(1, *[0] * (len(shape) - 1))] = math.nan
    with watch.validating():
        model(negative)
        model(negative[:0])
        model(positive.movedim(0, channel))
    assert watch.row()["dead_channels"] == pytest.approx(1 / 3)
    with watch.validating():
        model(negative)
    assert watch.row()["dead_channels:1"] == 1


def test_hooks_are_gone_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    watch = Watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(RuntimeError, match="shapes"), watch.validating():
        model(torch.ones(1, 3))
    assert not model[1]._forward_hooks
