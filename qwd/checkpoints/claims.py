"""What a pickle claims of tensors, held against the bytes that the file has for them.

A tensor is a view: storage, offset, sizes and strides, all of them numbers in the file. torch
trusts sizes that stay inside the storage, so that a stride of 0 makes a terabyte of one element.
Here a tensor has at most as many bytes as its storage, and all tensors together at most
``OVERLAP`` times the bytes of all storages: tied weights pass, a file that takes hours to report
on does not.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import torch

from qwd.checkpoints.refused import RefusedError

OVERLAP = 64
MOST_TENSORS = 100_000
MOST_DIMENSIONS = 32
LARGEST = 1 << 48
"""elements along one dimension"""

_TYPED = {
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Double": torch.float64,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
UNTYPED = "torch.storage UntypedStorage"
STORAGES: Mapping[str, torch.dtype] = {
    **{f"torch {name}Storage": dtype for name, dtype in _TYPED.items()},
    **{f"torch.cuda {name}Storage": dtype for name, dtype in _TYPED.items()},
    UNTYPED: torch.uint8,
}
"""by the name in a pickle; untyped ones count bytes"""
DTYPES: Mapping[str, torch.dtype] = {
    str(dtype).replace("torch.", "torch "): dtype
    for dtype in (
        *_TYPED.values(),
        *(torch.uint16, torch.uint32, torch.uint64),
        *(torch.float8_e4m3fn, torch.float8_e5m2),
        *(torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
    )
}


class Storage:
    """The bytes of one or more tensors."""

    __slots__ = ("dtype", "nbytes")

    def __init__(self, dtype: torch.dtype, nbytes: int):
        self.dtype = dtype
        self.nbytes = nbytes


class Claimed:
    """A tensor that the file describes; its numbers are checked when it is made."""

    __slots__ = ()


class Claims:
    """The storages and tensors of one file.

    ``sizes``: bytes by storage key where the file tells them beforehand (a zip archive); otherwise
    None, and ``limit`` bounds each.
    """

    def __init__(self, sizes: Mapping[str, int] | None, limit: int):
        self.sizes = sizes
        self.limit = limit
        self.storages: dict[str | int, Storage] = {}
        self._tensors = 0
        self._bytes = 0

    def storage(self, dtype: torch.dtype, key: str | int, numel: Any) -> Storage:
        """The storage called ``key`` of ``numel`` elements, which the file must have room for."""
        if not _is_count(numel, self.limit):
            raise RefusedError(f"storage {key!r:.40} claims more elements than the file has bytes")
        if self.sizes is None:
            nbytes = numel * dtype.itemsize
        elif type(key) is not str or key not in self.sizes:
            raise RefusedError(f"the bytes of storage {key!r:.40} are missing")
        else:
            nbytes = self.sizes[key]
        known = self.storages.setdefault(key, Storage(dtype, nbytes))
        if len(self.storages) > MOST_TENSORS:
            raise RefusedError(f"it has more than {MOST_TENSORS:,} storages")
        if known.dtype != dtype:
            raise RefusedError(f"storage {key!r:.40} is of two dtypes")
        if numel != known.nbytes // dtype.itemsize or nbytes != known.nbytes:
            raise RefusedError(
                f"storage {key!r:.40} claims {numel:,} elements of {dtype} and has "
                f"{known.nbytes:,} bytes"
            )
        if nbytes > self.limit:
            raise RefusedError(f"a storage claims {nbytes:,} bytes, more than the file has")
        return known

    def tensor(
        self, storage: Any, offset: Any, shape: Any, strides: Any, dtype: torch.dtype | None
    ) -> Claimed:
        """A view of ``storage``, inside it; ``dtype`` where it is not the storage's."""
        whole = isinstance(storage, Storage) and type(shape) is tuple and type(strides) is tuple
        if not whole or len(shape) != len(strides) or len(shape) > MOST_DIMENSIONS:
            raise RefusedError("a tensor that is not described as torch.save does")
        if not all(_is_count(n, LARGEST) for n in (offset, *shape, *strides)):
            raise RefusedError(f"a tensor claims the shape {shape!r:.80}")
        itemsize = (dtype or storage.dtype).itemsize
        if prod(max(n, 1) for n in shape) > LARGEST:
            raise RefusedError(f"a tensor claims the shape {shape!r:.80}")
        nbytes = prod(shape) * itemsize
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if nbytes and (last + 1) * itemsize > storage.nbytes:
            raise RefusedError(
                f"a tensor of shape {shape!r:.80} reaches beyond the {storage.nbytes:,} bytes "
                "of its storage"
            )
        if nbytes > storage.nbytes:
            raise RefusedError(
                f"a tensor of shape {shape!r:.80} repeats a storage of {storage.nbytes:,} bytes"
            )
        self._tensors += 1
        self._bytes += nbytes
        if self._tensors > MOST_TENSORS:
            raise RefusedError(f"it has more than {MOST_TENSORS:,} tensors")
        return Claimed()

    def check(self) -> None:
        """What holds of all together, once everything is read."""
        if self.sizes is not None and len(self.storages) != len(self.sizes):
            spare = next(key for key in self.sizes if key not in self.storages)
            raise RefusedError(f"the bytes of storage {spare!r:.40} belong to no tensor")
        stored = sum(storage.nbytes for storage in self.storages.values())
        if self._bytes > OVERLAP * stored + (1 << 20):
            raise RefusedError(
                f"its tensors claim {self._bytes:,} bytes and it has {stored:,} for them"
            )


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most
