"""The figures of one weight tensor, exact, in two passes at about the speed of memory.

The first pass gives the range and the moments, the second, which needs them, the codes and what
lies beyond multiples of the standard deviation. Weights of 16 and 8 bits need one pass: how often
each bit pattern occurs says everything. Asked for in full, a copy in the tensor's own format is
sorted, which gives everything that depends on order: quartiles, the median absolute deviation and
distinct values.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qwd.quantize import histogram, statistics_device
from qwd.quantize.arithmetic import arithmetic_dtype
from qwd.quantize.figures import WeightFigures
from qwd.quantize.kernels_loading import kernels
from qwd.quantize.outliers import SIGMAS
from qwd.quantize.statistics_assembly import (
    FAR,
    Found,
    assemble,
    central,
    constant,
    expected_sqnr_db,
    sqnr_db,
    without_elements,
    zero_point,
)
from qwd.quantize.statistics_lanes import Array
from qwd.quantize.statistics_order import Order, Sorted
from qwd.quantize.statistics_passes import first_pass, second_pass
from qwd.quantize.statistics_source import Source, origin_of, pieces

__all__ = ["expected_sqnr_db", "mean_range", "sqnr_db", "weight_figures"]

CHUNK = 2**14
"""elements: 64 KiB in float32, so that a chunk and its intermediate results stay in the cache"""


def weight_figures(
    w: Tensor, *, full: bool = True, bits: tuple[int, ...] = (8,), threads: int | None = None
) -> WeightFigures:
    """Every figure of one floating-point tensor of any shape and dtype; see `WeightFigures`.

        range = b - a,  scale = range / 255,  std^2 = mean((w - mean)^2)
        kurtosis = mean((w - mean)^4) / std^4 - 3
        sqnr = 10 log10(sum w^2 / sum (w' - w)^2) dB,  w' of `minmax-tensor-w8`
        sqnr expected = 20 log10(255) + 10.79 - 20 log10(range / std)
        entropy = -sum p log2 p over the codes,  crowding = distinct values / codes used

    Computed in float64 over the finite elements, on the CPU, or, if many and without ``full``, on
    the NVIDIA GPU where they are, with another order of the additions. Quartiles are interpolated
    linearly. 10.79 is 10 log10(12), for an error uniform over one step has the variance
    scale^2 / 12.

    Without ``full`` the figures that need the order of the elements are None, and nothing is
    copied: ``w`` may be mapped from a file that is larger than memory. ``bits``, each 2 to 8, asks
    for `WeightFigures.widths` beside 8. ``threads`` is torch's number of threads by default; no
    figure depends on it. Raises ValueError for other widths.
    """
    if not all(width in range(2, 9) for width in bits):
        raise ValueError(f"bits are 2 to 8, not {bits}")
    bits = (8, *(width for width in dict.fromkeys(bits) if width != 8))
    w = w.detach()
    known: dict[str, Any] = {
        "shape": tuple(w.shape),
        "dtype": str(w.dtype).removeprefix("torch."),
        "numel": w.numel(),
    }
    threads = threads or torch.get_num_threads()
    dtype = np.dtype(np.float64 if w.dtype == torch.float64 else np.float32)
    found, order = _read(w, dtype, full, bits, threads)
    known |= {"nan": found.nan, "inf": found.inf}
    if found.moments is None or found.codes is None:
        return without_elements({**known, "zero_point": None})
    known["zero_point"] = zero_point(found.moments.a, found.moments.b, dtype)
    return assemble(found.moments, found.codes, order, bits, known)


def mean_range(weights: Iterable[Tensor]) -> float | None:
    """Mean over tensors of range = b - a, weighted by elements.

    The quick look of every epoch: on the tensors' device, fetched once. None where there are no
    elements or the mean is not finite.
    """
    ends = [(w.numel(), *w.detach().aminmax()) for w in weights if w.numel()]
    if not ends:
        return None
    ranges = torch.stack([(b.double() - a.double()) for _, a, b in ends]).tolist()
    sizes = [numel for numel, _, _ in ends]
    mean = sum(n * r for n, r in zip(sizes, ranges, strict=True)) / sum(sizes)
    return mean if math.isfinite(mean) else None


def _read(
    w: Tensor, dtype: np.dtype, full: bool, bits: tuple[int, ...], threads: int
) -> tuple[Found, Order | None]:
    if _on_gpu(w) and not full and (found := statistics_device.found(w, bits)):
        return found, None
    w = w.cpu()
    if w.element_size() < 4 and w.numel() >= histogram.LEAST:
        found, order = histogram.found(w, bits, threads)
        return found, order if full else None
    return _two_passes(w.to(arithmetic_dtype(w.dtype)), dtype, full, bits, threads)


def _on_gpu(w: Tensor) -> bool:
    return w.is_cuda


def _two_passes(
    w: Tensor, dtype: np.dtype, full: bool, bits: tuple[int, ...], threads: int
) -> tuple[Found, Sorted | None]:
    nan = inf = exponent = 0
    ordered = None
    elements = pieces(w)
    if full:
        ordered, nan, inf = _finite(np.sort(w.numpy(), axis=None))
        array = ordered
        elements = lambda: (array,)  # noqa: E731
    source = Source(elements, dtype, w.numel(), CHUNK, threads, kernels(w.numel()))
    middle = ordered[ordered.size // 2] if ordered is not None and ordered.size else None
    origin = float(middle) if middle is not None else origin_of(source)
    seen = first_pass(source, origin)
    if not seen.n:
        return Found(nan + seen.nan, inf + seen.inf, None, None), None
    exponent = _exponent(seen.a, seen.b)
    if exponent:
        source = replace(source, engine=None, exponent=exponent)
        origin = math.ldexp(origin, -exponent)
        seen = first_pass(source, origin)
    a, b = seen.a + 0.0, seen.b + 0.0  # + 0.0 makes -0.0 the number 0
    moments = central(seen.n, a, b, origin, seen.sums)
    if abs(moments.mean - origin) > FAR * moments.std:
        origin = float(np.clip(dtype.type(moments.mean), a, b))
        seen = first_pass(source, origin)
        moments = central(seen.n, a, b, origin, seen.sums)
    moments = replace(moments, exponent=exponent)
    if a == b:
        codes = constant(moments, len(bits))
    else:
        codes = second_pass(
            source,
            seen,
            levels=[2**width - 1 for width in bits],
            scales=[moments.scale(width) for width in bits],
            mean=moments.mean,
            distances=[k * moments.std for k in SIGMAS.values()],
        )
    if exponent:  # the smallest elements may have become 0
        zeros = sum(piece.size - int(np.count_nonzero(piece)) for piece in source.parts())
        codes = replace(codes, zeros=zeros)
    order = Sorted(ordered, exponent) if ordered is not None else None
    return Found(nan + seen.nan, inf + seen.inf, moments, codes), order


def _finite(ordered: Array) -> tuple[Array, int, int]:
    """The finite part of a sorted array, and how many NaN and infinities stood around it."""
    # NumPy sorts NaN behind everything.
    number = ordered.dtype.type  # of another type it would be compared with a converted array
    numbers = int(np.searchsorted(ordered, number("nan")))
    first = int(np.searchsorted(ordered, number("-inf"), "right"))
    last = int(np.searchsorted(ordered, number("inf"), "left"))
    return ordered[first:last], ordered.size - numbers, first + numbers - last


def _exponent(a: float, b: float) -> int:
    """Of the power of two that makes fourth powers of the elements numbers of float64; mostly 0.

    Only float64 weights beyond 2^+-200 need it; a power of two changes no figure that is a ratio.
    """
    _, exponent = math.frexp(max(-a, b))
    return exponent if abs(exponent) > 200 else 0
