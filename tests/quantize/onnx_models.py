"""Networks that ONNX Runtime quantized, and what is in their models."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

from qwd.quantize.backend import QuantizedNetwork
from qwd.quantize.backend import quantize as quantized
from qwd.quantize.schemes import AO_STATIC, Scheme
from tests.quantize.deployed import batches, deployed

STATIC = replace(AO_STATIC, backend="onnx")


@cache
def made(scheme: Scheme, model: str = "small_cnn") -> QuantizedNetwork:
    return quantized(deployed(model), scheme, batches())


def on_onnx(kind: str, granularity: str, bits: int = 8) -> Scheme:
    return Scheme(kind, granularity, bits, 8, "onnx")  # type: ignore[arg-type]


def model_of(network: QuantizedNetwork) -> Any:
    return onnx.load_model_from_string(network.converted.model_bytes)


def values_of(network: QuantizedNetwork) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in model_of(network).graph.initializer}


def unoptimized(model_bytes: bytes, images: torch.Tensor) -> torch.Tensor:
    """What the nodes of a model compute one by one, in float between the codes."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model_bytes, options, ["CPUExecutionProvider"])
    (outputs,) = session.run(None, {"images": images.numpy()})
    return torch.from_numpy(outputs)
