"""The best clip of one weight that may be larger than memory, and what it gains."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from qwd.quantize.arithmetic import arithmetic_dtype, grid
from qwd.quantize.clipping import STEPS, least_of
from qwd.quantize.statistics import sqnr_db

SAMPLE = 2**21
"""elements that the ends are found from"""
PART = 2**17
"""elements of a copy, whose intermediate results stay in the cache"""


def clip_and_sqnr(w: Tensor, a: float, b: float) -> tuple[float, float, float | None]:
    """The ends of the `minmax-tensor-w8` range of least squared error, and the SQNR with it, in dB.

    ``a`` and ``b`` are the smallest and largest finite element of ``w``, which has any shape and
    floating-point dtype. Tried are, for shares r of 1 and less,

        [r a, r b], as `qwd.quantize.clipping.clipped_range` does,
        [max(a, -r m), min(b, r m)] with m = max(-a, b), for outliers on one side.

    For more than `SAMPLE` elements the ends are found from every k-th, counted k times, beside a
    and b themselves. The SQNR is that of all finite elements.
    """
    dtype = arithmetic_dtype(w.dtype)
    values, step = sample(w)
    values = values.sort().values
    counts = torch.full_like(values, step)
    ends = values.new_tensor([a, b])
    if step > 1:
        values = torch.cat([ends[:1], values, ends[1:]])
        counts = torch.cat([torch.ones_like(ends[:1]), counts, torch.ones_like(ends[1:])])
    low, high = _ranges(*ends)
    lo, hi = least_of(values[None], counts[None], low, high, kind="minmax", bits=8)
    lattice = grid(lo, hi, kind="minmax")
    signals, errors = [], []
    for part in _parts(w):
        exact = part.to(dtype)
        exact = exact[exact.isfinite()]
        rounded = lattice.values(lattice.codes(exact.clamp(lo, hi)))
        exact = exact.double()
        signals.append(float(exact.square().sum()))
        errors.append(float(rounded.sub_(exact).square_().sum()))
    return float(lo), float(hi), sqnr_db(math.fsum(signals), math.fsum(errors))


def sample(w: Tensor) -> tuple[Tensor, int]:
    """The finite ones of every k-th element of a tensor, about `SAMPLE` of them at most, and k."""
    step = -(-w.numel() // SAMPLE) | 1  # odd, so that it meets all columns of most matrices
    drawn, first = [], 0
    for part in _parts(w):
        drawn.append(part[first::step].to(arithmetic_dtype(w.dtype)))
        first = (first - part.numel()) % step
    values = torch.cat(drawn)
    return values[values.isfinite()], step


def _ranges(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Ends of the ranges that are tried, [1, 2 STEPS] each, the whole range first."""
    even = torch.arange(STEPS, 0, -1, dtype=a.dtype) / STEPS
    wide = torch.maximum(-a, b) * torch.logspace(0, -2, STEPS, dtype=a.dtype)
    low, high = torch.cat([a * even, -wide]), torch.cat([b * even, wide])
    return low.clamp(a, b)[None], high.clamp(a, b)[None]


def _parts(w: Tensor) -> Iterator[Tensor]:
    """The elements of a tensor as vectors of at most `PART`, in the order of its indices."""
    if w.is_contiguous() or w.numel() <= PART:
        w = w.reshape(-1)
    if w.ndim == 1:
        yield from w.split(PART)
        return
    for row in w:
        yield from _parts(row)
