"""Initial weights of the networks with ReLU."""

from typing import TypeVar

from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def he_initialized(network: Net) -> Net:
    """Draw every convolution's and linear layer's weights from N(0, 2 / fan_in); biases are 0.

    Returns the same network. Source: He et al. 2015, "Delving deep into rectifiers", eq. 10. By
    fan_in and not fan_out, which torch overestimates for depthwise convolutions.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
