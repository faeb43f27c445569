"""The channels of one weight tensor: their ranges, and what a scale for each is worth.

One scale for a tensor is set by its widest channel; every narrower one is rounded on a coarser grid
than its own range asks for. A scale per channel costs a number per channel and gains

    10 log10(sum (w' - w)^2 with one scale / sum (w' - w)^2 with one per channel) dB,

except that a backend with a smallest scale rounds channels below it more coarsely than that.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwd.quantize.arithmetic import arithmetic_dtype
from qwd.quantize.figures import WeightFigures
from qwd.quantize.kernels_loading import kernels
from qwd.quantize.statistics import sqnr_db, weight_figures
from qwd.quantize.statistics_lanes import Array, Chunk, channel_errors

FLOORS = {"torch observer": 1.19e-7, "torch fused QAT": 6.1e-5, "PT2E": 2.0**-12}
"""The smallest scale of a backend; see `qwd.quantize.floors`"""
TASK = 2**20
"""elements that a thread does at a time, and a copy holds, as long as a channel does not"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelFigures:
    """Figures of `minmax-channel-w<bits>` beside those of `minmax-tensor-w<bits>`.

    A figure that does not exist is None. Elements that are not finite are left out.
    """

    axis: int
    channels: int
    bits: int
    ranges: tuple[float | None, ...]
    """b - a of every channel; None without a finite element or beyond float64"""
    range_median: float | None
    spread: float | None
    """widest range / median of the ranges; None where the median is 0, or beyond float64"""
    dead: tuple[int, ...]
    """channels whose elements are all zero"""
    floored: dict[str, int]
    """per backend of `FLOORS`: channels with a scale above 0 and below its smallest"""
    sqnr_db: float | None
    """10 log10(sum w^2 / sum (w' - w)^2), a scale per channel"""
    sqnr_expected_db: float | None
    """10 log10(std^2 / mean(scale^2 / 12)), the mean over elements, std that of the tensor"""
    tensor_sqnr_db: float | None
    """with one scale"""
    tensor_sqnr_expected_db: float | None
    gain_db: float | None
    """sqnr_db - tensor_sqnr_db"""


def channel_figures(
    w: Tensor,
    axis: int = 0,
    *,
    bits: int = 8,
    of: WeightFigures | None = None,
    threads: int | None = None,
) -> ChannelFigures:
    """The figures of the channels of a floating-point tensor along ``axis``.

    ``axis`` is 0 for convolutions and linear layers, 1 for transposed convolutions. ``of`` are the
    figures of the same tensor at the same width, computed here otherwise. Read once, on the CPU;
    copies hold one channel or 2^20 elements. Raises IndexError for an axis that w does not have.
    """
    if not -w.ndim <= axis < w.ndim:
        raise IndexError(f"the tensor has {w.ndim} axes, there is no axis {axis}")
    axis %= w.ndim
    threads = threads or torch.get_num_threads()
    w = w.detach().cpu()
    if of is None or (bits != 8 and all(each.bits != bits for each in of.widths)):
        of = weight_figures(w, full=False, bits=(bits,), threads=threads)
    at = next((each for each in of.widths if each.bits == bits), of)
    levels = 2**bits - 1
    exponent = _exponent(of)
    a, b, n, errors = _by_channel(w, axis, levels, exponent, threads)
    there = n > 0
    with np.errstate(over="ignore", invalid="ignore"):
        ranges = np.where(there, b - a, np.nan)
    spans = ranges
    if exponent:
        spans = np.where(there, np.ldexp(b, -exponent) - np.ldexp(a, -exponent), np.nan)
    existing = spans[there]
    # numpy.median takes as long as all that is above.
    ordered = np.sort(existing)
    middle = ordered[(ordered.size - 1) // 2 : ordered.size // 2 + 1].tolist()
    median = sum(middle) / len(middle) if middle else None
    spread = float(ordered[-1]) / median if median else math.inf
    error = math.fsum(errors.tolist())
    own = rounding = None
    if of.mean is not None and of.std is not None:
        mean, std = math.ldexp(of.mean, -exponent), math.ldexp(of.std, -exponent)
        total = int(n.sum())
        own = sqnr_db(total * (mean * mean + std * std), error)
        noise = float((n[there] * np.square(existing / levels)).sum()) / 12
        rounding = sqnr_db(total * std * std, noise)
    gained = own - at.sqnr_db if own is not None and at.sqnr_db is not None else None
    with np.errstate(over="ignore"):
        wide = float(np.ldexp(median, exponent)) if median is not None else math.inf
    scales = ranges / levels
    return ChannelFigures(
        axis=axis,
        channels=len(n),
        bits=bits,
        ranges=_existing(ranges),
        range_median=wide if math.isfinite(wide) else None,
        spread=spread if math.isfinite(spread) else None,
        dead=tuple(np.flatnonzero(there & (a == 0) & (b == 0)).tolist()),
        floored={name: int(((scales > 0) & (scales < low)).sum()) for name, low in FLOORS.items()},
        sqnr_db=own,
        sqnr_expected_db=rounding,
        tensor_sqnr_db=at.sqnr_db,
        tensor_sqnr_expected_db=at.sqnr_expected_db,
        gain_db=gained,
    )


def _existing(ranges: Chunk) -> tuple[float | None, ...]:
    if np.isfinite(ranges).all():
        return tuple(ranges.tolist())
    return tuple(r if math.isfinite(r) else None for r in ranges.tolist())


def _exponent(of: WeightFigures) -> int:
    """Of the power of two that keeps squares within float64; only float64 weights need it."""
    _, exponent = math.frexp(max(abs(of.a or 0.0), abs(of.b or 0.0)))
    return exponent if abs(exponent) > 200 else 0


def _by_channel(
    w: Tensor, axis: int, levels: int, exponent: int, threads: int
) -> tuple[Chunk, Chunk, NDArray[np.int64], Chunk]:
    """Per channel: smallest and largest finite element, how many there are, sum of (w' - w)^2.

    The sums are of elements times 2^-exponent, by which the smallest may become 0.
    """
    others = sorted((d for d in range(w.ndim) if d != axis), key=lambda d: -w.stride(d))
    w = w.permute(axis, *others)
    count, size = len(w), w[:1].numel()
    a, b, errors = np.zeros(count), np.zeros(count), np.zeros(count)
    n = np.full(count, size)
    if not w.numel():
        return a, b, np.zeros(count, np.int64), errors
    engine = kernels(w.numel()) if not exponent else None
    dtype = arithmetic_dtype(w.dtype)

    def work(first: int) -> None:
        part = slice(first, first + step)
        rows = w[part].to(dtype, memory_format=torch.contiguous_format)
        x: Array = rows.reshape(len(rows), size).numpy()
        if engine and x.flags.aligned:
            lows, highs = np.empty(len(x), x.dtype), np.empty(len(x), x.dtype)
            engine.channels(x, levels, lows, highs, errors[part])
            a[part], b[part] = lows, highs
        else:
            a[part], b[part], errors[part] = _of_rows(x, levels, exponent)
        for k in np.flatnonzero(np.isnan(errors[part])).tolist():
            kept = x[k][np.isfinite(x[k])]
            n[first + k] = kept.size
            if kept.size:
                found = _of_rows(kept[np.newaxis], levels, exponent)
                a[first + k], b[first + k], errors[first + k] = (float(e[0]) for e in found)
            else:
                a[first + k], b[first + k], errors[first + k] = 0.0, 0.0, 0.0

    step = max(1, TASK // size)
    starts = range(0, count, step)
    if threads == 1 or len(starts) == 1:
        for first in starts:
            work(first)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, starts))
    return a, b, n, errors


def _of_rows(x: Array, levels: int, exponent: int) -> tuple[Array, Array, Chunk]:
    if not exponent:
        return channel_errors(x, levels)
    _, _, errors = channel_errors(np.ldexp(x, -exponent), levels)
    return x.min(axis=1), x.max(axis=1), errors
