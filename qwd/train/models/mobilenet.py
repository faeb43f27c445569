"""Depthwise-separable convolutions for small images: the layers whose ranges differ most."""

from torch import nn

from qwd.train.models.info import described
from qwd.train.models.initial import he_initialized

STEM = 32
# (channels, stride) of each block; the paper's network begins with a stride for its 224 pixels.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2))


@described(parameters=274_250, source="Howard et al. 2017")
def mobilenet(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """MobileNetV1-style network of six depthwise-separable blocks.

    [N, in_channels, H, H] -> [N, num_classes]; H falls to H/8 before global average pooling.
    """
    layers = _conv(in_channels, STEM, kernel=3)
    channels = STEM
    for wider, stride in BLOCKS:
        layers += _conv(channels, channels, kernel=3, stride=stride, groups=channels)
        layers += _conv(channels, wider, kernel=1)
        channels = wider
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
    return he_initialized(nn.Sequential(*layers, *head))


def _conv(
    channels: int, wider: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    conv = nn.Conv2d(
        channels, wider, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return [conv, nn.BatchNorm2d(wider), nn.ReLU()]
