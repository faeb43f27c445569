"""ONNX Runtime: the traps around it, each planted, and what it refuses."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from qwd.errors import VerificationError
from qwd.quantize import onnx_session
from qwd.quantize.arithmetic import quantize
from qwd.quantize.backend import NotQuantizableError, QuantizedNetwork
from qwd.quantize.backend import quantize as quantized
from qwd.quantize.schemes import Scheme
from tests.quantize.deployed import batches, deployed
from tests.quantize.onnx_models import STATIC, made, model_of, on_onnx, unoptimized, values_of


def small(*layers: nn.Module) -> Any:
    return nn.Sequential(*layers).eval()


IMAGES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(4))


def check_close(network: nn.Module, scheme: Scheme) -> QuantizedNetwork:
    """Close to float, and the same on integer kernels as one by one."""
    result = quantized(network, scheme, [IMAGES])
    onnx.checker.check_model(model_of(result), full_check=True)
    with torch.no_grad():
        expected, found = network(IMAGES), result(IMAGES)
    assert (found - expected).square().mean() < 1e-3 * expected.square().mean()
    one_by_one = unoptimized(result.converted.model_bytes, IMAGES)
    assert (found - one_by_one).abs().max() <= 0.02 * expected.abs().max()
    return result


@pytest.mark.parametrize(
    ("kind", "granularity"), [("affine", "tensor"), ("affine", "channel"), ("symmetric", "channel")]
)
def test_a_bias_beside_tiny_weights_is_not_clipped_to_32_bits(kind, granularity) -> None:
    """ONNX Runtime would raise the scale of such weights, or clip the bias when it optimizes."""
    torch.manual_seed(0)
    network = small(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(128, 10),
    )  # fmt: skip
    with torch.no_grad():
        network[2].weight.mul_(1e-7)
    result = check_close(network, on_onnx(kind, granularity))
    (warning,) = result.description.warnings
    assert "the biases of 2 need more than 32 bits" in warning
    assert result.description.quantized == ("0", "2", "5")
    expected = quantize(network[2].weight, kind=kind, axis=0 if granularity == "channel" else None)
    np.testing.assert_array_equal(values_of(result)["2.weight_quantized"], expected.codes.numpy())
    np.testing.assert_array_equal(values_of(result)["2.weight_scale"], expected.scale.numpy())


@pytest.mark.parametrize(
    ("dead", "granularity"), [("channel", "channel"), ("layer", "channel"), ("layer", "tensor")]
)
def test_dead_channels_keep_their_biases(dead, granularity) -> None:
    """What BatchNorm leaves of a channel that it has switched off."""
    torch.manual_seed(0)
    network = small(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    with torch.no_grad():
        network[0].weight[: 8 if dead == "layer" else 1] = 0
        network[0].bias[0] = 0.7
    result = check_close(network, on_onnx("affine", granularity))
    assert result.description.warnings == ()


def test_other_convolutions() -> None:
    torch.manual_seed(0)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    transposed = nn.ConvTranspose2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 8, 3, groups=2)
    scheme = on_onnx("affine", "channel")
    result = check_close(small(*transposed, *head), scheme)
    values = values_of(result)
    for name in ("0", "2"):
        weight: Any = transposed[int(name)].weight
        expected = quantize(weight, kind="affine", axis=1)
        np.testing.assert_array_equal(values[f"{name}.weight_quantized"], expected.codes.numpy())
    flat = small(nn.Flatten(2), nn.Conv1d(3, 4, 3, groups=1), nn.ReLU(), nn.Flatten(),
                 nn.Linear(248, 10))  # fmt: skip
    check_close(flat, scheme)


def test_equal_weights_and_shared_layers_are_all_named() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
            self.second.load_state_dict(self.first.state_dict())
            self.linear = nn.Linear(192, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(self.second(self.first(self.first(x).relu())).flatten(1))

    torch.manual_seed(0)
    result = check_close(Twice().eval(), STATIC)
    assert result.description.quantized == ("first", "second", "linear")


class Own(nn.Module):
    """A layer that torch does not know, with a parameter of its own."""

    def __init__(self, *, kernel: bool):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3)) if kernel else None
        self.gain = nn.Parameter(torch.rand(3, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * self.gain
        return (x if self.kernel is None else F.conv2d(x, self.kernel)).flatten(1)


def test_a_weight_outside_of_torchs_layers_has_its_parameters_name() -> None:
    torch.manual_seed(0)
    result = check_close(Own(kernel=True).eval(), STATIC)
    assert result.description.quantized == ("kernel",)
    assert result.description.left_float == ("gain",)


@pytest.mark.parametrize("network", [Own(kernel=False), nn.Flatten()])
def test_without_a_product_nothing_is_quantized(network: nn.Module) -> None:
    with pytest.raises(VerificationError, match="onnx-static: nothing was quantized"):
        quantized(network.eval(), STATIC, [IMAGES])


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(192, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1)) if x.sum() > 0 else self.linear(-x.flatten(1))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Branching(), "data-dependent"),
        (nn.Sequential(nn.AdaptiveMaxPool2d(3)), "No ONNX function found for .*adaptive_max_pool"),
        (nn.Linear(3, 3), "must have same reduction dim|cannot be multiplied"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_the_reason(network, reason, capfd) -> None:
    with pytest.raises(NotQuantizableError, match=reason) as found:
        quantized(network.eval(), STATIC, [IMAGES])
    assert str(found.value).startswith("this network cannot be exported to ONNX: ")
    assert "\n" not in str(found.value)
    assert "\x1b" not in str(found.value)
    assert capfd.readouterr() == ("", "")


def test_one_image_is_enough() -> None:
    result = quantized(deployed("small_cnn"), STATIC, [batches()[0][:1]])
    assert result(batches()[0]).shape == (8, 10)


def test_what_onnxruntime_cannot_run_is_refused(monkeypatch) -> None:
    def session(*_: object, **__: object) -> None:
        raise RuntimeError("zero point of per-channel filter must be same\nsecond line")

    monkeypatch.setattr(onnx_session, "accumulators_saturate", lambda: False)
    monkeypatch.setattr(onnx_session, "session", session)
    with pytest.raises(NotQuantizableError, match="cannot run the quantized network: zero") as e:
        quantized(deployed("small_cnn"), STATIC, batches())
    assert "\n" not in str(e.value)


def test_saturating_kernels_cut_the_activations_to_7_bits(monkeypatch) -> None:
    wide = values_of(made(STATIC))
    monkeypatch.setattr(onnx_session, "accumulators_saturate", lambda: True)
    network = quantized(deployed("small_cnn"), STATIC, batches())
    assert network.description.activation_bits == 7
    (warning,) = network.description.warnings
    assert warning.startswith("onnx-static: 8-bit activations saturate in ONNX Runtime")
    assert "cut to 7 bits" in warning
    narrow = values_of(network)
    assert set(narrow) == set(wide)
    grids = [n for n in wide if n.endswith("_scale") and ".weight" not in n]
    assert len(grids) == 6
    for name in grids:
        assert narrow[name] == pytest.approx(float(wide[name]) * 255 / 127, rel=1e-6)
    for name in ("conv1", "linear"):
        for part in ("quantized", "scale", "zero_point"):
            key = f"{name}.weight_{part}"
            np.testing.assert_array_equal(wide[key], narrow[key])


def test_the_probe_notices_a_sum_that_is_lost(monkeypatch) -> None:
    real = onnx_session.session
    asked = []

    class Lossy:
        """Loses part of the largest sums of matrix products, as 16-bit accumulators do."""

        def __init__(self, model_bytes: bytes):
            self.runtime = real(model_bytes, threads=1)
            (self.node,) = onnx.load_model_from_string(model_bytes).graph.node

        def run(self, names: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            asked.append(self.node.op_type)
            (whole,) = self.runtime.run(names, feed)
            assert (whole == 255).all()  # the largest code is the whole sum
            return [whole // 2 if self.node.op_type == "QLinearMatMul" else whole]

    # On a processor without VNNI the real kernels are lossy themselves.
    if onnx_session.accumulators_saturate():
        pytest.skip("this processor's kernels saturate")
    monkeypatch.setattr(onnx_session, "session", lambda model_bytes, threads: Lossy(model_bytes))
    assert onnx_session.accumulators_saturate()
    assert asked[:4] == ["QLinearConv"] * 4
    assert "QLinearMatMul" in asked
