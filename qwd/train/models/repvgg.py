"""RepVGG: three branches while training, one convolution when deployed.

What a report of single tensors shows of such a network says little about the kernel that is
quantized in the end; see ``deploy_form``.
"""

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from qwd.train.models.info import described
from qwd.train.models.initial import he_initialized

STEM = 16
# (channels, stride) of each block.
BLOCKS = ((32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1))


class RepBranches(nn.Module):
    """The sum bn(conv3x3(x)) + bn(conv1x1(x)) + bn(x), the last where input and output agree.

    [N, channels, H, H] -> [N, wider, ceil(H/stride), ...]. Source: Ding et al. 2021, section 3.2.
    """

    def __init__(self, channels: int, wider: int, *, stride: int):
        super().__init__()
        self.conv3 = nn.Conv2d(channels, wider, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(wider)
        self.conv1 = nn.Conv2d(channels, wider, 1, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(wider)
        self.bn0 = nn.BatchNorm2d(wider) if (channels, stride) == (wider, 1) else None

    def forward(self, x: Tensor) -> Tensor:
        total = self.bn3(self.conv3(x)) + self.bn1(self.conv1(x))
        return total if self.bn0 is None else total + self.bn0(x)

    @torch.no_grad()
    def deploy_form(self) -> nn.Conv2d:
        """A new 3x3 convolution with bias, equal to the branches in evaluation mode.

        A 1x1 kernel is a 3x3 kernel that is zero around its centre, the identity one with 1 there;
        each is multiplied by its gamma / sqrt(var + eps), and kernels and biases are summed.
        Source: Ding et al. 2021, section 3.3.
        """
        kernel = self.conv3.weight
        branches = [(kernel, self.bn3), (F.pad(self.conv1.weight, (1, 1, 1, 1)), self.bn1)]
        if self.bn0 is not None:
            branches.append((nn.init.dirac_(torch.empty_like(kernel)), self.bn0))
        folded = [_folded(weight, bn) for weight, bn in branches]
        conv = copy.deepcopy(self.conv3)
        conv.weight = nn.Parameter(torch.stack([weight for weight, _ in folded]).sum(0))
        conv.bias = nn.Parameter(torch.stack([bias for _, bias in folded]).sum(0))
        return conv


def _folded(weight: Tensor, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    mean, variance = cast(Tensor, bn.running_mean), cast(Tensor, bn.running_var)
    return fuse_conv_bn_weights(weight, None, mean, variance, bn.eps, bn.weight, bn.bias)


@described(parameters=326_634, source="Ding et al. 2021")
def repvgg(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """RepVGG-style network of seven three-branch blocks, 16 to 128 channels.

    [N, in_channels, H, H] -> [N, num_classes]; H falls to H/8 before global average pooling.
    """
    layers: list[nn.Module] = []
    channels = in_channels
    for wider, stride in ((STEM, 1), *BLOCKS):
        layers += [RepBranches(channels, wider, stride=stride), nn.ReLU()]
        channels = wider
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
    return he_initialized(nn.Sequential(*layers, *head))
