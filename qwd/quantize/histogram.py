"""Every figure of a tensor of 16 or 8 bits from how often each bit pattern occurs.

There are 65,536 patterns or 256, whatever the size of the tensor: one pass counts them, and all
else is arithmetic on a short list of values and counts.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwd.quantize.kernels_loading import kernels
from qwd.quantize.outliers import SIGMAS
from qwd.quantize.statistics_assembly import Found, Moments, constant
from qwd.quantize.statistics_order import Counted
from qwd.quantize.statistics_passes import Codes
from qwd.quantize.statistics_source import pieces

LEAST = 2**17
"""elements from which it is faster than float32"""
TASK = 2**23
"""elements that a thread counts at a time"""
CHUNK = 2**18
"""elements that NumPy counts at a time"""


def found(w: Tensor, bits: tuple[int, ...], threads: int) -> tuple[Found, Counted | None]:
    """All that is read from a tensor of a format with 16 or 8 bits, and its elements in order."""
    integers = torch.uint16 if w.element_size() == 2 else torch.uint8
    counts = count(w.view(integers), threads)
    every = torch.from_numpy(np.arange(counts.size, dtype=f"uint{8 * w.element_size()}"))
    values = every.view(w.dtype).double().numpy()
    nan, inf = int(counts[np.isnan(values)].sum()), int(counts[np.isinf(values)].sum())
    there = (counts > 0) & np.isfinite(values)
    if not there.any():
        return Found(nan, inf, None, None), None
    values, which = np.unique(values[there], return_inverse=True)  # -0.0 is 0.0
    merged = np.zeros(values.size, np.int64)
    np.add.at(merged, which, counts[there])
    order = Counted(values, merged, np.cumsum(merged))
    moments = _moments(order)
    codes = constant(moments, len(bits)) if values.size == 1 else _codes(order, moments, bits)
    return Found(nan, inf, moments, codes), order


def count(patterns: Tensor, threads: int) -> NDArray[np.int64]:
    """How often each number occurs in a uint16 or uint8 tensor: int64 [65536] or [256]."""
    size = 2 ** (8 * patterns.element_size())
    total = np.zeros(size, np.int64)
    engine = kernels(patterns.numel())

    def of(part: NDArray[Any]) -> NDArray[np.int64]:
        counts = np.zeros(size, np.int64)
        if engine:
            engine.patterns(part, counts)
            return counts
        for start in range(0, part.size, CHUNK):
            counts += np.bincount(part[start : start + CHUNK], minlength=size)
        return counts

    for piece in pieces(patterns)():
        parts = [piece[start : start + TASK] for start in range(0, piece.size, TASK)]
        if len(parts) == 1 or threads == 1:
            for part in parts:
                total += of(part)
            continue
        with ThreadPoolExecutor(threads) as pool:
            for counts in pool.map(of, parts):
                total += counts
    return total


def _moments(order: Counted) -> Moments:
    """About the median first: w - median is exact where the mean is large against the spread."""
    n, values = order.n, order.values
    origin = order.at(n // 2)
    distance = values - origin
    shift = float((order.counts * distance).sum()) / n
    squared = np.square(distance - shift)
    second = float((order.counts * squared).sum()) / n
    fourth = float((order.counts * np.square(squared)).sum()) / n
    return Moments(
        n=n,
        a=float(values[0]) + 0.0,
        b=float(values[-1]) + 0.0,
        mean=origin + shift,
        second=second,
        fourth=fourth,
    )


def _codes(order: Counted, moments: Moments, bits: tuple[int, ...]) -> Codes:
    values, n = order.values, order.counts
    counts, errors = [], []
    for width in bits:
        scale = moments.scale(width)
        position = (values - moments.a) / scale
        codes = np.rint(position)
        table = np.zeros(2**width, np.int64)
        np.add.at(table, codes.astype(np.intp), n)
        counts.append(table)
        errors.append(float((n * np.square(position - codes)).sum()) * (scale * scale))
    distance = np.abs(values - moments.mean)
    return Codes(
        counts=tuple(counts),
        errors=tuple(errors),
        zeros=int(n[values == 0].sum()),
        outside=tuple(int(n[distance > k * moments.std].sum()) for k in SIGMAS.values()),
    )
