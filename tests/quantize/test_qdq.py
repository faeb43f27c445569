"""QDQ models of networks whose grids are in place: their arithmetic on integer kernels."""

import copy
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn.utils import parametrize

from qwd.quantize.arithmetic import code_range, grid, quantize
from qwd.quantize.backend import LAYERS, NotQuantizableError
from qwd.quantize.fake import FakeQuantize
from qwd.quantize.onnx_session import OnnxNetwork
from qwd.quantize.qdq import qdq_model
from qwd.quantize.schemes import GRANULARITIES
from qwd.quantize.schemes import INTEGER_KINDS as KINDS
from tests.quantize.deployed import batches, deployed
from tests.quantize.onnx_models import unoptimized

IMAGES = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def weight_grid(layer: Any, kind: Any, granularity: str, bits: int) -> FakeQuantize:
    axis = None
    if granularity == "channel":
        axis = int(isinstance(layer, nn.modules.conv._ConvTransposeNd))
    own = quantize(layer.weight, kind=kind, bits=bits, axis=axis)
    low, high = code_range(bits)
    return FakeQuantize(own.scale, own.zero_point, qmin=low, qmax=high, axis=axis)


def activation_grid(x: torch.Tensor, *, low: int = 0, high: int = 255) -> FakeQuantize:
    bits = (high - low + 1).bit_length() - 1
    own = grid(x.min(), x.max(), kind="affine", bits=bits)
    zero_point = own.zero_point - code_range(bits)[0] + low
    return FakeQuantize(own.scale.reshape(()), zero_point.reshape(()), qmin=low, qmax=high)


@torch.no_grad()
def with_grids(network: nn.Module, kind="affine", granularity="tensor", bits=8, **codes) -> Any:
    """A sequential network as a reference: its input and what its layers give have grids."""
    x = torch.cat(batches())
    modules: list[nn.Module] = [activation_grid(x, **codes)]
    x = modules[0](x)
    for module in copy.deepcopy(network).children():
        if isinstance(module, LAYERS):
            fake = weight_grid(module, kind, granularity, bits)
            parametrize.register_parametrization(module, "weight", fake)
        x = module(x)
        modules.append(module)
        if isinstance(module, nn.ReLU | nn.AdaptiveAvgPool2d | nn.Linear):
            modules.append(activation_grid(x, **codes))
            x = modules[-1](x)
    return nn.Sequential(*modules).eval()


def operators(model_bytes: bytes, path: Any) -> list[str]:
    """Those that a session really runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model_bytes, options, ["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_the_reference_on_integer_kernels(kind, granularity, tmp_path) -> None:
    reference = with_grids(deployed("small_cnn"), kind, granularity)
    made = qdq_model(reference, batches()[0])
    model = onnx.load_model_from_string(made)
    onnx.checker.check_model(model, full_check=True)
    kinds = operators(made, tmp_path / "optimized.onnx")
    assert kinds.count("QLinearConv") == 3
    assert kinds.count("QGemm") == 1
    assert not {"Conv", "Gemm", "Relu"} & set(kinds)
    with torch.no_grad():
        expected, found = reference(IMAGES), OnnxNetwork(made)(IMAGES)
    # Integer kernels add biases in steps of both scales, which moves a few codes by one.
    steps = ((found - expected) / reference[-1].scale).abs()
    assert steps.max() < 3.01
    assert steps.mean() < 0.5
    # The same nodes one by one are bitwise the codes that run on integers, but for ties.
    assert (unoptimized(made, IMAGES) == found).float().mean() > 0.98


def test_without_biases_the_model_is_the_reference_but_for_ties() -> None:
    network = deployed("small_cnn")
    for module in network.modules():
        if isinstance(module, LAYERS):
            module.register_parameter("bias", None)
    reference = with_grids(network, "affine", "channel")
    with torch.no_grad():
        expected = reference(IMAGES)
    found = OnnxNetwork(qdq_model(reference, batches()[0]))(IMAGES)
    assert ((found - expected).abs() < 1e-6).float().mean() > 0.98
    assert torch.equal(found.argmax(1), expected.argmax(1))


@pytest.mark.parametrize("bits", [8, 2])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_weights_are_stored_as_codes_and_nothing_else(granularity, bits) -> None:
    network = deployed("small_cnn")
    reference = with_grids(network, "affine", granularity, bits)
    made = onnx.load_model_from_string(qdq_model(reference, batches()[0]))
    values = {i.name: numpy_helper.to_array(i) for i in made.graph.initializer}
    nodes = {n.input[0]: n for n in made.graph.node if n.op_type == "DequantizeLinear"}
    layers: dict[str, Any] = {n: m for n, m in reference.named_modules() if isinstance(m, LAYERS)}
    for name, layer in layers.items():
        original = layer.parametrizations.weight.original
        axis = 0 if granularity == "channel" else None
        expected = quantize(original, kind="affine", bits=bits, axis=axis)
        stored = values[f"{name}.weight_quantized"]
        assert stored.dtype == np.int8
        np.testing.assert_array_equal(stored, expected.codes.numpy())
        # Of equal initializers the exporter keeps one.
        _, scale, zero_point = nodes[f"{name}.weight_quantized"].input
        np.testing.assert_array_equal(values[scale], expected.scale.numpy())
        np.testing.assert_array_equal(values[zero_point], expected.zero_point.numpy())
    assert not any(v.ndim > 1 and v.dtype == np.float32 for v in values.values())


@pytest.mark.parametrize(("low", "high"), [(0, 63), (-128, 127), (-8, 7)])
def test_other_codes_of_activations(low, high) -> None:
    reference = with_grids(deployed("small_cnn"), low=low, high=high)
    made = qdq_model(reference, batches()[0])
    model = onnx.load_model_from_string(made)
    clips = [node for node in model.graph.node if node.op_type == "Clip"]
    assert len(clips) == (0 if high - low == 255 else 6)
    images = 3 * IMAGES  # beyond the grids
    with torch.no_grad():
        expected, found = reference(images), OnnxNetwork(made)(images)
    steps = ((found - expected) / reference[-1].scale).abs()
    assert steps.max() < 3.01
    assert steps.mean() < 0.5
    codes = found / reference[-1].scale + reference[-1].zero_point
    assert low - 0.01 <= codes.min()
    assert codes.max() <= high + 0.01


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_dead_weights_do_not_keep_a_layer_from_integer_kernels(granularity, tmp_path) -> None:
    reference = with_grids(deployed("small_cnn"), "affine", granularity)
    layer = reference[1]
    dead = slice(0, 2) if granularity == "channel" else slice(None)
    with torch.no_grad():
        # What torch.ao leaves of weights without a range: the smallest scale there is.
        layer.parametrizations.weight.original[dead] = 0
        layer.parametrizations.weight[0].scale[dead if granularity == "channel" else ...] = (
            torch.finfo(torch.float32).tiny
        )
        expected = reference(IMAGES)
    made = qdq_model(reference, batches()[0])
    assert operators(made, tmp_path / "optimized.onnx").count("QLinearConv") == 3
    steps = ((OnnxNetwork(made)(IMAGES) - expected) / reference[-1].scale).abs()
    assert steps.max() < 3.01
    assert steps.mean() < 0.5


def test_linear_layers_on_tokens_run_on_integers(tmp_path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(2), nn.Linear(256, 24), nn.ReLU(), nn.Linear(24, 10))
    reference = with_grids(network, "symmetric", "channel")
    made = qdq_model(reference, batches()[0])
    kinds = operators(made, tmp_path / "optimized.onnx")
    assert "MatMul" not in kinds
    assert sum("MatMul" in kind for kind in kinds) == 2
    with torch.no_grad():
        expected, found = reference(IMAGES), OnnxNetwork(made)(IMAGES)
    assert ((found - expected).abs() < 1e-5).float().mean() > 0.99


def test_the_reference_is_left_as_it_is() -> None:
    reference = with_grids(deployed("small_cnn"))
    before = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
    with torch.no_grad():
        expected = reference(IMAGES)
    qdq_model(reference, batches()[0])
    after = reference.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with torch.no_grad():
        assert torch.equal(reference(IMAGES), expected)


class Twice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_what_was_done_to_a_weight_before_is_in_its_codes() -> None:
    layer = nn.Linear(12, 10)
    weight = layer.weight.detach().clone()
    parametrize.register_parametrization(layer, "weight", Twice())
    fake = weight_grid(layer, "affine", "tensor", 8)
    parametrize.register_parametrization(layer, "weight", fake)
    made = qdq_model(nn.Sequential(nn.Flatten(), layer), torch.randn(2, 3, 2, 2))
    values = onnx.load_model_from_string(made).graph.initializer
    (codes,) = (numpy_helper.to_array(i) for i in values if i.name == "1.weight_quantized")
    np.testing.assert_array_equal(codes, quantize(2 * weight, kind="affine").codes.numpy())


def test_what_has_no_codes_is_refused() -> None:
    images = torch.randn(2, 3, 2, 2)
    with pytest.raises(NotQuantizableError, match="no FakeQuantize, nothing that becomes codes"):
        qdq_model(nn.Sequential(nn.Flatten(), nn.Linear(12, 10)), images)
    one = torch.tensor(1.0), torch.tensor(0)
    for low, high in [(0, 256), (-129, 0), (-1, 255)]:
        wide = nn.Sequential(FakeQuantize(*one, qmin=low, qmax=high), nn.Flatten())
        with pytest.raises(NotQuantizableError, match=f"codes {low} to {high} are beyond 8 bits"):
            qdq_model(wide, images)
    layer = nn.Linear(12, 10)
    parametrize.register_parametrization(layer, "weight", FakeQuantize(*one, qmin=-128, qmax=127))
    parametrize.register_parametrization(layer, "weight", Twice())
    with pytest.raises(NotQuantizableError, match="1.weight is changed after it was quantized"):
        qdq_model(nn.Sequential(nn.Flatten(), layer), images)
