"""The operators that users' networks have between their layers: three backends round alike.

Each stands between two convolutions. How far integer outputs are from those in float is compared
with qwd's reference: a grid in another place, or an integer kernel that computes something else,
makes it larger by far.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qwd.quantize.backend import quantize
from qwd.quantize.folding import deploy
from qwd.quantize.schemes import parse_scheme

ALIKE = 1.25
"""times the error of the reference; a grid twice as coarse makes it 1.5 and more"""
BROADER = {"hardtanh": 1.4, "constant sum": 1.5}
"""torch.ao: clamps are no part of its kernels, and results that are read twice have one grid"""

MODULES = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardtanh": nn.Hardtanh,
    "prelu": lambda: nn.PReLU(8, init=-0.2),
    "leaky relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "batch norm": lambda: nn.BatchNorm2d(8),
    "group norm": lambda: nn.GroupNorm(2, 8),
    "instance norm": lambda: nn.InstanceNorm2d(8, affine=True),
    "layer norm": lambda: nn.LayerNorm([8, 8, 8]),
    "average pool": lambda: nn.AvgPool2d(3, 1, 1),
    "max pool": lambda: nn.MaxPool2d(3, 1, 1),
    "upsampling": lambda: nn.Upsample(scale_factor=2),
    "bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp": lambda x: x.clamp(min=0),
    "constant sum": lambda x: x + 0.7,
    "constant product": lambda x: x * -0.5,
    "difference": lambda x: 1 - x,
    "residual": lambda x: x + x.relu(),
    "gate": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "hand-made hardswish": lambda x: x * F.relu6(x + 3) / 6,
    "concatenation": lambda x: torch.cat([x[:, :4], x[:, 4:].relu()], dim=1),
    "chunks": lambda x: x.chunk(2, dim=1)[0].repeat(1, 2, 1, 1),
    "shuffle": lambda x: x.view(-1, 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8),
    "padding": lambda x: F.pad(x, (1, 1, 1, 1)),
    "padding with 3": lambda x: F.pad(x, (1, 1, 1, 1), value=3.0),
    "interpolation": lambda x: F.interpolate(x, scale_factor=2),
    "softmax": lambda x: x.softmax(dim=1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "instance norm, function": F.instance_norm,
}
QUICK = ("prelu", "instance norm", "average pool", "padding with 3", "gate")


def calling(function: Callable[[Tensor], Tensor]) -> nn.Module:
    class Call(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    return Call()


def cases() -> list[object]:
    made = MODULES | {name: lambda f=f: calling(f) for name, f in FUNCTIONS.items()}
    return [
        pytest.param(name, make, id=name, marks=() if name in QUICK else pytest.mark.long)
        for name, make in made.items()
    ]


@pytest.mark.parametrize(("name", "operator"), cases())
def test_backends_round_alike(name: str, operator: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), operator()),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10)),
    )
    images = torch.randn(128, 3, 8, 8)
    with torch.no_grad():
        for _ in range(20):
            network(images)
        network = deploy(network.eval()).module
        expected = network(images)

    def error(scheme: str) -> float:
        made = quantize(network, parse_scheme(scheme), [images[:64]])
        return (made(images) - expected).square().mean().sqrt().item()

    reference = error("simulated-static")
    assert 0 < reference < 0.2 * expected.std()
    assert error("onnx-static") < ALIKE * reference
    assert error("ao-static") < BROADER.get(name, ALIKE) * reference
