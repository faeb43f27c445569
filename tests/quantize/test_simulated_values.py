"""What the simulated backend computes: on its grids, with its weights, against references."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwd.quantize.activations import ActivationGrid
from qwd.quantize.arithmetic import quantize
from qwd.quantize.backend import quantize as quantized
from qwd.quantize.schemes import BITS, KINDS, Scheme
from tests.quantize.deployed import batches, deployed
from tests.quantize.simulating import grid_of, made, small_images


@pytest.mark.parametrize("kind", ["affine", "symmetric", "pow2"])
@pytest.mark.parametrize("bits", BITS)
def test_activations_are_those_of_torchs_fake_quantization(kind: Any, bits: int) -> None:
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(bits)) * 3 + 1
    grid = ActivationGrid("x", -2.0, 5.0, kind=kind, bits=bits)
    qmin, qmax = (0, 2**bits - 1) if kind == "affine" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    zero_point = qmin - grid.lowest
    assert 0 < zero_point < qmax if kind == "affine" else zero_point == 0
    expected = torch.fake_quantize_per_tensor_affine(x, float(grid.scale), zero_point, qmin, qmax)
    found = grid(x)
    # torch multiplies by the reciprocal of the scale: values half way may go to the other code.
    position = (x.double() / float(grid.scale)).frac().abs()
    at_tie = (position - 0.5).abs() < 1e-4
    assert at_tie.double().mean() < 0.01
    assert torch.equal(found[~at_tie], expected[~at_tie])
    assert (found - expected).abs().max() <= float(grid.scale) * 1.001


@pytest.mark.parametrize("bits", BITS)
def test_minmax_activations_are_the_formula(bits: int) -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) + 1
    a, b = 0.25, 3.0
    scale = (b - a) / (2**bits - 1)
    codes = ((x.double() - a) / scale).round().clamp(0, 2**bits - 1)
    found = ActivationGrid("x", a, b, kind="minmax", bits=bits)(x)
    assert torch.equal(found, (a + codes * scale).float())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1e-42, 1e-30, 1.0, 1e36])
def test_no_activation_within_the_range_moves_by_more_than_half_a_step(
    kind: Any, size: float
) -> None:
    x = torch.linspace(-1, 2, 1001) * size
    grid = ActivationGrid("x", x.min().item(), x.max().item(), kind=kind, bits=8)
    widest = 2 * 4 / 255 if kind == "pow2" else 4 / 255
    assert 0 < float(grid.scale) <= widest * float(x.max()) / 2 * (1 + 1e-6)
    moved = (grid(x).double() - x.double()).abs()
    # float32 itself has steps among its smallest numbers.
    assert (moved <= float(grid.scale) * 0.5001 + 1.5e-45).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_range_without_width(kind: Any) -> None:
    x = torch.tensor([-3.0, 0.0, 5.0])
    assert torch.equal(ActivationGrid("x", 0.0, 0.0, kind=kind, bits=8)(x), torch.zeros(3))
    if kind == "minmax":
        assert torch.equal(
            ActivationGrid("x", 2.5, 2.5, kind=kind, bits=8)(x), torch.full((3,), 2.5)
        )


def test_integer_arithmetic_gives_the_same_codes() -> None:
    """Convolution, ReLU and linear layer in integers alone, as kernels compute them."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(180, 4)).eval()
    conv: Any = network[0]
    linear: Any = network[3]
    images = small_images()
    found = made(network, images=images)
    grids = {name: grid_of(found, name) for name in ("input", "0", "3")}

    def codes(x: Tensor, name: str) -> Tensor:
        grid = grids[name]
        return (x / grid.scale).round().clamp(grid.lowest, grid.highest).double()

    def layer(x: Tensor, parameters: Any, before: str, name: str) -> Tensor:
        """Codes less the zero point, from such codes; sums in float64 are exact."""
        w = quantize(parameters.weight, kind="affine")
        weight = (w.codes - w.zero_point).double()
        unit = float(grids[before].scale) * float(w.scale)
        bias = (parameters.bias.double() / unit).round()
        total = F.conv2d(x, weight, bias) if weight.ndim == 4 else F.linear(x, weight, bias)
        grid = grids[name]
        position = total * (unit / float(grid.scale))
        return position.round().clamp(grid.lowest, grid.highest)

    with torch.no_grad():
        first = layer(codes(images, "input"), conv, "input", "0")
        second = layer(first.flatten(1), linear, "0", "3")
        assert grids["0"].lowest == 0  # the clamp is the ReLU
        assert torch.equal(codes(found(images), "3"), second)
    assert len(second.unique()) > 10


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_the_arithmetic(kind: Any, granularity: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv1d(3, 4, 3),
        nn.ConvTranspose1d(4, 6, 3, groups=2),
        nn.ReLU(),
        nn.Linear(64, 5),
    )
    scheme = Scheme(kind, granularity, 4, 6, "simulated")
    found = made(network, scheme, torch.randn(4, 3, 64))
    assert found.converted.layers == ("0", "1", "3")
    for name, axis in (("0", 0), ("1", 1), ("3", 0)):
        layer: Any = network.get_submodule(name)
        used = found.converted.get_submodule(name)
        along = axis if granularity == "channel" else None
        expected = quantize(layer.weight, kind=kind, bits=4, axis=along)
        assert torch.equal(used.weight, expected.values.float())
        if kind == "minmax":
            assert torch.equal(used.bias, layer.bias)
        else:
            assert not torch.equal(used.bias, layer.bias)
            read = {"0": "input", "1": "0", "3": "1"}[name]
            step = expected.scale * float(grid_of(found, read).scale)
            if step.ndim:
                step = step.repeat(len(layer.bias) // len(step))
            assert ((used.bias - layer.bias).abs() <= step * 0.5001).all()
            codes = used.bias / step
            assert (codes - codes.round()).abs().max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_more_bits_lose_less(kind: Any) -> None:
    network, images = deployed("small_cnn"), batches()
    with torch.no_grad():
        expected = network(images[0])
        errors = [
            (
                quantized(network, Scheme(kind, "channel", w, a, "simulated"), images)(images[0])
                - expected
            )
            .square()
            .mean()
            .item()
            for w, a in ((2, 2), (4, 4), (6, 6), (8, 8))
        ]
    assert all(more > less for more, less in itertools.pairwise(errors))
    assert errors[-1] < 0.002 * expected.square().mean()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("clip", "words"),
    [
        ("none", "min and max"),
        ("percentile", "0.01 and 99.99 percentiles"),
        ("mse", "least squared error"),
    ],
)
def test_clipping(clip: Any, words: str, kind: Any) -> None:
    network = deployed("small_cnn")
    found = quantized(network, Scheme(kind, "tensor", 4, 4, "simulated", clip=clip), batches())
    assert found.description.observer == f"{words} (activations and weights)"
    assert found.description.engine is None
    assert found.description.activation_bits == 4
    assert torch.isfinite(found(batches()[0])).all()
    whole = quantized(network, Scheme(kind, "tensor", 4, 4, "simulated"), batches())
    scales = [[float(g.scale) for g in q.converted.grids] for q in (found, whole)]
    assert all(clipped <= full for clipped, full in zip(*scales, strict=True))
    assert (scales[0] == scales[1]) == (clip == "none")


def test_symmetric_weights_have_the_activations_of_integer_kernels() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    symmetric = made(layers, Scheme("symmetric", "channel", 8, 8, "simulated"))
    affine = made(layers, Scheme("affine", "channel", 8, 8, "simulated"))
    for name in ("input", "0", "3"):
        one, other = grid_of(symmetric, name), grid_of(affine, name)
        ends = [(grid.lowest, grid.highest, float(grid.scale)) for grid in (one, other)]
        assert ends[0] == ends[1]
        assert ends[0][1] - ends[0][0] == 255
