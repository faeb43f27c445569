"""The residual networks for CIFAR, with the parameter names of the published checkpoints."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwd.train.models.info import described
from qwd.train.models.initial import he_initialized

SOURCE = "He et al. 2016, section 4.2"


class Subsample(nn.Module):
    """Shortcut without parameters, the paper's option A: [N, C, H, H] -> [N, wider, H/2, H/2].

    Every second pixel, H/2 rounded up, and zeros for the new channels, half before and half after.
    """

    def __init__(self, channels: int, wider: int):
        super().__init__()
        before = (wider - channels) // 2
        self.padding = (0, 0, 0, 0, before, wider - channels - before)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], self.padding)


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; H halves where the channels change.

    [N, channels, H, H] -> [N, wider, H, H] or [N, wider, H/2, H/2], rounded up.
    """

    def __init__(self, channels: int, wider: int):
        super().__init__()
        stride = 1 if wider == channels else 2
        self.conv1 = nn.Conv2d(channels, wider, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(wider)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(wider, wider, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(wider)
        self.shortcut = nn.Identity() if stride == 1 else Subsample(channels, wider)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(residual + self.shortcut(x))


class ResNet(nn.Module):
    """6 * blocks + 2 layers in three stages of 16, 32 and 64 channels: [N, C, H, H] -> [N, K]."""

    def __init__(self, blocks: int, in_channels: int, num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = self._stage(16, 16, blocks)
        self.layer2 = self._stage(16, 32, blocks)
        self.layer3 = self._stage(32, 64, blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, num_classes)

    @staticmethod
    def _stage(channels: int, wider: int, blocks: int) -> nn.Sequential:
        rest = [Block(wider, wider) for _ in range(blocks - 1)]
        return nn.Sequential(Block(channels, wider), *rest)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(self.pool(x), 1))


@described(parameters=269_722, source=SOURCE)
def resnet20(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Residual network of 20 layers for CIFAR.

    [N, C, H, H] -> [N, num_classes].
    """
    return he_initialized(ResNet(3, in_channels, num_classes))


@described(parameters=464_154, source=SOURCE)
def resnet32(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Residual network of 32 layers for CIFAR.

    [N, C, H, H] -> [N, num_classes].
    """
    return he_initialized(ResNet(5, in_channels, num_classes))


@described(parameters=658_586, source=SOURCE)
def resnet44(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Residual network of 44 layers for CIFAR.

    [N, C, H, H] -> [N, num_classes].
    """
    return he_initialized(ResNet(7, in_channels, num_classes))


@described(parameters=853_018, source=SOURCE)
def resnet56(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Residual network of 56 layers for CIFAR.

    [N, C, H, H] -> [N, num_classes].
    """
    return he_initialized(ResNet(9, in_channels, num_classes))
