"""Two passes over a tensor that may be larger than memory: range and moments, then codes.

A tensor is read as pieces: its own memory where the elements lie close together, in whatever order
of its dimensions, else copies of a part at a time. A piece is cut into chunks that fit the cache;
every chunk has its own sums, and `math.fsum` adds those exactly, so that the figures do not depend
on the number of threads. Chunks with NaN or infinities are done again without them.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from qwd.quantize import statistics_lanes as lanes
from qwd.quantize.statistics_lanes import Array
from qwd.quantize.statistics_source import Source

Result = TypeVar("Result")

TASK = 2**20
"""elements that a thread does at a time, about a millisecond"""


@dataclass
class Range:
    """The first pass: what it found over the finite elements, and chunk by chunk."""

    n: int = 0
    """finite elements"""
    nan: int = 0
    inf: int = 0
    a: float = math.inf
    b: float = -math.inf
    sums: list[float] = field(default_factory=list)
    """of (w - origin)^1..4"""
    skip: list[NDArray[np.bool_]] = field(default_factory=list)
    """per piece, [chunks]: those that are not finite throughout"""
    lows: list[Array] = field(default_factory=list)
    """per piece, [chunks]"""
    highs: list[Array] = field(default_factory=list)


def first_pass(source: Source, origin: float) -> Range:
    """Extremes and sums of powers about ``origin``, a number that the source's dtype holds."""
    found = Range()
    terms: list[NDArray[np.float64]] = []
    for piece in source.parts():
        count = source.chunks(piece)
        lows, highs = np.empty(count, source.dtype), np.empty(count, source.dtype)
        sums = np.empty((count, 4))
        with np.errstate(over="ignore", invalid="ignore"):
            _each(source, piece, partial(_moments, source, piece, origin, lows, highs, sums))
            skip = np.logical_not(np.isfinite(sums).all(axis=1))
            for k in np.flatnonzero(skip).tolist():
                chunk = source.of(piece, k)
                kept = chunk[np.isfinite(chunk)]
                nan = int(np.isnan(chunk).sum())
                found.nan += nan
                found.inf += chunk.size - kept.size - nan
                lows[k], highs[k] = kept.min(initial=np.inf), kept.max(initial=-np.inf)
                sums[k] = lanes.moments(kept, origin)
        found.n += piece.size
        found.a = min(found.a, float(lows.min()))
        found.b = max(found.b, float(highs.max()))
        found.skip.append(skip)
        found.lows.append(lows)
        found.highs.append(highs)
        terms.append(sums)
    found.n -= found.nan + found.inf
    found.sums = [_sum([each[:, power] for each in terms]) for power in range(4)]
    return found


@dataclass(frozen=True)
class Codes:
    """The second pass: counts, and errors per width."""

    counts: tuple[NDArray[np.int64], ...]
    """per width, [levels + 1]: elements per code"""
    errors: tuple[float, ...]
    """per width: sum of (w' - w)^2"""
    zeros: int
    outside: tuple[int, ...]
    """per multiple of the standard deviation"""


def second_pass(
    source: Source,
    seen: Range,
    *,
    levels: Sequence[int],
    scales: Sequence[float],
    mean: float,
    distances: Sequence[float],
) -> Codes:
    """Codes under `minmax` with each scale, and how many |w - mean| are above each distance.

    ``scales`` are above 0, in the source's unit like ``mean`` and ``distances``.
    """
    farthest = max(seen.b - mean, mean - seen.a)
    inside = (
        np.array([reach(mean, d, source.dtype) for d in distances], source.dtype)
        if source.engine
        else None
    )
    plan = _Plan(seen.a, np.array(scales), mean, tuple(distances), inside, farthest)
    tables = np.zeros((len(scales), 256), np.int64)
    found = np.zeros(1 + len(distances), np.int64)
    terms: list[NDArray[np.float64]] = []
    for piece, skip, lows, highs in zip(
        source.parts(), seen.skip, seen.lows, seen.highs, strict=True
    ):
        errors = np.zeros((source.chunks(piece), len(scales)))
        for counts, tally in _each(
            source, piece, partial(_rounding, source, piece, skip, lows, highs, plan, errors)
        ):
            tables += counts
            found += tally
        for k in np.flatnonzero(skip).tolist():
            chunk = source.of(piece, k)
            counts, errors[k], tally = _by_numpy(chunk[np.isfinite(chunk)], plan)
            tables += counts
            found += tally
        terms.append(errors)
    return Codes(
        counts=tuple(tables[i, : level + 1] for i, level in enumerate(levels)),
        errors=tuple(_sum([each[:, i] for each in terms]) for i in range(len(scales))),
        zeros=int(found[0]),
        outside=tuple(found[1:].tolist()),
    )


@dataclass(frozen=True)
class _Plan:
    a: float
    scales: NDArray[np.float64]
    mean: float
    distances: tuple[float, ...]
    inside: Array | None
    """[distances, 2], for the kernels: where |w - mean| is not above them"""
    farthest: float
    """largest |w - mean|"""


def _moments(
    source: Source,
    piece: Array,
    origin: float,
    lows: Array,
    highs: Array,
    sums: NDArray[np.float64],
    first: int,
    last: int,
) -> None:
    chosen = slice(first, last)
    if source.engine:
        part = piece[first * source.chunk : last * source.chunk]
        source.engine.moments(part, source.chunk, origin, lows[chosen], highs[chosen], sums[chosen])
        return
    with np.errstate(over="ignore", invalid="ignore"):  # a thread has its own
        for k in range(first, last):
            chunk = source.of(piece, k)
            lows[k], highs[k] = chunk.min(), chunk.max()
            sums[k] = lanes.moments(chunk, origin)


def _rounding(
    source: Source,
    piece: Array,
    skip: NDArray[np.bool_],
    lows: Array,
    highs: Array,
    plan: _Plan,
    errors: NDArray[np.float64],
    first: int,
    last: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    counts = np.zeros((len(plan.scales), 256), np.int64)
    found = np.zeros(1 + len(plan.distances), np.int64)
    chosen = slice(first, last)
    if source.engine:
        tables = np.zeros((len(plan.scales), source.engine.COUNTERS, 256), np.int64)
        source.engine.rounding(
            piece[first * source.chunk : last * source.chunk],
            source.chunk,
            skip[chosen],
            lows[chosen],
            highs[chosen],
            plan.a,
            plan.scales,
            plan.inside,
            tables,
            errors[chosen],
            found,
        )
        return tables.sum(axis=1), found
    for k in range(first, last):
        if not skip[k]:
            more, errors[k], tally = _by_numpy(source.of(piece, k), plan)
            counts += more
            found += tally
    return counts, found


def _by_numpy(
    chunk: Array, plan: _Plan
) -> tuple[NDArray[np.int64], list[float], NDArray[np.int64]]:
    """Counts per code [widths, 256], errors, and zeros and elements outside, of finite ones."""
    made = [lanes.rounding(chunk, plan.a, float(scale)) for scale in plan.scales]
    distance = np.abs(chunk.astype(np.float64) - plan.mean)
    outside = [np.count_nonzero(distance > d) if plan.farthest > d else 0 for d in plan.distances]
    tally = np.array([chunk.size - np.count_nonzero(chunk), *outside])
    return np.array([counts for counts, _ in made]), [error for _, error in made], tally


def _each(source: Source, piece: Array, work: Callable[[int, int], Result]) -> list[Result]:
    """``work`` on every run of chunks from one to below another, by the threads."""
    count = source.chunks(piece)
    step = max(1, TASK // source.chunk)
    if count <= step:
        return [work(0, count)]
    ends = [(first, min(first + step, count)) for first in range(0, count, step)]
    if source.threads == 1:
        return [work(*end) for end in ends]
    with ThreadPoolExecutor(source.threads) as pool:
        return list(pool.map(work, *zip(*ends, strict=True)))


def _sum(terms: Sequence[NDArray[np.float64]]) -> float:
    """The sum as a float64, rounded once; NaN or infinite where a term is."""
    try:
        return math.fsum(term for part in terms for term in part.tolist())
    except (OverflowError, ValueError):  # of finite terms; of infinities of both signs
        return math.inf


def reach(mean: float, distance: float, dtype: np.dtype) -> tuple[np.floating, np.floating]:
    """The least and the greatest x of a dtype with |x - mean| <= distance, rounded as float64."""
    number = dtype.type
    whole = np.dtype(f"int{8 * dtype.itemsize}").type
    largest = number(np.finfo(dtype).max)

    def at(place: int) -> np.floating:
        """Numbers in ascending order, 0 at 0: the bits of one are the place of its size."""
        return number(math.copysign(1, place)) * whole(abs(place)).view(number)

    def end(sign: int) -> np.floating:
        def inside(place: int) -> bool:
            return sign * (float(at(sign * place)) - mean) <= distance

        first = number(min(max(sign * mean + distance, -float(largest)), float(largest)))
        inner = int(math.copysign(1, first)) * int(abs(first).view(whole))
        beyond = int(largest.view(whole)) + 1
        step = 1
        while not inside(inner):
            inner -= step
            step *= 2
        outer = min(inner + step, beyond)
        while outer < beyond and inside(outer):
            inner, step = outer, 2 * step
            outer = min(inner + step, beyond)
        while outer - inner > 1:
            middle = (inner + outer) // 2
            inner, outer = (middle, outer) if inside(middle) else (inner, middle)
        return at(sign * inner)

    return end(-1), end(1)
