"""The packages of the extra `onnx`: the only module that imports them.

Raises UsageError with the install command where one is missing.
"""

from qwd.errors import extra
from qwd.quantize.quiet import quiet

with extra("onnx"), quiet():
    import onnx
    import onnxruntime
    import onnxscript  # what torch.onnx.export is written in
    from onnx import numpy_helper
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

__all__ = [
    "CalibrationDataReader",
    "CalibrationMethod",
    "QuantFormat",
    "QuantType",
    "numpy_helper",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "quantize_static",
]
