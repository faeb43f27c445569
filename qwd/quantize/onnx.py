"""ONNX Runtime: static quantization to a QDQ model, run in a real session on the CPU.

The float network is exported to ONNX; onnxruntime.quantization places QuantizeLinear and
DequantizeLinear around the operators that have integer kernels, and lays the grids of activations,
uint8 with a zero point, over their exact minimum and maximum. A ReLU is left to the grid behind it,
which ends at 0; slices, pads and max pools keep the grid of their input; a mean gets its own.

The weights get the scales, zero points and codes of `qwd.quantize.arithmetic`: ONNX Runtime's own
symmetric scale is max|w| / 127, and its narrowest weights have 4 bits. Codes of fewer than 8 bits
are stored in int8. Biases are int32 codes, in steps of input scale * weight scale.

In a session convolutions become QLinearConv and linear layers QGemm or QLinearMatMul, with zero
points per tensor in any version of ONNX Runtime. Zero points that differ from channel to channel
(affine, per channel) run on these kernels from 1.27 on, where earlier versions refuse such
convolutions; depthwise ones are then slower than in float. Transposed convolutions have no integer
kernel and compute in float with the values of the codes.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qwd.errors import StorageError, reason
from qwd.quantize import onnx_session
from qwd.quantize.arithmetic import quantize
from qwd.quantize.backend import (
    Backend,
    Description,
    NotQuantizableError,
    check_integer_kernels,
)
from qwd.quantize.onnx_extra import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    onnx,
    quantize_static,
)
from qwd.quantize.onnx_graph import (
    arrays,
    dequantizers,
    exported,
    rename_initializers,
    replace_initializer,
    storable_scale,
    store_integer_biases,
    weight_uses,
)
from qwd.quantize.onnx_session import INPUT, OnnxNetwork
from qwd.quantize.parameter_names import layers_of, left_float, parameter_names
from qwd.quantize.quiet import quiet
from qwd.quantize.schemes import Scheme

LEFT_ALONE = (
    # Their vectors are no weights, and no integer kernel has them.
    *("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"),
    # An average would lie on the grid of what it averages, whose range is wider.
    "AveragePool",
)
"""Operators that compute in float."""

CODES = "_quantized"
"""what ONNX Runtime appends to the name of an initializer that it quantizes"""


@dataclass
class Prepared:
    """A float ONNX model, and what `OnnxRuntime.convert` needs beside it."""

    model: Any
    network: nn.Module
    scheme: Scheme
    example: Tensor
    batches: list[Tensor] = field(default_factory=list)


class Converted(OnnxNetwork):
    """A QDQ model: ``model_bytes`` is the serialized ``onnx.ModelProto``; calling it runs it."""

    def __init__(self, model_bytes: bytes, description: Description):
        super().__init__(model_bytes)
        self.description = description


@dataclass(frozen=True)
class Weight:
    """A weight as a QDQ model holds it."""

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    """0-d, or [C] along ``axis``; positive"""
    zero_point: NDArray[np.int8]
    axis: int | None


class OnnxRuntime(Backend):
    """ONNX Runtime static quantization (QDQ), integer kernels on the CPU."""

    def check(self, scheme: Scheme) -> None:
        """NotQuantizableError where a scheme is none that ONNX Runtime computes."""
        check_integer_kernels(scheme, "ONNX Runtime")
        if scheme.engine not in (None, "cpu"):
            raise NotQuantizableError(
                f"the backend 'onnx' has no engine {scheme.engine!r}; it has cpu"
            )

    def prepare(self, network: nn.Module, scheme: Scheme, example: Tensor) -> Prepared:
        """Export the network to ONNX; see `qwd.quantize.backend.Backend`."""
        return Prepared(exported(network, example), network, scheme, example)

    def calibrate(self, prepared: Prepared, batches: Sequence[Tensor]) -> None:
        """Keep the images for `convert`, where ONNX Runtime finds the ranges."""
        prepared.batches.extend(batches)

    def convert(self, prepared: Prepared) -> Converted:
        """The QDQ model; see `qwd.quantize.backend.Backend`."""
        scheme, network = prepared.scheme, prepared.network
        narrow = onnx_session.accumulators_saturate()
        values = arrays(prepared.model)
        weights = {
            name: _own(values[name], axis, scheme) for name, axis in weight_uses(prepared.model)
        }
        model = _quantized(prepared, weights, narrow)
        stored = _store_own_codes(model, weights)
        parameters = parameter_names(network, {name: values[name] for name in stored})
        behind = [n for w in store_integer_biases(model) for n in parameters[w.removesuffix(CODES)]]
        rename_initializers(model, _renamed(parameters))
        notes = []
        if narrow:
            notes.append(
                f"{scheme.name}: 8-bit activations saturate in ONNX Runtime on this processor "
                "(no VNNI), so they were cut to 7 bits"
            )
        if behind:
            notes.append(
                f"{scheme.name}: the biases of {', '.join(layers_of(network, behind))} need more "
                "than 32 bits beside such small weights: computed in float, with the codes' values"
            )
        quantized = layers_of(network, [n for w in stored for n in parameters[w] or [w]])
        description = Description(
            activation_bits=7 if narrow else 8,
            engine=onnx_session.engine(),
            observer="MinMaxCalibrater (activations), min and max (weights)",
            quantized=tuple(quantized),
            left_float=tuple(left_float(network, quantized)),
            warnings=tuple(notes),
        )
        converted = Converted(model.SerializeToString(), description)
        try:
            converted(prepared.example[:1])
        except Exception as error:
            raise NotQuantizableError(
                f"ONNX Runtime cannot run the quantized network: {reason(error)}"
            ) from error
        return converted

    def describe(self, converted: Converted) -> Description:
        """What became of the network, as found in its model."""
        return converted.description


class _Images(CalibrationDataReader):
    def __init__(self, batches: Sequence[Tensor]):
        self.rest = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:  # type: ignore[override]
        images = next(self.rest, None)
        return None if images is None else {INPUT: images.cpu().numpy()}


def _own(values: NDArray[Any], axis: int, scheme: Scheme) -> Weight:
    """A weight under a scheme: what `qwd.quantize.arithmetic` makes of it, in storable numbers."""
    along = axis if scheme.granularity == "channel" else None
    own = quantize(torch.tensor(values), kind=scheme.kind, bits=scheme.weight_bits, axis=along)
    scale = storable_scale(own.scale, own.scale == 0)
    return Weight(
        codes=own.codes.to(torch.int8).numpy(),
        scale=scale.numpy(),
        zero_point=own.zero_point.to(torch.int8).numpy(),
        axis=along,
    )


def _quantized(prepared: Prepared, weights: Mapping[str, Weight], narrow: bool) -> Any:
    """The QDQ model that ONNX Runtime makes, with the grids of ``weights`` and float biases."""
    model = prepared.model
    grids: dict[str, list[dict[str, Any]]] = {name: _grid(w) for name, w in weights.items()}
    if narrow:
        constants = {initializer.name for initializer in model.graph.initializer}
        values = [*model.graph.input, *model.graph.value_info, *model.graph.output]
        activations = (v.name for v in values if _is_float(v) and v.name not in constants)
        grids |= {name: [{"reduce_range": True}] for name in activations}
    try:
        with quiet(), tempfile.TemporaryDirectory(prefix="qwd-") as folder:
            source, target = Path(folder, "float.onnx"), Path(folder, "qdq.onnx")
            onnx.save(model, source)
            quantize_static(
                source,
                target,
                _Images(prepared.batches),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=prepared.scheme.granularity == "channel",
                nodes_to_exclude=[n.name for n in model.graph.node if n.op_type in LEFT_ALONE],
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={
                    "ActivationSymmetric": False,
                    "QuantizeBias": False,
                    "QDQDisableWeightAdjustForInt32Bias": True,
                    "TensorQuantOverrides": grids,
                },
            )
            return onnx.load(target)
    except OSError as error:
        raise StorageError(
            f"cannot write to the temporary folder {tempfile.gettempdir()}: "
            f"{error.strerror or reason(error)}"
        ) from error
    except Exception as error:
        raise NotQuantizableError(
            f"ONNX Runtime cannot quantize this network: {reason(error)}"
        ) from error


def _grid(weight: Weight) -> list[dict[str, Any]]:
    """A weight's grid in ONNX Runtime's words: one entry, or one per channel."""
    entry: dict[str, Any] = {"quant_type": QuantType.QInt8}
    if weight.axis is not None:
        entry["axis"] = weight.axis
    pairs = zip(np.atleast_1d(weight.scale), np.atleast_1d(weight.zero_point), strict=True)
    return [{**entry, "scale": scale, "zero_point": zero_point} for scale, zero_point in pairs]


def _is_float(value: Any) -> bool:
    return value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def _store_own_codes(model: Any, weights: Mapping[str, Weight]) -> list[str]:
    """Put the codes of ``weights`` in place of ONNX Runtime's; names of the weights it quantized.

    Its grid has 256 codes whatever the width, so that narrower weights would round to more.
    """
    stored = []
    for node in dequantizers(model).values():
        name = node.input[0].removesuffix(CODES)
        if name in weights and name not in stored:
            replace_initializer(model, node.input[0], weights[name].codes)
            stored.append(name)
    return stored


def _renamed(parameters: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """From the exporter's names of quantized weights and their grids to those of torch."""
    firsts = {name: found[0] for name, found in parameters.items() if found}
    return {
        name + part: first + part
        for name, first in firsts.items()
        if first not in parameters
        for part in (CODES, "_scale", "_zero_point")
    }
