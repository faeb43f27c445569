"""The two passes over a float32 or float64 tensor, compiled by numba.

They compute, bit for bit, what `qwd.quantize.statistics_lanes` computes with NumPy: sums are kept
in 64 lanes over tiles of 4 x 64 elements, (r0 + r1) + (r2 + r3) per lane and tile, and folded to 8
and then by pairs. The order of every addition is fixed, so that the compiler can use vector
instructions without changing a result, and so that neither the number of threads nor the processor
does.

Divisions would take the most time. The quotient t = d / scale is d * reciprocal, corrected by its
remainder, t + (d - t * scale) * reciprocal, where d - t * scale is one fused multiply-add and exact
(Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", 1990): ties
are ties. It is rounded half to even by adding 1.5 * 2^52: a float64 of that size has a spacing of
1, and its lowest bits are the code.

Only `qwd.quantize.kernels_loading` imports this module: importing it imports numba, and the first
call of a kernel compiles it where no earlier process left it in the cache.
"""

# numba's intrinsics are called without the context that their functions take first.
# pyright: reportCallIssue=false

from typing import Any

import numpy as np

from qwd.quantize.kernels_numba import bits, compiled, fma, inlined, prefetch

LANES = 64
TILE = 4 * LANES
HALVING = 1.5 * 2**52
AHEAD = 2**10
"""elements between those that are worked on and those that are asked for"""
LINE = 64
"""bytes that come from memory at once"""
NARROWEST = 2.0**-900
"""the smallest scale for which reciprocal and remainder are exact enough; with a wide margin"""
COUNTERS = 4
"""histograms of codes kept side by side, so that equal neighbours do not wait for each other"""


@compiled
def moments(x, chunk, origin, lows, highs, sums):
    """Extremes and sums of (x - origin)^1..4 of every chunk of x.

    ``origin`` is a number that x's dtype holds; ``lows`` and ``highs`` [chunks] are in that dtype,
    ``sums`` float64 [chunks, 4]. The sums of a chunk with NaN or infinities are not finite.
    """
    low, high = np.empty(LANES, x.dtype), np.empty(LANES, x.dtype)
    lanes, tile = np.empty((4, LANES)), np.empty(TILE, x.dtype)
    for k in range(lows.size):
        part = x[k * chunk : (k + 1) * chunk]
        lows[k], highs[k] = _measure(part, origin, low, high, lanes, tile)
        for power in range(4):
            sums[k, power] = _fold(lanes[power])


@compiled
def _measure(x, origin, low, high, lanes, tile):
    """Extremes of a chunk; its sums are left in ``lanes``."""
    low[:] = np.inf
    high[:] = -np.inf
    lanes[:] = 0
    whole = x.size // TILE * TILE
    _add_moments(x[:whole], origin, low, high, lanes)
    least, most = low.min(), high.max()
    if whole < x.size:
        tile[:] = origin
        tile[: x.size - whole] = x[whole:]
        _add_moments(tile, origin, low, high, lanes)  # with extremes of the padding too
        for i in range(whole, x.size):
            least = x[i] if x[i] < least else least
            most = x[i] if x[i] > most else most
    return least, most


@compiled
def _prefetch(x, start):
    """Ask for a tile: processors do so by themselves, but not across the ends of pages."""
    for i in range(start, start + TILE, LINE // x.itemsize):
        prefetch(x, i)


@compiled
def _add_moments(x, origin, low, high, lanes):
    first, second, third, fourth = lanes[0], lanes[1], lanes[2], lanes[3]
    for i in range(0, x.size, TILE):
        _prefetch(x, i + AHEAD)
        r0, r1 = x[i : i + LANES], x[i + LANES : i + 2 * LANES]
        r2, r3 = x[i + 2 * LANES : i + 3 * LANES], x[i + 3 * LANES : i + TILE]
        _extend(r0, r1, r2, r3, low, high)
        for j in range(LANES):
            d0, d1 = np.float64(r0[j]) - origin, np.float64(r1[j]) - origin
            d2, d3 = np.float64(r2[j]) - origin, np.float64(r3[j]) - origin
            s0, s1, s2, s3 = d0 * d0, d1 * d1, d2 * d2, d3 * d3
            first[j] += (d0 + d1) + (d2 + d3)
            second[j] += (s0 + s1) + (s2 + s3)
            third[j] += (s0 * d0 + s1 * d1) + (s2 * d2 + s3 * d3)
            fourth[j] += (s0 * s0 + s1 * s1) + (s2 * s2 + s3 * s3)


@inlined
def _extend(r0, r1, r2, r3, low, high):
    for j in range(LANES):
        m0 = r0[j] if r0[j] < r1[j] else r1[j]
        m1 = r2[j] if r2[j] < r3[j] else r3[j]
        m0 = m0 if m0 < m1 else m1
        low[j] = m0 if m0 < low[j] else low[j]
        m0 = r0[j] if r0[j] > r1[j] else r1[j]
        m1 = r2[j] if r2[j] > r3[j] else r3[j]
        m0 = m0 if m0 > m1 else m1
        high[j] = m0 if m0 > high[j] else high[j]


@compiled
def _fold(lanes):
    for i in range(8, LANES, 8):
        for j in range(8):
            lanes[j] += lanes[i + j]
    low = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
    return low + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]))


@compiled
def rounding(x, chunk, skip, lows, highs, a, scales, reaches, counts, errors, found):
    """Codes, their errors, zeros and elements outside of intervals, of every chunk of x.

    ``skip``: bool [chunks], those left out; ``lows``, ``highs``: as `moments` gave them;
    ``scales``: float64 [widths], all above `NARROWEST`; ``reaches``: [rules, 2] in x's dtype, the
    ends of the intervals. Adds to ``counts`` int64 [widths, COUNTERS, 256], elements per code, and
    to ``found`` int64 [1 + rules], zeros and elements outside; sets ``errors`` float64 [chunks,
    widths] to the sums of (w' - w)^2.
    """
    lanes, tile = np.empty(LANES), np.empty(TILE, x.dtype)
    tally = np.empty(LANES, np.int32)
    codes = np.empty((chunk + TILE - 1) // TILE * TILE, np.uint8)
    packed = codes.view(np.uint64)
    for k in range(lows.size):
        if skip[k]:
            continue
        part = x[k * chunk : (k + 1) * chunk]
        whole = part.size // TILE * TILE
        rest = part.size - whole
        tile[:] = a
        if rest:
            tile[:rest] = part[whole:]
        for width in range(scales.size):
            scale = scales[width]
            lanes[:] = 0
            _add_errors_and_codes(part[:whole], a, scale, codes, lanes)
            _count_codes(packed[: whole // 8], counts[width])
            if rest:
                _add_errors_and_codes(tile, a, scale, codes, lanes)
                _count_codes(packed[: TILE // 8], counts[width])
                counts[width, 0, 0] -= TILE - rest
            errors[k, width] = _fold(lanes) * (scale * scale)
        if lows[k] <= 0 <= highs[k]:
            tally[:] = 0
            _add_zeros(part[:whole], tally)
            found[0] += tally.sum()
            for i in range(whole, part.size):
                found[0] += part[i] == 0
        for rule in range(len(reaches)):
            low, high = reaches[rule, 0], reaches[rule, 1]
            if lows[k] < low or highs[k] > high:
                tally[:] = 0
                _add_outside(part[:whole], low, high, tally)
                found[1 + rule] += tally.sum()
                for i in range(whole, part.size):
                    found[1 + rule] += part[i] < low or part[i] > high


@compiled
def _position(x, a, scale, reciprocal):
    """(x - a) / scale"""
    d = np.float64(x) - a
    t = d * reciprocal
    return fma(fma(-t, scale, d), reciprocal, t)


def _adding_errors(with_codes: bool) -> Any:
    """A function for either case, so that who asks for no codes does not pay for them."""

    def add(x, a, scale, codes, lanes):
        reciprocal = 1 / scale
        ahead = AHEAD if with_codes else x.size  # who asks for no codes has read x before
        for i in range(0, x.size, TILE):
            _prefetch(x, i + ahead)
            r0, r1 = x[i : i + LANES], x[i + LANES : i + 2 * LANES]
            r2, r3 = x[i + 2 * LANES : i + 3 * LANES], x[i + 3 * LANES : i + TILE]
            if with_codes:
                c0, c1 = codes[i : i + LANES], codes[i + LANES : i + 2 * LANES]
                c2, c3 = codes[i + 2 * LANES : i + 3 * LANES], codes[i + 3 * LANES : i + TILE]
            for j in range(LANES):
                t0 = _position(r0[j], a, scale, reciprocal)
                t1 = _position(r1[j], a, scale, reciprocal)
                t2 = _position(r2[j], a, scale, reciprocal)
                t3 = _position(r3[j], a, scale, reciprocal)
                q0, q1, q2, q3 = t0 + HALVING, t1 + HALVING, t2 + HALVING, t3 + HALVING
                e0, e1 = t0 - (q0 - HALVING), t1 - (q1 - HALVING)
                e2, e3 = t2 - (q2 - HALVING), t3 - (q3 - HALVING)
                lanes[j] += (e0 * e0 + e1 * e1) + (e2 * e2 + e3 * e3)
                if with_codes:
                    c0[j], c1[j] = np.uint8(bits(q0)), np.uint8(bits(q1))
                    c2[j], c3[j] = np.uint8(bits(q2)), np.uint8(bits(q3))

    return compiled(add)


_add_errors = _adding_errors(with_codes=False)
_add_errors_and_codes = _adding_errors(with_codes=True)


@compiled
def _count_codes(packed, counts):
    byte = np.uint64(255)
    for i in range(packed.size):
        eight = packed[i]
        counts[0, eight & byte] += 1
        counts[1, (eight >> np.uint64(8)) & byte] += 1
        counts[2, (eight >> np.uint64(16)) & byte] += 1
        counts[3, (eight >> np.uint64(24)) & byte] += 1
        counts[0, (eight >> np.uint64(32)) & byte] += 1
        counts[1, (eight >> np.uint64(40)) & byte] += 1
        counts[2, (eight >> np.uint64(48)) & byte] += 1
        counts[3, (eight >> np.uint64(56)) & byte] += 1


@compiled
def _add_zeros(x, tally):
    for i in range(0, x.size, TILE):
        r0, r1 = x[i : i + LANES], x[i + LANES : i + 2 * LANES]
        r2, r3 = x[i + 2 * LANES : i + 3 * LANES], x[i + 3 * LANES : i + TILE]
        for j in range(LANES):
            tally[j] += (np.int32(r0[j] == 0) + np.int32(r1[j] == 0)) + (
                np.int32(r2[j] == 0) + np.int32(r3[j] == 0)
            )


@compiled
def _add_outside(x, low, high, tally):
    for i in range(0, x.size, TILE):
        r0, r1 = x[i : i + LANES], x[i + LANES : i + 2 * LANES]
        r2, r3 = x[i + 2 * LANES : i + 3 * LANES], x[i + 3 * LANES : i + TILE]
        for j in range(LANES):
            tally[j] += (
                np.int32((r0[j] < low) | (r0[j] > high)) + np.int32((r1[j] < low) | (r1[j] > high))
            ) + (
                np.int32((r2[j] < low) | (r2[j] > high)) + np.int32((r3[j] < low) | (r3[j] > high))
            )


@compiled
def channels(x, levels, lows, highs, errors):
    """Extremes of every row of x and the error of codes 0..levels over its own range.

    ``x``: [rows, elements]; ``lows``, ``highs`` [rows] in x's dtype; ``errors``: float64 [rows],
    the sums of (w' - w)^2, NaN where a row holds elements that are not finite or where the scale
    is not above `NARROWEST`.
    """
    low, high = np.empty(LANES, x.dtype), np.empty(LANES, x.dtype)
    sums, tile = np.empty(LANES), np.empty(TILE, x.dtype)
    for k in range(lows.size):
        row = x[k]
        lows[k], highs[k] = _extremes(row, low, high)
        a, span = np.float64(lows[k]), np.float64(highs[k]) - np.float64(lows[k])
        scale = span / levels if span else 1.0
        if not NARROWEST < scale < np.inf:
            errors[k] = np.nan
            continue
        sums[:] = 0
        whole = row.size // TILE * TILE
        _add_errors(row[:whole], a, scale, None, sums)
        if whole < row.size:
            tile[:] = lows[k]
            tile[: row.size - whole] = row[whole:]
            _add_errors(tile, a, scale, None, sums)
        errors[k] = _fold(sums) * (scale * scale)


@compiled
def _extremes(x, low, high):
    low[:] = np.inf
    high[:] = -np.inf
    whole = x.size // TILE * TILE
    for i in range(0, whole, TILE):
        r0, r1 = x[i : i + LANES], x[i + LANES : i + 2 * LANES]
        r2, r3 = x[i + 2 * LANES : i + 3 * LANES], x[i + 3 * LANES : i + TILE]
        _extend(r0, r1, r2, r3, low, high)
    least, most = low.min(), high.max()
    for i in range(whole, x.size):
        least = x[i] if x[i] < least else least
        most = x[i] if x[i] > most else most
    return least, most


@compiled
def patterns(x, counts):
    """Set ``counts``, int64 [2^16], to how often each uint16 occurs in x, of fewer than 2^32."""
    tables = np.zeros((COUNTERS, counts.size), np.uint32)
    whole = x.size // COUNTERS * COUNTERS
    for i in range(0, whole, COUNTERS):
        for table in range(COUNTERS):
            tables[table, x[i + table]] += np.uint32(1)
    for i in range(whole, x.size):
        tables[0, x[i]] += np.uint32(1)
    for pattern in range(counts.size):
        counts[pattern] = 0
        for table in range(COUNTERS):
            counts[pattern] += tables[table, pattern]
