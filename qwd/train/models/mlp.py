"""A perceptron with BatchNorm, whose linear layers fold as convolutions do."""

from torch import nn

from qwd.train.models.info import described
from qwd.train.models.initial import he_initialized

WIDTHS = (256, 128)


@described(parameters=821_258, source="Rumelhart et al. 1986; BatchNorm: Ioffe & Szegedy 2015")
def mlp(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Perceptron with hidden layers of 256 and 128 units, Linear-BatchNorm-ReLU.

    [N, in_channels, image_size, image_size] -> [N, num_classes].
    """
    width = in_channels * image_size * image_size
    layers: list[nn.Module] = [nn.Flatten()]
    for wider in WIDTHS:
        layers += [nn.Linear(width, wider, bias=False), nn.BatchNorm1d(wider), nn.ReLU()]
        width = wider
    return he_initialized(nn.Sequential(*layers, nn.Linear(width, num_classes)))
