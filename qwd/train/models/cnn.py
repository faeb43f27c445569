"""The default model: small enough to train on the embedded digits in seconds."""

from collections import OrderedDict

from torch import nn

from qwd.train.models.info import described
from qwd.train.models.initial import he_initialized


@described(parameters=24_346, source="qwd; BatchNorm: Ioffe & Szegedy 2015")
def small_cnn(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Three 3x3 Conv-BatchNorm-ReLU stages of 16, 32 and 64 channels, global average pooling.

    [N, in_channels, H, H] -> [N, num_classes]; the second and third stage halve H.
    """
    return he_initialized(
        nn.Sequential(
            OrderedDict(
                **_stage(1, in_channels, 16, stride=1),
                **_stage(2, 16, 32, stride=2),
                **_stage(3, 32, 64, stride=2),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                linear=nn.Linear(64, num_classes),
            )
        )
    )


def _stage(number: int, channels: int, wider: int, *, stride: int) -> dict[str, nn.Module]:
    conv = nn.Conv2d(channels, wider, 3, stride=stride, padding=1, bias=False)
    layers = {"conv": conv, "bn": nn.BatchNorm2d(wider), "relu": nn.ReLU()}
    return {f"{name}{number}": layer for name, layer in layers.items()}
