"""A quantized network as an ONNX file: QuantizeLinear and DequantizeLinear around its operators."""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qwd.errors import VerificationError, reason
from qwd.export.program import Program, Runs
from qwd.quantize.onnx import CODES
from qwd.quantize.onnx_extra import onnx
from qwd.quantize.onnx_graph import arrays, dequantizers, exported
from qwd.quantize.onnx_session import INPUT, OUTPUT, OnnxNetwork, session


class OnnxFile(Program):
    """Input ``images``, float32 [N, C, H, W], output ``logits``; N is free."""

    timed = "onnxruntime int8"

    def grids(self) -> dict[str, dict[str, Any]]:
        """See `Program.grids`; ``codes`` is the graph's name of the integers."""
        model = onnx.load_model_from_string(self.made.converted.model_bytes)
        values, found = arrays(model), {}
        for node in dequantizers(model).values():
            codes, scale, zero_point = node.input
            if codes not in values or values[codes].dtype not in (np.int8, np.uint8):
                continue  # activations, and biases, whose scale follows from the others
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            found[self._weight(codes.removesuffix(CODES))] = {
                "codes": codes,
                "scale": values[scale].tolist(),
                "zero_point": values[zero_point].tolist(),
                "axis": axis if values[scale].ndim else None,
            }
        return found

    def _weight(self, name: str) -> str:
        """The network's name of a weight; training packs some layers with their activation."""
        inside = re.sub(r"\.0\.(\w+)$", r".\1", name)
        return inside if inside in dict(self.network.named_parameters()) else name

    def content(self, metadata: Mapping[str, str]) -> bytes:
        """See `Program.content`."""
        model = onnx.load_model_from_string(self.made.converted.model_bytes)
        onnx.helper.set_model_props(model, dict(metadata))
        return model.SerializeToString()

    def reopened(self, content: bytes) -> nn.Module:
        """See `Program.reopened`; the model passes ONNX's own checker with shape inference."""
        try:
            onnx.checker.check_model(onnx.load_model_from_string(content), full_check=True)
        except Exception as error:
            raise VerificationError(
                f"nothing was written: ONNX's checker refuses the model: {reason(error)}"
            ) from error
        return Session(content)

    def float_content(self) -> bytes:
        """See `Program.float_content`."""
        return self._float

    @cached_property
    def _float(self) -> bytes:
        return exported(self.network, self.example).SerializeToString()

    def runs(self, content: bytes, images: Tensor) -> Runs:
        """ONNX Runtime on the file and on the network in float32, and torch on the latter."""
        threads = torch.get_num_threads()
        feed = {INPUT: images.numpy()}
        plain, file = (session(b, threads=threads) for b in (self.float_content(), content))
        return {
            "torch float32": lambda: self.network(images),
            "onnxruntime float32": lambda: plain.run([OUTPUT], feed),
            self.timed: lambda: file.run([OUTPUT], feed),
        }


class Session(nn.Module):
    """ONNX Runtime on the bytes of a file."""

    def __init__(self, content: bytes):
        super().__init__()
        self.network = OnnxNetwork(content)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs, float32 [N, classes], for images [N, C, H, W]."""
        return self.network(images)
