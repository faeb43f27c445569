"""PT2E: torchao's own configuration on its graphs and kernels, and the traps around it."""

import copy
import io
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from qwd.errors import VerificationError
from qwd.quantize.arithmetic import quantize
from qwd.quantize.backend import LAYERS, NotQuantizableError, QuantizedNetwork
from qwd.quantize.backend import quantize as quantized
from qwd.quantize.schemes import Scheme, parse_scheme
from tests.quantize.deployed import batches, deployed

DEFAULT = parse_scheme("pt2e-default")
INDUCTOR = replace(DEFAULT, engine="inductor")
FLOOR = 2.0**-12


@cache
def made(scheme: Scheme = DEFAULT, model: str = "small_cnn") -> QuantizedNetwork:
    return quantized(deployed(model), scheme, batches())


def stored_weights(network: QuantizedNetwork) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Codes and scales, in the order of the graph."""
    graph = network.converted.graph
    dequantize: Any = torch.ops.quantized_decomposed.dequantize_per_channel.default
    return [
        tuple(getattr(graph, str(argument.target)) for argument in node.args[:2])
        for node in graph.graph.nodes
        if node.target is dequantize
    ]


def test_weights_are_symmetric_codes_per_channel() -> None:
    network = deployed("small_cnn")
    layers: dict[str, Any] = {n: m for n, m in network.named_modules() if isinstance(m, LAYERS)}
    found = stored_weights(made())
    assert len(found) == len(layers)
    for (codes, scale), layer in zip(found, layers.values(), strict=True):
        expected = quantize(layer.weight, kind="symmetric", axis=0)
        assert codes.dtype == torch.int8
        torch.testing.assert_close(scale.double(), expected.scale, rtol=1e-6, atol=0)
        # torch multiplies by the reciprocal of the scale: only a tie may get the other code.
        apart = (codes.int() - expected.codes).abs()
        assert apart.max() <= 1
        position = layer.weight.double() / expected.scale.reshape(-1, *[1] * (codes.ndim - 1))
        from_tie = (position - position.floor() - 0.5).abs()[apart != 0]
        assert (from_tie < 1e-4).all()
    description = made().description
    assert description.quantized == tuple(layers)
    assert description.left_float == ()
    assert description.warnings == ()
    assert description.engine is None


def test_activations_have_all_8_bits() -> None:
    """torch.ao's default for x86 has 7."""
    quantize_op: Any = torch.ops.quantized_decomposed.quantize_per_tensor.default
    nodes = [n for n in made().converted.graph.graph.nodes if n.target is quantize_op]
    assert {node.args[3:] for node in nodes} == {(0, 255, torch.uint8)}
    description = made().description
    assert description.activation_bits == 8
    assert description.observer == (
        "HistogramObserver (activations), PerChannelMinMaxObserver (weights)"
    )


def test_the_program_is_the_graph_and_runs_in_a_process_without_qwd(tmp_path) -> None:
    images = batches()[0]
    program = made().converted.exported(images)
    content = io.BytesIO()
    torch.export.save(program, content)
    (tmp_path / "network.pt2").write_bytes(content.getvalue())
    torch.save({"images": images[:5], "outputs": made()(images[:5])}, tmp_path / "expected.pt")
    assert b"/qwd/" not in content.getvalue()  # no stack traces
    weights = sum(codes.numel() for codes, _ in stored_weights(made()))
    floats = [t for t in program.state_dict.values() if t.is_floating_point() and t.ndim > 1]
    assert floats == []  # no float copy of a weight
    assert weights < sum(t.nbytes for t in program.state_dict.values()) < 1.2 * weights
    script = (
        "import torch, torchao.quantization.pt2e\n"
        "network = torch.export.load('network.pt2').module()\n"
        "known = torch.load('expected.pt')\n"
        "assert torch.equal(network(known['images']), known['outputs'])\n"
        "print('equal')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.stdout == "equal\n", run.stderr


@pytest.mark.parametrize("scheme", [DEFAULT, INDUCTOR])
def test_torchs_generator_is_left_alone(scheme: Scheme) -> None:
    network, images = deployed("small_cnn"), batches()
    before = torch.random.get_rng_state()
    quantized(network, scheme, images)(images[0])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_copies_give_the_same() -> None:
    images = batches()[0]
    for scheme in (DEFAULT, INDUCTOR):
        copied = copy.deepcopy(made(scheme)).eval()
        assert torch.equal(copied(images), made(scheme)(images))


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        (replace(DEFAULT, kind="affine"), "PT2E takes symmetric weights only .*, not affine-chan"),
        (replace(DEFAULT, kind="minmax"), "PT2E takes symmetric weights only"),
        (replace(DEFAULT, granularity="tensor"), "per channel, .*, not symmetric-tensor-w8-a8"),
        (replace(DEFAULT, clip="percentile"), "without clipping"),
        (replace(DEFAULT, weight_bits=4), "8-bit weights and 8-bit activations only, not .*-w4-a8"),
        (replace(DEFAULT, activation_bits=None), "activations only, not symmetric-channel-w8$"),
        (replace(DEFAULT, engine="x86"), "PT2E has no engine 'x86'; it has inductor"),
    ],
)
def test_schemes_beyond_it_are_refused(scheme: Scheme, reason: str) -> None:
    with pytest.raises(NotQuantizableError, match=reason) as found:
        quantized(deployed("small_cnn"), scheme, batches())
    assert "\n" not in str(found.value)


def test_the_floor_of_scales_is_said_with_its_layers() -> None:
    torch.manual_seed(0)
    network: Any = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    with torch.no_grad():
        network[0].weight[1:4] *= 1e-2
        network[0].weight[0] = 0
        network[0].bias.mul_(1e-3)
        network[3].weight.mul_(1e-6)
        network[3].bias.mul_(1e-3)
    images = 0.02 * torch.randn(16, 3, 8, 8)
    result = quantized(network.eval(), DEFAULT, [images])
    (weights, activations) = result.description.warnings
    assert weights.startswith(
        "pt2e-default: the smallest scale of PT2E, 0.000244, coarsens 3 (10 of 10 channels): "
        "SQNR 0.0 dB in place of "
    )
    assert "; 0 (3 of 8 channels): SQNR" in weights
    assert activations.startswith("pt2e-default: the smallest scale of PT2E, 0.000244, coarsens ")
    assert re.search(r"coarsens (\d) of \d activations: \w+(, \w+)*$", activations)
    # The floor is really there: crushed weights, and dead ones that stay what they are.
    (codes, scale), (crushed, raised) = stored_weights(result)
    assert torch.equal(raised, torch.full([10], FLOOR))
    assert (crushed == 0).all()
    assert (scale[:4] == FLOOR).all()
    assert (scale[4:] > FLOOR).all()
    assert (codes[0] == 0).all()


class Own(nn.Module):
    """A layer that torch does not know, with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(3, 3, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.unsqueeze(2) * self.kernel[:, :1, :1, :1]).sum(2)


def test_layers_that_stay_in_float_are_named() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        Own(), nn.ConvTranspose2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 10)
    ).eval()
    images = torch.randn(8, 3, 8, 8)
    for scheme in (DEFAULT, INDUCTOR):
        result = quantized(network, scheme, [images])
        assert result.description.quantized == ("4",)
        assert result.description.left_float == ("1", "0.kernel")
        with torch.no_grad():
            expected = network(images)
        error = (result(images) - expected).square().mean()
        assert 0 < error < 1e-3 * expected.square().mean()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 12)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x.flatten(1)))


def test_tied_layers_are_both_named() -> None:
    torch.manual_seed(0)
    result = quantized(Tied().eval(), DEFAULT, [torch.randn(8, 3, 2, 2)])
    assert result.description.quantized == ("first", "second")
    assert result.description.left_float == ()


@pytest.mark.parametrize("scheme", [DEFAULT, INDUCTOR])
def test_without_a_layer_nothing_is_quantized(scheme: Scheme) -> None:
    with pytest.raises(VerificationError, match="nothing was quantized"):
        quantized(nn.Sequential(Own(), nn.Flatten()).eval(), scheme, [torch.randn(8, 3, 8, 8)])


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(192, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1)) if x.sum() > 0 else self.linear(-x.flatten(1))


def test_what_it_cannot_read_is_refused_with_the_reason(capfd) -> None:
    reason = "PT2E cannot quantize this network: .*data-dependent"
    with pytest.raises(NotQuantizableError, match=reason) as found:
        quantized(Branching().eval(), DEFAULT, [torch.randn(8, 3, 8, 8)])
    assert "\n" not in str(found.value)
    assert capfd.readouterr() == ("", "")


class Shared(nn.Module):
    """A layer that is called twice, and a weight outside of torch's layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.conv(x).relu())
        return F.conv2d(x, self.kernel).flatten(1)


def test_shared_layers_and_weights_outside_of_layers_are_named() -> None:
    torch.manual_seed(0)
    network, images = Shared().eval(), torch.randn(8, 3, 8, 8)
    result = quantized(network, DEFAULT, [images])
    assert result.description.quantized == ("conv", "kernel")
    with torch.no_grad():
        expected = network(images)
    assert (result(images) - expected).square().mean() < 1e-3 * expected.square().mean()


def test_a_calibration_that_fails_is_refused() -> None:
    images = torch.randn(8, 3, 16, 16)
    with pytest.raises(NotQuantizableError, match="PT2E cannot quantize this network: ") as found:
        quantized(deployed("small_cnn"), DEFAULT, [images, images[:, :2]])
    assert "\n" not in str(found.value)
