"""Networks of which a single thing is lost in 8 bits, and images that they classify rightly.

The labels are what the network in float answers, so that every drop is the quantization's.
"""

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from qwd.quantize.arithmetic import quantize
from qwd.train.data import Data, load_pair

CLASSES = 4


class Net(nn.Module):
    """Two convolutions and a linear layer; images are [1, 6, 6] in 0 to 1."""

    def __init__(self, channels: int = 8):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv1, self.relu1 = nn.Conv2d(1, channels, 3), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2d(channels, channels, 3), nn.ReLU()
        self.linear = nn.Linear(4 * channels, CLASSES)
        for layer in (self.conv1, self.conv2, self.linear):
            fan = layer.weight[0].numel()
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) / fan**0.5
            assert layer.bias is not None
            layer.bias.data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.conv1(x))
        return self.linear(self.relu2(self.conv2(x)).flatten(1))


def images(n: int, seed: int) -> Tensor:
    return torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def centred(network: Net) -> Net:
    """The network with classes that are equally frequent and close to each other."""
    network.eval()
    network.linear.bias -= network(images(2000, 9)).mean(dim=0)
    return network


@torch.no_grad()
def clear_images(network: nn.Module, n: int, seed: int) -> TensorDataset:
    """``n`` images labelled by ``network``: of four times as many those that it is surest of."""
    x = images(4 * n, seed)
    outputs = network(x)
    best, second = outputs.topk(2).values.unbind(dim=1)
    surest = (best - second).topk(n).indices
    return TensorDataset(x[surest], outputs[surest].argmax(dim=1))


def data_of(network: nn.Module, n: int = 2000) -> Data:
    """Images of ``network``: a tenth of ``n`` for validation, and as many for the test."""
    return load_pair(clear_images(network, n, seed=1), clear_images(network, n // 10, seed=2))


@torch.no_grad()
def with_an_outlier(size: float = 10) -> Net:
    """A huge weight in conv2, on an input that is always zero: it costs nothing but the scale."""
    network = Net(channels=48)
    network.conv1.weight[0] = -0.3
    network.conv2.weight[0, 0, 1, 1] = size
    return centred(network)


@torch.no_grad()
def with_unequal_channels() -> Net:
    """Weights of one output channel of conv2 are huge, and what it answers is always zero."""
    network = Net()
    network.conv2.weight[0] = -60
    return centred(network)


@torch.no_grad()
def with_biased_rounding() -> Net:
    """In 4 bits the convolutions lose nothing, and all weights of the last layer are off one way.

    They lie nearly half a step above their codes for two classes, whose sums come out too small,
    and below them for the other two.
    """
    network = Net()
    for layer in (network.conv1, network.conv2):
        layer.weight.copy_(quantize(layer.weight, kind="affine", bits=4).values)
    weight, step = network.linear.weight, 0.05
    codes = (weight / step).round().clamp(-7, 6)
    above = torch.tensor([1, 1, -1, -1])[:, None]
    weight.copy_((codes + 0.45 * above) * step)
    weight[0, 0], weight[1, 0] = -8 * step, 7 * step
    return centred(network)


@torch.no_grad()
def with_a_spike() -> Net:
    """conv1 has a large output that conv2 does not read: it costs the scale of the activations."""
    network = Net()
    network.get_parameter("conv1.bias")[0] = 500
    network.conv2.weight[:, 0] = 0
    return centred(network)
