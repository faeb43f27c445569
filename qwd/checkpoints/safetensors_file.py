"""Safetensors files: the library's validation, and beside it what it lets through.

    8 bytes    length of the header, little-endian
    header     JSON: name -> {dtype, shape, data_offsets}, __metadata__: text -> text
    bytes      of the tensors, one after another, nothing between

Checked here as well: no key twice (the library keeps the last), a header of at most 16 MiB, shapes
and spans of integers that agree without overflow, and the checksums of files that qwd wrote. The
tensors are mapped, not copied. Format: the README of huggingface/safetensors.
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from qwd.checkpoints.claims import LARGEST, MOST_DIMENSIONS, MOST_TENSORS
from qwd.checkpoints.formats import LEGACY, described
from qwd.checkpoints.opening import Opened, opened
from qwd.checkpoints.refused import RefusedError, reading
from qwd.checkpoints.seal import KEY, SEALED, check_seal, seal
from qwd.checkpoints.strict_json import LARGEST as LARGEST_HEADER
from qwd.checkpoints.strict_json import parsed

RIGHT = "a whole safetensors file"
LENGTH = 8
METADATA = "__metadata__"
ITEMSIZES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0"), 1),
}
"""bytes of an element by the format's name of the dtype"""


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, on the CPU and mapped, and its metadata without qwd's checksums.

    Raises InputError where it is missing, damaged, no such file, or changed since qwd wrote it.
    """
    from safetensors import safe_open

    with reading(path, " as safetensors", RIGHT):
        file = opened(path)
        header = _header(file)
        sealed = SEALED.search(header) is not None
        with safe_open(path, framework="pt") as content:
            metadata = dict(content.metadata() or {})
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        file.still_the_same()
        if sealed:
            check_seal(tensors, metadata)
        metadata.pop(KEY, None)
        return tensors, metadata


def pack_weights(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of ``tensors`` with ``metadata`` and a checksum of each tensor."""
    from safetensors.torch import save

    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    return save(plain, {**(metadata or {}), KEY: seal(plain, metadata or {})})


def write_weights(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `pack_weights` to ``path``, which is replaced; raises OSError.

    ``qwd.files.write_atomically(path, lambda file: write_weights(file, tensors))`` loses nothing.
    """
    path.write_bytes(pack_weights(tensors, metadata))


def _header(file: Opened) -> bytes:
    """The header of a file, checked; RefusedError where it is damaged."""
    data = file.data
    length = int.from_bytes(data[:LENGTH], "little")
    start = LENGTH + length
    if data[: len(LEGACY)] == LEGACY or data[LENGTH : LENGTH + 1] != b"{":
        raise RefusedError(described(data))
    if length > LARGEST_HEADER:
        raise RefusedError(f"its header claims {length:,} bytes", f"at most {LARGEST_HEADER:,}")
    if start > len(data):
        raise RefusedError("its header is cut off")
    header = bytes(data[LENGTH:start])
    entries = parsed(header)
    if not isinstance(entries, dict):
        raise RefusedError("its header is no JSON object")
    metadata = entries.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise RefusedError("its metadata is not text by text")
    if len(entries) > MOST_TENSORS:
        raise RefusedError(f"it has more than {MOST_TENSORS:,} tensors")
    _check_spans(sorted(_span(name, entry) for name, entry in entries.items()), len(data) - start)
    return header


def _span(name: str, entry: Any) -> tuple[int, int]:
    """Where a tensor begins and ends, as many bytes as its shape and dtype take."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise RefusedError(f"the entry of {name!r:.80} is damaged")
    if dtype not in ITEMSIZES:
        raise RefusedError(
            f"{name!r:.80} is of dtype {dtype!r:.20}", f"one of {', '.join(ITEMSIZES)}"
        )
    whole = len(shape) <= MOST_DIMENSIONS and all(type(n) is int and n >= 0 for n in shape)
    if not whole or len(entry) != 3 or prod(max(n, 1) for n in shape) > LARGEST:
        raise RefusedError(f"{name!r:.80} claims the shape {shape!r:.80}")
    if start < 0 or end - start != prod(shape) * ITEMSIZES[dtype]:
        raise RefusedError(
            f"{name!r:.80} of shape {shape!r:.80} and dtype {dtype} claims {end - start:,} bytes"
        )
    return start, end


def _check_spans(spans: list[tuple[int, int]], size: int) -> None:
    position = 0
    for start, end in spans:
        if start != position:
            raise RefusedError("its tensors overlap, or bytes of no tensor lie between them")
        position = end
    if position != size:
        raise RefusedError(f"its tensors claim {position:,} bytes and it has {size:,} for them")
