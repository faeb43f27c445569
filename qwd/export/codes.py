"""Weights as integer codes in a safetensors file, and back: qwd's file of quantized weights.

A weight called ``conv.weight`` is stored as

    conv.weight             codes: int8, or uint8 for minmax, in the shape of the weight
    conv.weight.scale       0-d, or [C] for one scale per channel: float32 where that holds the
                            exact value, else float64
    conv.weight.zero_point  int8, shape of the scale; minmax has conv.weight.a, float64, instead

and stands for w' = (q - zero_point) * scale, or a + q * scale under minmax: the values of
`qwd.quantize.arithmetic.quantize`, to the last bit. Tensors that stayed in float (biases,
normalisation) are stored as they are. The file's metadata are texts; ``weights`` among them is
JSON and has, by weight, ``kind``, ``bits``, ``axis`` (null: one scale for all), ``arithmetic`` (in
which w' was computed) and ``dtype`` (of w').
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qwd.checkpoints import pack_weights, read_safetensors
from qwd.errors import InputError
from qwd.export.formats import MARK, VERSION
from qwd.quantize.arithmetic import Grid, Quantized, code_range
from qwd.quantize.schemes import BITS, KINDS, Kind

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, kw_only=True)
class Coded:
    """A weight as it is stored."""

    quantized: Quantized
    kind: Kind
    bits: int
    axis: int | None
    arithmetic: torch.dtype
    """of the grid, as `qwd.quantize.arithmetic.arithmetic_dtype` gives it"""


def contents(
    weights: Mapping[str, Coded], others: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> bytes:
    """The bytes of a file with these weights as codes, ``others`` as they are, and metadata.

    Raises InputError for a weight that is not finite, which no code stands for, and where two
    tensors would have one name.
    """
    stored: dict[str, Tensor] = dict(others)
    for name, weight in weights.items():
        if not weight.quantized.values.isfinite().all():
            raise InputError(f"{name} has elements that are not finite: no code stands for them")
        for part, tensor in _parts(weight).items():
            if name + part in stored:
                raise InputError(
                    f"two tensors are called {name + part!r}: they cannot share a file"
                )
            stored[name + part] = tensor
    layout = {
        MARK: VERSION,
        "weights": json.dumps({name: _description(weight) for name, weight in weights.items()}),
    }
    return pack_weights(stored, {**metadata, **layout})


def load(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file that ``qwd export --format safetensors`` wrote, dequantized.

        w' = (q - zero_point) * scale,  minmax: w' = a + q * scale

    bitwise the ``values`` of `qwd.quantize.arithmetic.quantize`, float32 or float64, on the CPU, by
    the names of the deployed network (BatchNorm folded), whose ``load_state_dict`` takes them.
    Tensors that stayed in float are as they were.

    Raises InputError where the file is missing, damaged, not of this layout, or holds codes, scales
    or zero points that no quantization gives.
    """
    path = Path(path)
    stored, metadata = read_safetensors(path)
    try:
        return _dequantized(stored, metadata)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _parts(weight: Coded) -> dict[str, Tensor]:
    """The tensors that a weight is stored as, by the end of their names."""
    found, kind = weight.quantized, weight.kind
    codes = found.codes.to(_code_dtype(kind))
    narrow = found.scale.float()
    exact = bool((narrow.double() == found.scale).all())
    parts = {"": codes, ".scale": narrow if exact else found.scale}
    if kind == "minmax":
        return {**parts, ".a": found.a}
    return {**parts, ".zero_point": found.zero_point.to(torch.int8)}


def _code_dtype(kind: Kind) -> torch.dtype:
    return torch.uint8 if kind == "minmax" else torch.int8


def _description(weight: Coded) -> dict[str, Any]:
    return {
        "kind": weight.kind,
        "bits": weight.bits,
        "axis": weight.axis,
        "arithmetic": str(weight.arithmetic).removeprefix("torch."),
        "dtype": str(weight.quantized.values.dtype).removeprefix("torch."),
    }


def _dequantized(stored: dict[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors by name; ValueError says what is wrong with what is stored."""
    if metadata.get(MARK) != VERSION:
        raise ValueError(
            f"expected a file of `qwd export`, with metadata {MARK} {VERSION}; "
            f"it has {metadata.get(MARK, 'none')!r:.40}"
        )
    try:
        descriptions = json.loads(metadata.get("weights", ""))
    except (ValueError, RecursionError):
        raise ValueError("its metadata `weights` is not JSON") from None
    if not isinstance(descriptions, dict):
        raise ValueError("its metadata `weights` is no JSON object")
    parts = {n + p for n in descriptions for p in ("", ".scale", ".zero_point", ".a")}
    found = {name: tensor for name, tensor in stored.items() if name not in parts}
    for name, description in descriptions.items():
        try:
            found[name] = _weight(name, stored, description)
        except ValueError as error:
            raise ValueError(f"{name!r:.80}: {error}") from None
    return found


def _weight(name: str, stored: Mapping[str, Tensor], description: Any) -> Tensor:
    """One weight dequantized; ValueError where its parts do not fit together."""
    kind, bits, axis, arithmetic, dtype = _described(description)
    codes = _part(stored, name, (_code_dtype(kind),))
    lowest, highest = (0, 2**bits - 1) if kind == "minmax" else code_range(bits)
    if codes.numel() and not lowest <= int(codes.min()) <= int(codes.max()) <= highest:
        raise ValueError(f"expected codes from {lowest} to {highest}")
    if axis is not None and axis >= codes.ndim:
        raise ValueError(f"axis {axis} of codes of {codes.ndim} dimensions")
    shape = () if axis is None else (codes.shape[axis],)
    scale = _part(stored, f"{name}.scale", tuple(DTYPES.values()), shape).double()
    if not (scale.isfinite() & (scale >= 0)).all():
        raise ValueError("expected scales that are finite and not negative")
    zero_point = torch.zeros(shape, dtype=torch.int64)
    a = torch.zeros(shape, dtype=torch.float64)
    if kind == "minmax":
        a = _part(stored, f"{name}.a", (torch.float64,), shape)
        if not a.isfinite().all():
            raise ValueError("expected lower ends `a` that are finite")
    else:
        zero_point = _part(stored, f"{name}.zero_point", (torch.int8,), shape).long()
        if zero_point.numel() and not (
            lowest <= int(zero_point.min()) <= int(zero_point.max()) <= highest
        ):
            raise ValueError(f"expected zero points from {lowest} to {highest}")
    along = [-1 if d == axis else 1 for d in range(codes.ndim)] if axis is not None else ()
    scale, zero_point, a = scale.reshape(along), zero_point.reshape(along), a.reshape(along)
    grid = Grid(
        kind=kind,
        bits=bits,
        dtype=arithmetic,
        a=a,
        b=a,  # the upper end follows from the scale
        scale=scale,
        zero_point=zero_point,
        wide=_wide(scale, bits) & (arithmetic == torch.float32),
    )
    return grid.values(codes.int()).to(dtype)


def _wide(scale: Tensor, bits: int) -> Tensor:
    """Where the grid's points are in float64 although the weights are not; see `Grid.wide`."""
    limits = torch.finfo(torch.float32)
    beyond = (scale < limits.tiny) | (scale * 2**bits > limits.max)
    return (scale > 0) & (beyond | (scale.float().double() != scale))


def _described(value: Any) -> tuple[Kind, int, int | None, torch.dtype, torch.dtype]:
    """Kind, bits, axis, dtype of the arithmetic and dtype of w'; ValueError otherwise."""
    keys = {"kind", "bits", "axis", "arithmetic", "dtype"}
    if not isinstance(value, dict) or set(value) != keys:
        raise ValueError(f"expected a description with {', '.join(sorted(keys))}")
    kind, bits, axis = value["kind"], value["bits"], value["axis"]
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r:.40}: expected one of {', '.join(KINDS)}")
    if type(bits) is not int or bits not in BITS:
        raise ValueError(f"bits {bits!r:.40}: expected {BITS[0]} to {BITS[-1]}")
    if axis is not None and (type(axis) is not int or axis < 0):
        raise ValueError(f"axis {axis!r:.40}: expected null or a whole number of at least 0")
    for key in ("arithmetic", "dtype"):
        if value[key] not in list(DTYPES):
            raise ValueError(f"{key} {value[key]!r:.40}: expected one of {', '.join(DTYPES)}")
    return kind, bits, axis, DTYPES[value["arithmetic"]], DTYPES[value["dtype"]]


def _part(
    stored: Mapping[str, Tensor],
    name: str,
    dtypes: tuple[torch.dtype, ...],
    shape: tuple[int, ...] | None = None,
) -> Tensor:
    """A stored tensor of one of these dtypes and this shape; ValueError otherwise."""
    if name not in stored:
        raise ValueError(f"{name!r:.80} is missing")
    tensor = stored[name]
    if tensor.dtype not in dtypes:
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        found = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(f"{name!r:.80} is {found}, expected {wanted}")
    if shape is not None and tuple(tensor.shape) != shape:
        raise ValueError(f"{name!r:.80} has shape {list(tensor.shape)}, expected {list(shape)}")
    return tensor
