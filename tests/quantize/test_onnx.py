"""ONNX Runtime: qwd's own codes on real integer kernels, and the traps around them."""

import copy
import pickle
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn import functional as F

from qwd.quantize import onnx_session
from qwd.quantize.arithmetic import code_range, quantize
from qwd.quantize.backend import LAYERS, NotQuantizableError
from qwd.quantize.backend import quantize as quantized
from qwd.quantize.schemes import GRANULARITIES, Scheme
from qwd.quantize.schemes import INTEGER_KINDS as KINDS
from tests.quantize.deployed import batches, deployed, other_weights
from tests.quantize.onnx_models import STATIC, made, model_of, on_onnx, unoptimized, values_of


@pytest.mark.parametrize(
    ("kind", "granularity", "bits", "model"),
    [
        *((k, g, b, "small_cnn") for k in KINDS for g in GRANULARITIES for b in (8, 3)),
        ("affine", "tensor", 8, "mobilenet"),
        ("affine", "channel", 8, "vit"),
    ],
)
def test_weights_are_stored_as_the_codes_of_the_arithmetic(kind, granularity, bits, model) -> None:
    scheme = on_onnx(kind, granularity, bits)
    network, values = deployed(model), values_of(made(scheme, model))
    layers = {n: m for n, m in network.named_modules() if isinstance(m, LAYERS)}
    assert layers
    for name, layer in layers.items():
        weight: Any = layer.weight
        expected = quantize(
            weight, kind=scheme.kind, bits=bits, axis=0 if granularity == "channel" else None
        )
        stored = values[f"{name}.weight_quantized"]
        codes = expected.codes.numpy()
        if stored.shape != codes.shape or (model == "vit" and ".attention." in name):
            codes = codes.T  # MatMul has [in, out]
        assert stored.dtype == np.int8
        np.testing.assert_array_equal(stored, codes)
        np.testing.assert_array_equal(values[f"{name}.weight_scale"], expected.scale.numpy())
        np.testing.assert_array_equal(
            values[f"{name}.weight_zero_point"], expected.zero_point.numpy()
        )
        lowest, highest = code_range(bits)
        assert lowest <= stored.min()
        assert stored.max() <= highest
    description = made(scheme, model).description
    assert description.quantized == tuple(layers)
    assert description.left_float == other_weights(deployed(model))
    assert description.activation_bits == 8


def test_no_float_copy_of_a_weight_is_left() -> None:
    assert {name for name, v in values_of(made(STATIC)).items() if v.dtype == np.float32} == {
        name for name in values_of(made(STATIC)) if name.endswith(("_scale", ".scale"))
    }


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("kind", KINDS)
def test_convolutions_and_linear_layers_run_on_integer_kernels(kind, granularity, tmp_path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    network = made(on_onnx(kind, granularity))
    onnxruntime.InferenceSession(network.converted.model_bytes, options, ["CPUExecutionProvider"])
    kinds = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 3
    assert kinds.count("QGemm") == 1
    assert not {"Conv", "Gemm", "Relu"} & set(kinds)


def test_activations_lie_on_uint8_over_their_extremes() -> None:
    values = values_of(made(STATIC))
    images = torch.cat(batches())
    a, b = min(images.min().item(), 0), max(images.max().item(), 0)
    assert values["images_scale"] == pytest.approx((b - a) / 255)
    assert values["images_zero_point"].dtype == np.uint8
    assert values["images_zero_point"] == round(-a / ((b - a) / 255))
    with torch.no_grad():
        largest = F.relu(deployed("small_cnn").get_submodule("conv1")(images)).max()
    assert values["relu_scale"] == pytest.approx(largest.item() / 255, rel=1e-5)
    assert values["relu_zero_point"] == 0


def test_biases_are_codes_in_steps_of_both_scales() -> None:
    values, bias = values_of(made(STATIC)), deployed("small_cnn").get_parameter("conv1.bias")
    (name,) = (n for n in values if n.endswith(".bias.codes") and values[n].shape == (16,))
    step = values["images_scale"] * values["conv1.weight_scale"]
    assert values[name].dtype == np.int32
    assert values[name.replace("codes", "scale")] == step
    expected = np.rint(bias.detach().numpy().astype(np.float64) / step)
    np.testing.assert_array_equal(values[name], expected)


def test_the_model_is_valid_and_takes_any_number_of_images() -> None:
    model = model_of(made(STATIC))
    onnx.checker.check_model(model, full_check=True)
    (images,), (logits,) = model.graph.input, model.graph.output
    assert (images.name, logits.name) == ("images", "logits")
    assert images.type.tensor_type.shape.dim[0].dim_param
    assert [d.dim_value for d in images.type.tensor_type.shape.dim][1:] == [3, 16, 16]
    for n in (1, 5):
        assert made(STATIC)(batches()[0][:n]).shape == (n, 10)
    # Where the exporter ran is nobody's business.
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert b".py" not in made(STATIC).converted.model_bytes


@pytest.mark.parametrize("kind", KINDS)
def test_integer_kernels_compute_what_the_model_says(kind) -> None:
    network = made(on_onnx(kind, "channel"))
    images = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    found, expected = network(images), unoptimized(network.converted.model_bytes, images)
    step = float(values_of(network)["logits_scale"])
    apart = ((found - expected) / step).abs()
    assert apart.max() < 1.01
    assert (apart > 0.5).float().mean() < 0.02
    assert torch.equal(found, network(images))


BARE = """
import sys
for name in ("torch", "onnx", "onnxscript", "qwd"):
    sys.modules[name] = None
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession("network.onnx")
known = np.load("known.npz")
(found,) = session.run(None, {session.get_inputs()[0].name: known["images"]})
assert np.array_equal(found, known["logits"]), abs(found - known["logits"]).max()
print("equal")
"""


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_model_runs_with_onnxruntime_and_numpy_alone(granularity, tmp_path) -> None:
    network, images = made(on_onnx("affine", granularity)), batches()[1][:5]
    (tmp_path / "network.onnx").write_bytes(network.converted.model_bytes)
    np.savez(tmp_path / "known.npz", images=images.numpy(), logits=network(images).numpy())
    run = subprocess.run(
        [sys.executable, "-c", BARE], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.stdout == "equal\n", run.stderr


def test_copies_hold_the_model_alone() -> None:
    network, images = made(STATIC), batches()[0]
    expected = network(images)
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network.converted))):
        assert torch.equal(copied(images), expected)
    copied = pickle.loads(pickle.dumps(network.converted))
    assert copied.description == network.description


def test_a_session_has_as_many_threads_as_torch(monkeypatch) -> None:
    asked = []
    real = onnx_session.session

    def session(model_bytes: bytes, *, threads: int) -> Any:
        asked.append(threads)
        return real(model_bytes, threads=threads)

    monkeypatch.setattr(onnx_session, "session", session)
    network = copy.deepcopy(made(STATIC).converted)
    threads = torch.get_num_threads()
    try:
        for count in (1, 1, 2):
            torch.set_num_threads(count)
            network(batches()[0])
    finally:
        torch.set_num_threads(threads)
    assert asked == [1, 2]


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        (replace(STATIC, engine="cuda"), "has no engine 'cuda'; it has cpu"),
        (replace(STATIC, activation_bits=4), "take 8-bit activations, not 4 bits"),
        (replace(STATIC, activation_bits=None), "take 8-bit activations, not float"),
        (replace(STATIC, kind="minmax"), "runs affine and symmetric weights"),
        (replace(STATIC, kind="pow2"), "pow2-tensor-w8-a8 runs on the backend 'simulated'"),
        (replace(STATIC, clip="mse"), "without clipping"),
    ],
)
def test_schemes_beyond_it_are_refused(scheme: Scheme, reason: str) -> None:
    with pytest.raises(NotQuantizableError, match=reason):
        quantized(deployed("small_cnn"), scheme, batches())


def test_its_engine_may_be_named() -> None:
    description = made(replace(STATIC, engine="cpu")).description
    assert description.engine == f"onnxruntime {onnxruntime.__version__} CPUExecutionProvider"
    assert description.observer == "MinMaxCalibrater (activations), min and max (weights)"
