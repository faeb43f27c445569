"""Simulated networks for tests: small images, layers, and what is asked of every one."""

from typing import Any

import torch
from torch import Tensor, nn

from qwd.quantize.activations import ActivationGrid
from qwd.quantize.backend import quantize as quantized
from qwd.quantize.schemes import Scheme, parse_scheme

STATIC = parse_scheme("simulated-static")


def small_images(n: int = 8, seed: int = 1) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def made(network: nn.Module, scheme: Scheme = STATIC, images: Tensor | None = None) -> Any:
    """The simulated network of one in evaluation mode, calibrated on ``images``."""
    return quantized(network.eval(), scheme, [small_images() if images is None else images])


def grid_of(found: Any, name: str) -> ActivationGrid:
    (grid,) = (grid for grid in found.converted.grids if grid.name == name)
    return grid


def convs(n: int = 3, **modules: nn.Module) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {f"conv{i}": nn.Conv2d(3, 3, 3, padding=1) for i in range(n)}
    return {**layers, **modules}


def exact_when_off(found: Any, network: nn.Module, images: Tensor) -> None:
    with torch.no_grad(), found.converted.selected((), ()):
        assert torch.equal(found(images.clone()), network(images.clone()))
    with torch.no_grad():
        assert not torch.equal(found(images.clone()), network(images.clone()))
