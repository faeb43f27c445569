"""The checksums that qwd writes into its safetensors files, and what they are held against.

The format has no checksum of its own. qwd adds one metadata entry, ``qwd-crc32``: JSON with a
CRC-32 by tensor name, and under the empty name that of everything else in the header (names,
dtypes, shapes, the other metadata). Each value repeats the mark, so that a damaged entry cannot
pass for a file that never had one.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qwd.checkpoints.checksums import crc32, crc32_each
from qwd.checkpoints.refused import RefusedError, shown

KEY = "qwd-crc32"
SEALED = re.compile(rb"qwd-c|rc32:")
"""either half of the mark, anywhere in a header, says that there are checksums"""


def seal(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """The metadata entry for contiguous tensors on the CPU and the other ``metadata``."""
    return json.dumps({name: f"{KEY}:{crc:08x}" for name, crc in _sums(tensors, metadata).items()})


def check_seal(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """RefusedError where the tensors are not those that the entry in ``metadata`` was made for."""
    others = {key: value for key, value in metadata.items() if key != KEY}
    try:
        told = json.loads(metadata[KEY])
    except (KeyError, ValueError, RecursionError):
        raise RefusedError("its checksums are damaged") from None
    found = _sums(tensors, others)
    if not isinstance(told, dict) or set(told) != set(found):
        raise RefusedError("its checksums are not those of its tensors: it was changed or damaged")
    for name, crc in found.items():
        if told[name] != f"{KEY}:{crc:08x}":
            what = f"{shown(name, 80)!r} does not match its" if name else "its header has another"
            raise RefusedError(f"{what} checksum: it was changed or damaged since qwd wrote it")


def _sums(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, int]:
    header: Any = [
        sorted(metadata.items()),
        sorted((name, str(t.dtype), list(t.shape)) for name, t in tensors.items()),
    ]
    sums = crc32_each([_bytes(tensor) for tensor in tensors.values()])
    return {"": crc32(json.dumps(header).encode()), **dict(zip(tensors, sums, strict=True))}


def _bytes(tensor: Tensor) -> memoryview:
    array: Any = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)
