"""ONNX files: what they say of their weights, and what the check of the bytes finds."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from qwd.errors import VerificationError
from qwd.export.formats import FORMATS, scheme_for
from qwd.export.latency import latencies
from qwd.export.metadata import as_texts
from qwd.export.onnx_file import OnnxFile
from qwd.quantize.arithmetic import quantize as grid
from qwd.quantize.backend import quantize
from qwd.train.data import load


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
    made = nn.Sequential(*layers).eval()
    with torch.no_grad():
        made.get_parameter("0.weight")[0] = 0  # a dead channel
    return made


def program(scheme_name: str | None = None) -> OnnxFile:
    scheme = scheme_for(FORMATS["onnx"], scheme_name)
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    model = network()
    return OnnxFile(quantize(model, scheme, [images]), model, scheme, images)


@pytest.mark.parametrize("scheme", [None, "affine-channel-w8-a8", "symmetric-tensor-w3-a8"])
def test_grids_are_the_graphs_and_the_arithmetics(scheme: str | None) -> None:
    made = program(scheme)
    said = made.grids()
    assert set(said) == {"0.weight", "3.weight"}
    model = onnx.load_model_from_string(made.content({}))
    values = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    axis = 0 if "channel" in (scheme or "") else None
    for name, entry in said.items():
        (node,) = [n for n in model.graph.node if n.input[0] == entry["codes"]]
        assert np.array_equal(values[node.input[1]], np.float32(entry["scale"]))
        assert np.array_equal(values[node.input[2]], np.int8(entry["zero_point"]))
        weight = made.network.get_parameter(name)
        own = grid(weight, kind=made.scheme.kind, bits=made.scheme.weight_bits, axis=axis)
        # Zeros have no scale; the file needs one.
        scale = torch.tensor(entry["scale"], dtype=torch.float64)
        assert torch.equal(torch.where(own.scale > 0, scale, 0.0), own.scale)
        assert (scale > 0).all()
        assert np.array_equal(values[node.input[0]], own.codes.numpy())
        assert entry["axis"] == axis


def test_metadata_are_read_back_by_onnxruntime() -> None:
    facts = {"wd": 1e-4, "scheme": "affine", "dose": None, "mean": [0.5], "classes": ["ä", "b"]}
    content = program().content(as_texts(facts))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = session.get_modelmeta().custom_metadata_map
    assert found["scheme"] == "affine"
    assert {k: json.loads(found[k]) for k in facts if k != "scheme"} == {
        k: v for k, v in facts.items() if k != "scheme"
    }
    assert found["qwd_export"] == "1"
    assert session.get_inputs()[0].shape[1:] == [1, 8, 8]


def test_what_is_read_back_is_the_quantized_network() -> None:
    made = program()
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    outputs = made.reopened(made.content({}))(images)
    assert torch.equal(outputs, made.made(images))
    assert not torch.equal(outputs, made.network(images))


def test_what_onnxs_checker_refuses_is_not_written() -> None:
    made = program()
    model = onnx.load_model_from_string(made.content({}))
    model.graph.node[-1].op_type = "NoSuchOperator"
    for content in (model.SerializeToString(), made.content({})[:100], b""):
        with pytest.raises(VerificationError, match="nothing was written: ONNX's checker refuses"):
            made.reopened(content)


def test_latencies_are_of_float_and_of_the_file() -> None:
    made = program()
    data = load("digits")
    content = made.content({})
    measured = latencies(made, content, data.train, (1, 2000), repetitions=2)
    assert [latency.batch_size for latency in measured.latencies] == [1, 2000]
    for latency in measured.latencies:
        *_, file = latency.timed
        assert file.name == made.timed == "onnxruntime int8"
        assert file.ratio.median == 1
        assert all(timed.seconds.median > 0 for timed in latency.timed)
    # What is timed is what it is called.
    images = torch.zeros(2, 1, 8, 8)
    runs = made.runs(content, images)
    (quantized,) = runs["onnxruntime int8"]()  # type: ignore[misc]
    (plain,) = runs["onnxruntime float32"]()  # type: ignore[misc]
    assert torch.equal(torch.from_numpy(quantized), made.made(images))
    with torch.no_grad():
        expected = runs["torch float32"]()
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(torch.from_numpy(plain), expected)
    assert not np.allclose(quantized, plain, atol=1e-6)
