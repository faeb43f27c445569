"""The elements of a tensor as NumPy arrays, without a copy where its memory allows that."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from qwd.quantize.statistics_lanes import Array

COPY = 2**21
"""elements of a piece that has to be copied"""
SAMPLE = 1023
"""elements whose median is near enough to the mean"""


@dataclass(frozen=True)
class Source:
    """A tensor's elements as NumPy arrays, times 2^-exponent; read as often as asked."""

    pieces: Callable[[], Iterable[Array]]
    dtype: np.dtype
    numel: int
    chunk: int
    threads: int
    engine: ModuleType | None
    """the compiled kernels; None for NumPy"""
    exponent: int = 0
    """other than 0 only without kernels"""

    def parts(self) -> Iterator[Array]:
        """The pieces, none of them empty."""
        return (piece for piece in self.pieces() if piece.size)

    def chunks(self, piece: Array) -> int:
        """How many there are in a piece."""
        return -(-piece.size // self.chunk)

    def of(self, piece: Array, k: int) -> Array:
        """Chunk k of a piece."""
        chunk = piece[k * self.chunk : (k + 1) * self.chunk]
        return np.ldexp(chunk, -self.exponent) if self.exponent else chunk


def pieces(w: Tensor) -> Callable[[], Iterable[Array]]:
    """The elements of a strided tensor on the CPU, of a dtype that NumPy has too.

    Nothing is copied where they lie close together, in any order of the dimensions; copies hold
    no more than `COPY` elements, as long as a row does not.
    """
    w = in_order_of_memory(w)
    if w.is_contiguous():
        flat = w.reshape(-1).numpy()
        if flat.flags.aligned:
            return lambda: (flat,)
    return partial(_copies, w)


def in_order_of_memory(w: Tensor) -> Tensor:
    """The dimensions in descending order of their strides: contiguous where no element is apart."""
    if w.is_contiguous():
        return w
    return w.permute(sorted(range(w.ndim), key=lambda d: -w.stride(d)))


def _copies(w: Tensor) -> Iterator[Array]:
    if w.numel() <= COPY or not w.ndim:
        yield w.clone(memory_format=torch.contiguous_format).reshape(-1).numpy()
        return
    row = w.numel() // len(w)
    if row > COPY:
        for part in w:
            yield from _copies(part)
        return
    for part in w.split(max(1, COPY // row)):
        yield part.clone(memory_format=torch.contiguous_format).reshape(-1).numpy()


def origin_of(source: Source) -> float:
    """The median of a sample: an element, near the mean in units of the spread; 0 without any."""
    sample = [np.empty(0, source.dtype)]
    step = max(1, source.numel // SAMPLE)
    first = 0
    for piece in source.parts():
        sample.append(piece[first::step])
        first = (first - piece.size) % step
    drawn = np.concatenate(sample)
    drawn = np.sort(drawn[np.isfinite(drawn)])
    if source.exponent:
        drawn = np.ldexp(drawn, -source.exponent)
    return float(drawn[drawn.size // 2]) if drawn.size else 0.0
