"""The two passes over a tensor on a GPU, compiled by Triton.

They compute what `qwd.quantize.kernels` computes, in another order of the additions. A program goes
through tiles that lie a whole grid apart; a thread adds up its own part of each, and the program
its threads' sums at the end: every order is fixed, and nothing but integers is added by an atomic
operation. What the programs of the first pass found is added up by every program of the second, all
in the same way, so that nothing has to go through the CPU in between.

An element that is not finite counts as one that is, the origin in the first pass and a in the
second, and so does the padding of the last tile, read as NaN; the tallies say how many there were.

Only `qwd.quantize.statistics_device` imports this module: importing it imports Triton.

``tallies``: int64 [6], not finite, zeros, beyond the three rules, -; ``counts``: int64 [widths,
256], elements per code; ``figures``: float64 [10], origin, a, b, mean, standard deviation,
sums of (w - origin)^1..4, -; ``partial``: float64 [6, programs], the first pass's a, b and sums;
``errors``: float64 [widths, programs], sums of (w' - w)^2. ``number`` is the type of extremes and
holds the ``n`` elements of ``w``, of which a thread reads ``vector`` at a time, 8 of a ``tile``.
"""

import triton
import triton.language as tl

from qwd.quantize import kernels_table as table

SAMPLE = tl.constexpr(64)
"""elements whose median is the origin"""
HALVING = tl.constexpr(1.5 * 2**52)
"""rounds half to even what it is added to, and the lowest bits are the code"""


@triton.jit(do_not_specialize=["n", "sampled"])
def moments(
    w, n, sampled, tallies, figures, partial,
    number: tl.constexpr, vector: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """Extremes and sums of powers about figures[0], or if ``sampled`` about a median, set there."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    if sampled != 0:
        origin = _median(w, n, number)
        if program == 0:
            tl.store(figures, origin)
    else:
        origin = tl.load(figures)
    centre = origin.to(number)
    low = tl.zeros([tile // 8], number) + centre
    high = low
    first = tl.zeros([tile // 8], tl.float64)
    second, third, fourth = first, first, first
    bad = tl.zeros([tile // 8], tl.int32)
    zeros = bad
    whole = n.to(tl.int64) // tile
    i = tl.arange(0, tile)
    for k in range(program, whole, programs):
        x = tl.load(w + k * tile + i).to(number)
        low, high, first, second, third, fourth, bad, zeros = _measured(
            x, centre, origin, low, high, first, second, third, fourth, bad, zeros, vector
        )
    if program == programs - 1:
        x = _rest(w, n, whole * tile + i, number)
        low, high, first, second, third, fourth, bad, zeros = _measured(
            x, centre, origin, low, high, first, second, third, fourth, bad, zeros, vector
        )
    tl.store(partial + program, tl.min(low, 0).to(tl.float64))
    tl.store(partial + programs + program, tl.max(high, 0).to(tl.float64))
    tl.store(partial + 2 * programs + program, tl.sum(first, 0))
    tl.store(partial + 3 * programs + program, tl.sum(second, 0))
    tl.store(partial + 4 * programs + program, tl.sum(third, 0))
    tl.store(partial + 5 * programs + program, tl.sum(fourth, 0))
    tl.atomic_add(tallies, tl.sum(bad.to(tl.int64), 0))
    tl.atomic_add(tallies + 1, tl.sum(zeros.to(tl.int64), 0))


@triton.jit
def _median(w, n, number: tl.constexpr):
    """Of the finite ones among SAMPLE elements; infinite where there are none."""
    i = tl.arange(0, SAMPLE)
    place = i * tl.maximum(n.to(tl.int64) // SAMPLE, 1)
    x = _rest(w, n, place, number)
    finite = tl.abs(x) < float("inf")
    x = tl.where(finite, x, float("inf"))
    one, other = x[:, None], x[None, :]
    before = (other < one) | ((other == one) & (i[None, :] < i[:, None]))
    middle = tl.sum(finite.to(tl.int32), 0) // 2
    chosen = tl.sum(before.to(tl.int32), 1) == middle
    return tl.sum(tl.where(chosen, x, 0.0), 0).to(tl.float64)


@triton.jit
def _rest(w, n, place, number: tl.constexpr):
    """Elements, NaN behind the last."""
    return tl.load(w + place, mask=place < n, other=float("nan")).to(number)


@triton.jit
def _measured(
    x, centre, origin, low, high, first, second, third, fourth, bad, zeros,
    vector: tl.constexpr,
):  # fmt: skip
    """All that `moments` carries along, with a tile more."""
    x = _by_thread(x, vector)
    finite = tl.abs(x) < float("inf")
    bad += _added((~finite).to(tl.int32))
    zeros += _added((x == 0).to(tl.int32))
    x = tl.where(finite, x, centre)
    low = tl.minimum(low, tl.min(tl.min(x, 2), 0))
    high = tl.maximum(high, tl.max(tl.max(x, 2), 0))
    d = x.to(tl.float64) - origin
    s = d * d
    first += _added(d)
    second += _added(s)
    third += _added(s * d)
    fourth += _added(s * s)
    return low, high, first, second, third, fourth, bad, zeros


@triton.jit
def _by_thread(x, vector: tl.constexpr):
    """A tile as [vectors, threads, vector]: Triton lets neighbours read neighbouring vectors."""
    return tl.reshape(x, [8 // vector, x.numel // 8, vector])


@triton.jit
def _added(x):
    """What each thread has of a tile, in one."""
    return tl.sum(tl.sum(x, 2), 0)


@triton.jit(do_not_specialize=["n", "widths", "near", "far", "farther", "parts"])
def rounding(
    w, n, widths, near, far, farther, tallies, counts, figures, partial, parts, errors,
    number: tl.constexpr, vector: tl.constexpr, tile: tl.constexpr, most: tl.constexpr,
):  # fmt: skip
    """Codes of each width, their errors, and elements beyond multiples of the deviation.

    ``widths``: 8 bits for each, the first the lowest; ``near``, ``far``, ``farther``: the
    multiples, ascending; ``parts``: programs of the first pass, not above ``most``. The grid is
    [widths, programs]. What it finds of constant elements means nothing.
    """
    width, program, programs = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    counters = table.create()
    whole = n.to(tl.int64) // tile
    kept = (whole + 1) * tile - tl.load(tallies)
    origin = tl.load(figures)
    low = tl.min(_column(partial, 0, parts, origin, most), 0)
    high = tl.max(_column(partial, 1, parts, origin, most), 0)
    first = tl.sum(_column(partial, 2, parts, 0.0, most), 0)
    second = tl.sum(_column(partial, 3, parts, 0.0, most), 0)
    mean = origin + first / kept
    std = tl.sqrt(tl.maximum(second / kept - (first / kept) * (first / kept), 0.0))
    if (width == 0) & (program == 0):
        tl.store(figures + 1, low)
        tl.store(figures + 2, high)
        tl.store(figures + 3, mean)
        tl.store(figures + 4, std)
        tl.store(figures + 5, first)
        tl.store(figures + 6, second)
        tl.store(figures + 7, tl.sum(_column(partial, 4, parts, 0.0, most), 0))
        tl.store(figures + 8, tl.sum(_column(partial, 5, parts, 0.0, most), 0))
    levels = (1 << ((widths >> (8 * width)) & 255)) - 1
    scale = (high - low) / levels
    reciprocal = 1 / scale
    # The first width alone counts elements beyond the deviations.
    unit = tl.where(width == 0, std, float("inf"))
    near, far, farther = near * unit, far * unit, farther * unit
    error = tl.zeros([tile // 8], tl.float64)
    i = tl.arange(0, tile)
    replica = i // vector % table.REPLICAS
    for k in range(program, whole, programs):
        # The end first, which is still in the cache.
        x = tl.load(w + (whole - 1 - k) * tile + i).to(number)
        error += _rounded(
            x, low, mean, scale, reciprocal, near, far, farther, counters, replica, vector
        )
    if program == programs - 1:
        x = _rest(w, n, whole * tile + i, number)
        error += _rounded(
            x, low, mean, scale, reciprocal, near, far, farther, counters, replica, vector
        )
    tl.store(errors + width * programs + program, tl.sum(error, 0) * (scale * scale))
    codes, beyond = table.total(counters)
    tl.atomic_add(counts + width * table.CODES + tl.arange(0, table.CODES), codes.to(tl.int64))
    tl.atomic_add(tallies + 2 + tl.arange(0, table.RULES), beyond.to(tl.int64))


@triton.jit
def _column(partial, row, parts, other, most: tl.constexpr):
    i = tl.arange(0, most)
    return tl.load(partial + row * parts + i, mask=i < parts, other=other)


@triton.jit
def _rounded(
    x, low, mean, scale, reciprocal, near, far, farther, counters, replica, vector: tl.constexpr
):
    """Counts the elements of a tile; their (w' - w)^2 / scale^2, as each thread has them."""
    x = tl.where(tl.abs(x) < float("inf"), x, low.to(x.dtype)).to(tl.float64)
    d = x - low
    t = d * reciprocal
    t = tl.fma(tl.fma(t, -scale, d), reciprocal, t)  # d / scale, as `qwd.quantize.kernels` has it
    q = t + HALVING
    e = t - (q - HALVING)
    # & 255: even where numbers are not, no counter lies outside of the table.
    code = q.to(tl.int64, bitcast=True).to(tl.int32) & 255
    table.count(counters, code, replica)
    table.count_beyond(counters, tl.abs(x - mean), near, far, farther, replica)
    return _added(_by_thread(e * e, vector))
