"""Small networks for the tests of folding."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with statistics and affine parameters as training might leave them, float64."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data = torch.randn(tensor.shape, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.data = buffer.abs() + 0.05
    return model.double()


def image(channels: int = 3, size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, size, size, generator=generator, dtype=torch.float64)


class Wired(nn.Module):
    def __init__(self, forward: Callable[..., Tensor], **modules: nn.Module):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.wiring = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.wiring(self, x)


def conv_and_norm(**modules: nn.Module) -> dict[str, nn.Module]:
    return {"conv": nn.Conv2d(3, 3, 3, padding=1), "bn": nn.BatchNorm2d(3), **modules}
