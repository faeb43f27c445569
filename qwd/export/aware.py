"""Quantization-aware runs: their own grids go into the file, in place of calibrated ones."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from qwd.errors import InputError
from qwd.export.formats import Format
from qwd.quantize import qat
from qwd.quantize.backend import NotQuantizableError, QuantizedNetwork
from qwd.quantize.schemes import Scheme
from qwd.report.subject import Subject
from qwd.train.awareness import qat_scheme
from qwd.train.layout import is_run
from qwd.train.run import read_config


def own_scheme(path: Path, format: Format) -> Scheme | None:
    """The scheme that the run in ``path`` was trained for, where the format holds it.

    None for other runs, checkpoints and formats: their schemes quantize after training.
    """
    if not is_run(path) or not (config := read_config(path)).qat:
        return None
    scheme = replace(qat_scheme(config), backend=format.backend)
    return scheme if format.name == "onnx" and format.holds(scheme) else None


def trained(subject: Subject, example: Tensor) -> tuple[QuantizedNetwork, QuantizedNetwork]:
    """The trained network as ONNX, and as the report measures it: on torch.ao's kernels.

    ``subject`` is a quantization-aware run, ``example`` a batch of its images [N, C, H, W]. Raises
    InputError where the network has no form in ONNX.
    """
    # Where its extra is not installed, nothing but this needs it.
    from qwd.quantize.onnx import Converted, OnnxRuntime
    from qwd.quantize.onnx_session import engine
    from qwd.quantize.qdq import qdq_model

    assert subject.config is not None
    try:
        reported = qat.convert(subject.twin, qat_scheme(subject.config)).network
        content = qdq_model(qat.reference(subject.twin), example)
    except NotQuantizableError as error:
        raise InputError(f"{subject.path}: no export of what was trained: {error}") from error
    description = replace(reported.description, engine=engine())
    made = QuantizedNetwork(OnnxRuntime(), Converted(content, description), description)
    return made, reported
