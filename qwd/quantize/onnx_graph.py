"""From torch to an ONNX graph, and what qwd reads and changes in such graphs."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qwd.errors import reason
from qwd.quantize.backend import NotQuantizableError
from qwd.quantize.onnx_extra import numpy_helper, onnx
from qwd.quantize.onnx_session import INPUT, OUTPUT
from qwd.quantize.program import exported_program
from qwd.quantize.quiet import quiet

OPSET = 20
"""of the ONNX operators; ONNX Runtime knows it since 1.17"""

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The operators that weights are multiplied in."""

LARGEST_BIAS = 2**30
"""of the codes of a bias: half of what 32 bits hold"""

SMALLEST = float(np.finfo(np.float32).tiny)
"""scale that float32 holds in full precision"""

ZEROS_SCALE = 2.0**-20
"""of a weight that is all zeros: its bias has a millionth of the input's scale as step"""


def exported(network: nn.Module, example: Tensor) -> Any:
    """An ``onnx.ModelProto`` of ``network``, which is left as it is.

    ``example`` is a batch of images [N, C, H, W]; the batch dimension stays free, the others are
    fixed. Input and output are named ``images`` and ``logits``. Raises NotQuantizableError where
    torch.export cannot trace the network or ONNX has no words for it.
    """
    try:
        with quiet():
            made: Any = torch.onnx.export(
                exported_program(network, example),
                dynamo=True,
                verbose=False,
                external_data=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
            )
    except Exception as error:
        # A user's network may break tracing or translation in any way; the reason is reported.
        raise NotQuantizableError(
            f"this network cannot be exported to ONNX: {reason(_first_cause(error))}"
        ) from error
    model = made.model_proto
    _forget_its_origin(model)
    return model


def weight_uses(model: Any) -> Iterator[tuple[str, int]]:
    """Names of the float initializers that products take as weights, each with its channel axis.

    The axis is that of the output channels: the first of a convolution, the second of a transposed
    one, that of the columns of a right-hand matrix and of the rows of a left-hand one.
    """
    floats = {i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT}
    ranks = {i.name: len(i.dims) for i in model.graph.initializer}
    seen: set[str] = set()
    for node in model.graph.node:
        if node.op_type not in PRODUCTS:
            continue
        for position in (1, 0):
            name = node.input[position]
            if name not in floats or name in seen or ranks[name] < 2:
                continue
            seen.add(name)
            yield name, _channel_axis(node, position, ranks[name])


def arrays(model: Any) -> dict[str, NDArray[Any]]:
    """The initializers of a model by name."""
    return {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}


def replace_initializer(model: Any, name: str, array: NDArray[Any]) -> None:
    """Give the initializer ``name`` the values, shape and dtype of ``array``."""
    (found,) = (i for i in model.graph.initializer if i.name == name)
    found.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def dequantizers(model: Any) -> dict[str, Any]:
    """The DequantizeLinear nodes of a model by the name of their output."""
    return {n.output[0]: n for n in model.graph.node if n.op_type == "DequantizeLinear"}


def storable_scale(scale: Tensor, zeros: Tensor) -> Tensor:
    """Scales of weights as float32 for a model, shape of ``scale``, all positive.

    ``zeros`` says which of them are of weights that are all zero, which any scale holds. Biases are
    stored in steps of it: the largest of the other channels' suits theirs.
    """
    others = scale[~zeros]
    free = others.max() if others.numel() else torch.tensor(ZEROS_SCALE, dtype=scale.dtype)
    return torch.where(zeros, free, scale).clamp(min=SMALLEST).float()


def store_integer_biases(model: Any) -> list[str]:
    """Turn the float biases of quantized layers into int32 codes, as integer kernels add them.

        q = round(bias / scale),   scale = input scale * weight scale,   zero point 0

    Codes beyond 2^30 would leave no room for the sum of products: such a bias is added in float
    behind the layer, which then has no integer kernel. The names of the weight codes of these
    layers are returned. (Left in its place, ONNX Runtime would clip the bias to 32 bits.)
    """
    values, made_by, behind = arrays(model), dequantizers(model), []
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type not in PRODUCTS or len(node.input) < 3:
            continue
        source, weight = made_by.get(node.input[0]), made_by.get(node.input[1])
        bias = values.get(node.input[2])
        if source is None or weight is None or bias is None or bias.ndim != 1:
            continue
        scale = values[source.input[1]].astype(np.float64) * values[weight.input[1]]
        if scale.ndim:  # of a transposed convolution in groups, the scales are those of one group
            scale = np.tile(scale, len(bias) // len(scale))
        scale = scale.astype(np.float32)
        codes = np.rint(bias / np.maximum(scale, SMALLEST, dtype=np.float64))
        if np.abs(codes).max(initial=0) <= LARGEST_BIAS:
            nodes.insert(0, _dequantized_bias(model, node, codes.astype(np.int32), scale))
        else:
            rank = values[weight.input[0]].ndim
            nodes.append(_bias_behind(model, node, bias, rank))
            behind.append(weight.input[0])
    _set_nodes(model, nodes)
    remove_unused_initializers(model)
    return behind


def rename_initializers(model: Any, names: Mapping[str, str]) -> None:
    """Give initializers other names, wherever they are used; those not in ``names`` keep theirs."""
    for initializer in model.graph.initializer:
        initializer.name = names.get(initializer.name, initializer.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def remove_unused_initializers(model: Any) -> None:
    """Drop the initializers that no node reads."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [i for i in model.graph.initializer if i.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _first_cause(error: Exception) -> Exception:
    """What lies below the advice on torch.onnx that its own errors consist of."""
    while isinstance(error, torch.onnx.OnnxExporterError) and isinstance(
        error.__cause__, Exception
    ):
        error = error.__cause__
    return error


def _dequantized_bias(model: Any, node: Any, codes: NDArray[Any], scale: NDArray[Any]) -> Any:
    name = f"{node.name}.bias"
    inputs = [f"{name}.codes", f"{name}.scale", f"{name}.zero_point"]
    contents = codes, scale, np.zeros_like(scale, dtype=np.int32)
    for each, array in zip(inputs, contents, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(array, each))
    node.input[2] = f"{name}.values"
    return onnx.helper.make_node(
        "DequantizeLinear", inputs, [node.input[2]], name=f"{name}.dequantize", axis=0
    )


def _bias_behind(model: Any, node: Any, bias: NDArray[Any], rank: int) -> Any:
    name = f"{node.name}.bias"
    factor = next((a.f for a in node.attribute if a.name == "beta"), 1.0)
    # One number per channel, the second dimension of an output.
    column = np.float32(factor) * bias.reshape(-1, *[1] * (rank - 2))
    model.graph.initializer.append(numpy_helper.from_array(column, name))
    (output,) = node.output
    node.output[0] = f"{name}.summand"
    del node.input[2:]
    return onnx.helper.make_node("Add", [node.output[0], name], [output], name=f"{name}.add")


def _set_nodes(model: Any, nodes: Sequence[Any]) -> None:
    # They belong to the graph, which forgets them when it is emptied.
    copies = [copy.deepcopy(node) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _channel_axis(node: Any, position: int, rank: int) -> int:
    if node.op_type in ("Conv", "ConvTranspose"):
        return int(node.op_type == "ConvTranspose")
    transposed = any(a.name == f"trans{'AB'[position]}" and a.i for a in node.attribute)
    columns = (position == 1) != transposed
    return rank - 1 if columns else rank - 2


def _forget_its_origin(model: Any) -> None:
    """Remove the stack traces and file names that torch notes beside every node."""
    graph = model.graph
    described = [model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info]
    for part in [*described, *graph.initializer]:
        part.ClearField("doc_string")
        if "metadata_props" in part.DESCRIPTOR.fields_by_name:
            part.ClearField("metadata_props")
