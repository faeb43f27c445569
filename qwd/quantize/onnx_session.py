"""A serialized ONNX network as something to call, and what this machine's kernels do with it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from qwd.quantize.onnx_extra import onnx, onnxruntime

INPUT, OUTPUT = "images", "logits"
"""names of a network's input and output"""

PROVIDER = "CPUExecutionProvider"

FATAL = 4
"""severity of log lines from which ONNX Runtime prints; errors are raised as well"""


class OnnxNetwork:
    """A serialized ONNX network that runs in ONNX Runtime, on the CPU.

    The session is made at the first call, with as many threads as torch has; copies and pickles
    hold the serialized network alone.
    """

    def __init__(self, model_bytes: bytes):
        self.model_bytes = model_bytes
        self._session: Any = None
        self._threads = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Outputs, float32 [N, classes], for images float32 [N, C, H, W]."""
        threads = torch.get_num_threads()
        if self._session is None or self._threads != threads:
            self._session, self._threads = session(self.model_bytes, threads=threads), threads
        (outputs,) = self._session.run([OUTPUT], {INPUT: images.detach().cpu().numpy()})
        return torch.from_numpy(outputs)

    def __getstate__(self) -> dict[str, Any]:
        # A session cannot be copied.
        return {**self.__dict__, "_session": None, "_threads": 0}


def engine() -> str:
    """What computes, for a report."""
    return f"onnxruntime {onnxruntime.__version__} {PROVIDER}"


def session(model_bytes: bytes, *, threads: int) -> Any:
    """An InferenceSession on the CPU that prints nothing; raises what ONNX Runtime raises."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    return onnxruntime.InferenceSession(model_bytes, options, providers=[PROVIDER])


def accumulators_saturate() -> bool:
    """Whether this machine's kernels lose large sums of 8-bit products.

    Without VNNI, x86 kernels add two products of an unsigned and a signed byte in 16 bits, and
    2 * 255 * 127 does not fit. A convolution, a depthwise one and a matrix product of the largest
    activations and weights show it: their sums must come out whole.
    """
    return any(
        _largest_sum_is_lost(kind, weight_zero_point)
        for kind in ("dense", "depthwise", "matrix")
        for weight_zero_point in (0, -1)
    )


def _largest_sum_is_lost(kind: str, weight_zero_point: int) -> bool:
    channels, size = 32, 3
    window = (size, size) if kind != "matrix" else ()
    if kind == "matrix":
        op, images = "QLinearMatMul", (4, channels)
    else:
        op, images = "QLinearConv", (1, channels, size, size)
    per_sum = 1 if kind == "depthwise" else channels
    weights = np.full((channels, per_sum, *window), 127, np.int8)
    total = 255 * (127 - weight_zero_point) * weights[0].size
    # The scale of the output makes the whole sum its largest code.
    constants = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "w": weights,
        "w_zero_point": np.int8(weight_zero_point),
        "total": np.float32(total / 255),
    }
    inputs = ["x", "one", "zero", "w", "one", "w_zero_point", "total", "zero"]
    integer = onnx.TensorProto.UINT8
    node = onnx.helper.make_node(op, inputs, ["y"])
    if kind == "depthwise":
        node.attribute.append(onnx.helper.make_attribute("group", channels))
    graph = onnx.helper.make_graph(
        [node],
        "largest_sum",
        [onnx.helper.make_tensor_value_info("x", integer, images)],
        [onnx.helper.make_tensor_value_info("y", integer, None)],
        [onnx.numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    runtime = session(model.SerializeToString(), threads=1)
    (found,) = runtime.run(None, {"x": np.full(images, 255, np.uint8)})
    return bool((found != 255).any())
