"""Built-in models in deployed form, and images for them."""

import torch
from torch import nn

from qwd.quantize.backend import LAYERS
from qwd.quantize.folding import deploy, weight_names
from qwd.train.models import build


def deployed(name: str, image_size: int = 16) -> nn.Module:
    """A built-in model in deployed form, with BatchNorm statistics unlike the initial ones."""
    torch.manual_seed(0)
    model = build(name, in_channels=3, image_size=image_size, num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.3, 3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return deploy(model.eval()).module


def batches(image_size: int = 16, n: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 3, image_size, image_size, generator=generator) for _ in range(n)]


def other_weights(network: nn.Module) -> tuple[str, ...]:
    """Names of the weights outside of convolutions and linear layers, which stay in float."""
    inside = [m for m in network.modules() if isinstance(m, LAYERS)]
    held = {id(parameter) for module in inside for parameter in module.parameters()}
    return tuple(n for n in weight_names(network) if id(network.get_parameter(n)) not in held)
