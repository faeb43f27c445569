"""Networks for fused training, and sessions of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from qwd.config import TrainConfig
from qwd.train import seeding
from qwd.train.fused.figures import Replica
from qwd.train.models.cnn import small_cnn
from qwd.train.prepare import data_for
from qwd.train.progress import Watcher
from qwd.train.session import Session

HERE = "tests.train.fused.networks"
CPU = torch.device("cpu")


class Double(nn.Module):
    """A network in float64, where rounding hides nothing."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.double())


def cnn(**sizes: int) -> nn.Module:
    return Double(small_cnn(**sizes))


def perceptron(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    wide = in_channels * image_size**2
    layers = nn.Linear(wide, 24), nn.Tanh(), nn.Linear(24, num_classes)
    return Double(nn.Sequential(nn.Flatten(), *layers))


def linear(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))


def with_dropout(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    wide = in_channels * image_size**2
    layers = nn.Linear(wide, 24), nn.ReLU(), nn.Dropout(0.3), nn.Linear(24, num_classes)
    return Double(nn.Sequential(nn.Flatten(), *layers))


class Partly(nn.Module):
    """One layer is frozen, another one is never used, two share their weights."""

    def __init__(self, wide: int, classes: int):
        super().__init__()
        self.first = nn.Linear(wide, 12)
        self.first.weight.requires_grad_(False)
        self.unused = nn.Linear(3, 3)
        self.one = nn.Linear(12, 12)
        self.other = nn.Linear(12, 12)
        self.other.weight = self.one.weight
        self.last = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x.flatten(1)))
        return self.last(torch.tanh(self.other(torch.tanh(self.one(x)))))


def partly(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    return Double(Partly(in_channels * image_size**2, num_classes))


class Alike(nn.Module):
    """Two biases have one gradient, a third has one number for all its elements, two scale."""

    def __init__(self, wide: int, classes: int):
        super().__init__()
        self.linear = nn.Linear(wide, classes, bias=False)
        self.one = nn.Parameter(torch.linspace(-1, 1, classes))
        self.other = nn.Parameter(torch.linspace(0, 2, classes))
        self.level = nn.Parameter(torch.ones(3))
        self.gain = nn.Parameter(torch.ones(classes))
        self.whole = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x.flatten(1)) * self.gain * self.whole
        return y + (self.one + self.other) + self.level.sum() * torch.arange(y.shape[1])


def alike(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    return Double(Alike(in_channels * image_size**2, num_classes))


def normalised(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Each normalisation of torch, of what a convolution gives."""
    kinds = nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8, affine=True)
    layers: list[nn.Module] = [nn.Conv2d(in_channels, 8, 3)]
    for norm in (*kinds, nn.LayerNorm(image_size - 2), nn.RMSNorm(image_size - 2)):
        layers += [norm, nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    pool = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1)
    return nn.Sequential(*layers, *pool, nn.Linear(8, num_classes))


def few() -> tuple[TensorDataset, TensorDataset]:
    """As many images as make one batch of 64."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(80, 1, 8, 8, generator=generator), torch.arange(80) % 10
    return TensorDataset(images, labels), TensorDataset(images[:10], labels[:10])


class Deciding(nn.Module):
    """Looks at its numbers to decide what to do, which no vmap can carry."""

    def __init__(self, wide: int, classes: int):
        super().__init__()
        self.linear = nn.Linear(wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x.flatten(1))
        return y if y.sum() > 0 else 2 * y


def deciding(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    return Deciding(in_channels * image_size**2, num_classes)


def made(
    base: Mapping[str, Any],
    changes: Sequence[Mapping[str, Any]],
    kind: type[Session] = Replica,
    device: torch.device = CPU,
) -> list[Any]:
    """A session for each of ``changes`` to the settings ``base``."""
    first = TrainConfig(**{"batch_size": 64, "threads": 1, "device": "cpu", **base})
    data = data_for(first)
    with seeding.reproducible(device, 1):
        return [kind(replace(first, **change), data, device) for change in changes]


def trained_alone(sessions: Sequence[Session], device: torch.device = CPU) -> None:
    """Every epoch of each, in the ordinary loop."""
    with seeding.reproducible(device, 1):
        for session in sessions:
            while not session.ended:
                session.run_epoch(len(session.history), Watcher())


def distance(one: Session, other: Session) -> float:
    """The norm of the difference of all parameters and buffers."""
    pairs = zip(one.state()["model"].values(), other.state()["model"].values(), strict=True)
    return math.sqrt(sum(float((a.double() - b.double()).square().sum()) for a, b in pairs))


def apart(one: Session, other: Session) -> float:
    """The largest difference of tensors, relative to the largest number of its tensor."""
    pairs = zip(one.state()["model"].items(), other.state()["model"].values(), strict=True)
    return max(
        float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-300))
        for (_, a), b in pairs
    )
