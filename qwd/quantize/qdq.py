"""From a network with its grids in place, as quantization-aware training leaves it, to ONNX.

Every `qwd.quantize.fake.FakeQuantize` that an activation passes becomes QuantizeLinear and
DequantizeLinear, every one that a weight is parametrized by becomes the weight's codes and a
DequantizeLinear: the arithmetic is the same, and no float copy of a quantized weight is stored.
ONNX Runtime then computes in integers, where an operator stands between such nodes.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from qwd.quantize.arithmetic import code_range
from qwd.quantize.backend import NotQuantizableError
from qwd.quantize.fake import FakeQuantize
from qwd.quantize.onnx_graph import (
    exported,
    rename_initializers,
    storable_scale,
    store_integer_biases,
)

INTEGERS = (torch.uint8, torch.int8)
"""What QuantizeLinear stores, in order of preference"""


def qdq_model(reference: nn.Module, example: Tensor) -> bytes:
    """The serialized QDQ model of a network whose grids are `FakeQuantize` modules.

    ``reference`` is in eval mode, on the CPU, and is left as it is; ``example`` is a batch of
    images [N, C, H, W]. Codes 0..255 are stored as uint8, -128..127 as int8, and narrower ones in
    the same; activations of narrower ones pass a Clip. Weight codes are initializers called
    ``<layer>.weight_quantized``, beside ``_scale`` and ``_zero_point``; of equal initializers one
    is kept. Biases become int32 codes, which is all that ONNX Runtime adds to the arithmetic of the
    reference.

    Raises NotQuantizableError for a network without `FakeQuantize`, for a range of codes that no
    8-bit integer holds, for weights that are changed after they were quantized, and as
    `qwd.quantize.onnx_graph.exported`.
    """
    network = copy.deepcopy(reference).eval()
    names: dict[str, str] = {}
    with torch.no_grad():
        for path, layer in list(network.named_modules()):
            if parametrize.is_parametrized(layer):
                names |= _store_codes(path, layer)
    quantizers = [
        (n, m)
        for n, m in network.named_modules(remove_duplicate=False)
        if isinstance(m, FakeQuantize)
    ]
    if not quantizers and not names:
        raise NotQuantizableError("the network has no FakeQuantize, nothing that becomes codes")
    # One grid may stand in several places, under a name in each.
    made: dict[FakeQuantize, _QuantizeDequantize] = {}
    for path, quantizer in quantizers:
        parent, _, name = path.rpartition(".")
        grid = made.get(quantizer) or made.setdefault(quantizer, _QuantizeDequantize(quantizer))
        setattr(network.get_submodule(parent), name, grid)
    model = exported(network, example)
    rename_initializers(model, names)
    store_integer_biases(model)
    return model.SerializeToString()


class _Dequantize(nn.Module):
    """A parametrization that gives the values of stored codes, whatever the original holds."""

    def __init__(self, quantizer: FakeQuantize, weight: Tensor):
        super().__init__()
        integer, axis = _integer(quantizer), quantizer.axis
        codes = quantizer.codes(weight)
        zeros = quantizer(weight) == 0
        channels = zeros if axis is None else zeros.movedim(axis, 0)
        empty = channels.flatten(0 if axis is None else 1).all(-1)
        self.register_buffer("codes", codes.to(integer))
        self.register_buffer("scale", storable_scale(quantizer.scale, empty))
        self.register_buffer("zero_point", quantizer.zero_point.to(integer))
        self.axis = axis

    codes: Tensor
    scale: Tensor
    zero_point: Tensor

    def forward(self, *originals: Tensor) -> Tensor:
        return _dequantized(self.codes, self.scale, self.zero_point, self.axis)


class _QuantizeDequantize(nn.Module):
    """What an activation passes in place of a `FakeQuantize`."""

    def __init__(self, quantizer: FakeQuantize):
        super().__init__()
        self.integer = _integer(quantizer)
        self.register_buffer("scale", quantizer.scale)
        self.register_buffer("zero_point", quantizer.zero_point.to(self.integer))
        self.axis = quantizer.axis
        limits = torch.iinfo(self.integer)
        self.narrow = (quantizer.qmin, quantizer.qmax) != (limits.min, limits.max)
        self.register_buffer("lowest", torch.tensor(quantizer.qmin, dtype=self.integer))
        self.register_buffer("highest", torch.tensor(quantizer.qmax, dtype=self.integer))

    scale: Tensor
    zero_point: Tensor
    lowest: Tensor
    highest: Tensor

    def forward(self, x: Tensor) -> Tensor:
        codes = _operator("QuantizeLinear", x, self.scale, self.zero_point, self.integer, self.axis)
        if self.narrow:
            codes = _operator("Clip", codes, self.lowest, self.highest, self.integer)
        return _dequantized(codes, self.scale, self.zero_point, self.axis)


def _store_codes(path: str, layer: nn.Module) -> dict[str, str]:
    """Replace the `FakeQuantize` of a layer's parameters by codes; new names of the initializers.

    From the names that torch gives them to those that ONNX Runtime's own models have.
    """
    names = {}
    lists: Any = layer.parametrizations
    for parameter, chain in lists.items():
        places = [i for i, m in enumerate(chain) if isinstance(m, FakeQuantize)]
        if not places:
            continue
        if places != [len(chain) - 1]:
            raise NotQuantizableError(
                f"{path}.{parameter} is changed after it was quantized; FakeQuantize has to be "
                "the last of its parametrizations"
            )
        (at,) = places
        chain[at] = _Dequantize(chain[at], _input_of(chain, layer, parameter))
        old = f"{path}.parametrizations.{parameter}.{at}".lstrip(".")
        new = f"{path}.{parameter}".lstrip(".")
        names |= {
            f"{old}.codes": f"{new}_quantized",
            f"{old}.scale": f"{new}_scale",
            f"{old}.zero_point": f"{new}_zero_point",
        }
    return names


def _input_of(chain: Any, layer: nn.Module, parameter: str) -> Tensor:
    """The weight that the last parametrization of a chain is given."""
    seen: list[Tensor] = []
    handle = chain[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        getattr(layer, parameter)
    finally:
        handle.remove()
    return seen[0]


def _integer(quantizer: FakeQuantize) -> torch.dtype:
    for integer in INTEGERS:
        limits = torch.iinfo(integer)
        if limits.min <= quantizer.qmin <= quantizer.qmax <= limits.max:
            return integer
    lowest, highest = code_range(8)
    raise NotQuantizableError(
        f"codes {quantizer.qmin} to {quantizer.qmax} are beyond 8 bits: ONNX stores 0 to 255 or "
        f"{lowest} to {highest}"
    )


def _dequantized(codes: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None) -> Tensor:
    return _operator("DequantizeLinear", codes, scale, zero_point, torch.float32, axis)


def _operator(
    name: str, x: Tensor, first: Tensor, second: Tensor, dtype: torch.dtype, axis: int | None = None
) -> Tensor:
    """An ONNX operator in the graph that torch.export records; its output has the shape of x."""
    attributes = {} if axis is None else {"axis": axis}
    symbolic: Any = torch.onnx.ops.symbolic
    return symbolic(name, (x, first, second), attrs=attributes, dtype=dtype, shape=x.shape)
