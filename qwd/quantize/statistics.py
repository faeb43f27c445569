"""The figures of one weight tensor, exact and in about a second per ten million elements.

One sort of a copy in the tensor's own format gives everything that depends on order: extremes,
quartiles, the median absolute deviation, distinct values, and where NaN and infinities lie. Passes
in float64 give the rest, a chunk at a time, because a chunk fits the cache and the tensor in
float64 might not fit the memory. Moments are taken about the median first: w - median is exact
where the mean is large against the spread, and zero, not rounding noise, where all w are equal.
"""

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwd.quantize.arithmetic import Grid, arithmetic_dtype, grid
from qwd.quantize.figures import WeightFigures
from qwd.quantize.outliers import Statistics
from qwd.registry import OUTLIER_RULES

CHUNK = 2**14
"""elements: 128 KiB in float64, so that a chunk and its intermediate results stay in the cache"""

# A name never changes its rule, and looking one up reads what packages are installed.
_rule = functools.cache(OUTLIER_RULES.get)

Array = NDArray[np.floating]
Chunk = NDArray[np.float64]


def weight_figures(w: Tensor) -> WeightFigures:
    """Every figure of one floating-point tensor of any shape and dtype; see `WeightFigures`.

        range = b - a,  scale = range / 255,  std^2 = mean((w - mean)^2)
        kurtosis = mean((w - mean)^4) / std^4 - 3
        sqnr = 10 log10(sum w^2 / sum (w' - w)^2) dB,  w' of `minmax-tensor-w8`
        sqnr expected = 20 log10(255) + 10.79 - 20 log10(range / std)
        entropy = -sum p log2 p over the codes,  crowding = distinct values / codes used

    Computed in float64 over the finite elements, on the CPU. Quartiles are interpolated linearly.
    10.79 is 10 log10(12), for an error uniform over one step has the variance scale^2 / 12.
    """
    dtype = arithmetic_dtype(w.dtype)
    ordered, nan, inf = _finite(np.sort(w.detach().to("cpu", dtype).flatten().numpy()))
    zero = ordered.dtype.type(0)
    zeros = np.searchsorted(ordered, zero, "right") - np.searchsorted(ordered, zero, "left")
    counts: dict[str, Any] = {
        "shape": tuple(w.shape),
        "dtype": str(w.dtype).removeprefix("torch."),
        "numel": w.numel(),
        "nan": nan,
        "inf": inf,
        "zeros": int(zeros),
    }
    if not ordered.size:
        return _without_elements(counts)
    distinct = 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))
    ordered, exponent = _within_reach(ordered)

    a, b = float(ordered[0]) + 0.0, float(ordered[-1]) + 0.0  # + 0.0 makes -0.0 the number 0
    ends = torch.tensor([a, b], dtype=torch.float64)
    lattice = grid(*ends, kind="minmax")
    scale = float(lattice.scale)
    mean, second, fourth = _moments(ordered)
    std = math.sqrt(second)
    of = Statistics(mean=mean, std=std, mad=_mad(ordered), **_quartiles(ordered))
    per_code, signal, error = _rounding(ordered, lattice)
    ratio = (b - a) / std if std else None

    def in_weights(figure: float) -> float | None:
        with np.errstate(over="ignore"):
            return _existing(float(np.ldexp(figure, exponent)))

    return WeightFigures(
        **counts,
        a=in_weights(a),
        b=in_weights(b),
        range=in_weights(b - a),
        scale=in_weights(scale),
        zero_point=int(grid(*ends.to(dtype), kind="affine").zero_point),
        mean=in_weights(mean),
        std=in_weights(std),
        q1=in_weights(of.q1),
        median=in_weights(of.median),
        q3=in_weights(of.q3),
        mad=in_weights(of.mad),
        range_over_std=ratio,
        kurtosis=fourth / second**2 - 3 if second else None,
        sqnr_db=sqnr_db(signal, error),
        sqnr_expected_db=expected_sqnr_db(ratio) if ratio else None,
        rmse_over_scale=math.sqrt(error / ordered.size) / scale if scale else None,
        codes_used=per_code.size,
        entropy_bits=_entropy(per_code / ordered.size),
        crowding=distinct / per_code.size,
        outliers=_outliers(ordered, of),
    )


def sqnr_db(signal: float, error: float) -> float | None:
    """10 log10(signal / error) in dB, of two sums of squares; None where either is 0."""
    return 10 * math.log10(signal / error) if signal and error else None


def expected_sqnr_db(range_over_std: float, bits: int = 8) -> float:
    """SQNR in dB if rounding errors are uniform over a step and the mean of the weights is 0."""
    return 20 * math.log10(2**bits - 1) + 10 * math.log10(12) - 20 * math.log10(range_over_std)


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
    return _existing(sum(n * r for n, r in zip(sizes, ranges, strict=True)) / sum(sizes))


def _finite(ordered: Array) -> tuple[Array, int, int]:
    """The finite part of a sorted array, and how many NaN and infinities stood around it."""
    # NumPy sorts NaN behind everything.
    number = ordered.dtype.type  # of another type it would be compared with a converted array
    numbers = int(np.searchsorted(ordered, number("nan")))
    first = int(np.searchsorted(ordered, number("-inf"), "right"))
    last = int(np.searchsorted(ordered, number("inf"), "left"))
    return ordered[first:last], ordered.size - numbers, first + numbers - last


def _within_reach(ordered: Array) -> tuple[Array, int]:
    """The array times 2^-exponent, with fourth powers that float64 can hold.

    Only float64 weights beyond 2^+-200 need it; a power of two changes no figure that is a ratio.
    """
    _, exponent = np.frexp(np.float64(max(-ordered[0], ordered[-1])))
    if abs(int(exponent)) <= 200:
        return ordered, 0
    return np.ldexp(ordered, -exponent), int(exponent)


def _chunks(ordered: Array) -> Iterator[Chunk]:
    for start in range(0, ordered.size, CHUNK):
        yield ordered[start : start + CHUNK].astype(np.float64)


def _moments(ordered: Array) -> tuple[float, float, float]:
    """Mean, and second and fourth central moment."""
    n = ordered.size
    origin = _quantile(ordered, 0.5)
    shift = math.fsum(float((chunk - origin).sum()) for chunk in _chunks(ordered)) / n
    second = fourth = 0.0
    for chunk in _chunks(ordered):
        distance = chunk - origin - shift
        distance *= distance
        second += float(distance.sum())
        fourth += float(np.square(distance).sum())
    return origin + shift, second / n, fourth / n


def _quantile(ordered: Array, q: float) -> float:
    place = (ordered.size - 1) * q
    below = math.floor(place)
    low, high = float(ordered[below]), float(ordered[min(below + 1, ordered.size - 1)])
    return low + (high - low) * (place - below)


def _quartiles(ordered: Array) -> dict[str, float]:
    return {
        name: _quantile(ordered, q) for name, q in [("q1", 0.25), ("median", 0.5), ("q3", 0.75)]
    }


def _mad(ordered: Array) -> float:
    """Median of |w - median|, without computing all of them.

    The m elements nearest to the median stand side by side in the sorted array; bisection finds
    where they begin, and the farther of their two ends is the m-th smallest deviation.
    """
    n = ordered.size
    median = _quantile(ordered, 0.5)

    def smallest(m: int) -> float:
        first, last = 0, n - m
        while first < last:
            middle = (first + last) // 2
            if median - float(ordered[middle]) > float(ordered[middle + m]) - median:
                first = middle + 1
            else:
                last = middle
        return max(median - float(ordered[first]), float(ordered[first + m - 1]) - median)

    return smallest((n + 1) // 2) / 2 + smallest(n // 2 + 1) / 2


def _rounding(ordered: Array, lattice: Grid) -> tuple[NDArray[np.int64], float, float]:
    """How many elements each used code stands for; sum of w^2 and of (w' - w)^2."""
    counts = np.zeros(2**lattice.bits, dtype=np.int64)
    signal = error = 0.0
    with _one_thread():
        for chunk in _chunks(ordered):
            w = torch.from_numpy(chunk)
            codes = lattice.codes(w)
            counts += np.bincount(codes.numpy(), minlength=counts.size)
            lost = (lattice.values(codes) - w).numpy()
            signal += float(np.square(chunk).sum())
            error += float(np.square(lost).sum())
    return counts[counts > 0], signal, error


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    # torch.round starts threads for a chunk, which wait for each other longer than they compute.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _outliers(ordered: Array, of: Statistics) -> dict[str, int | None]:
    """Count per rule; None where the rule has no threshold."""
    tests = {name: _rule(name)(of) for name in OUTLIER_RULES.names()}
    counts = {name: 0 for name, test in tests.items() if test is not None}
    for chunk in _chunks(ordered):
        for name in counts:
            counts[name] += int(np.count_nonzero(tests[name](chunk)))
    return {name: counts.get(name) for name in tests}


def _entropy(shares: Chunk) -> float:
    return abs(float(shares @ np.log2(shares)))


def _existing(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None


def _without_elements(counts: dict[str, Any]) -> WeightFigures:
    none: dict[str, Any] = dict.fromkeys(field.name for field in fields(WeightFigures))
    unknown = dict.fromkeys(OUTLIER_RULES.names())
    return WeightFigures(**{**none, **counts, "codes_used": 0, "outliers": unknown})
