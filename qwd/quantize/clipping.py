"""Which part of their range weights and activations are quantized over.

    none         [min, max]
    percentile   [the 0.01 percentile, the 99.99 percentile]
    mse          r * [min, max], with the r of 1.00, 0.99, ..., 0.01 whose codes lose least

What lies outside is moved to the nearer end before it is rounded: a narrower range has smaller
steps for most elements, and costs the few that stand out.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from qwd.quantize.arithmetic import Quantized, arithmetic_dtype, code_range, grid, quantize
from qwd.quantize.schemes import CLIPS, Clip, Kind

PERCENTILES = (0.01, 99.99)
"""of the elements: of a million, a hundred are cut off at either end"""

STEPS = 100
"""ranges that are tried for the least squared error: the whole one, and 99 narrower ones"""

POINTS = 2**20
"""of grids whose errors are found at once: 8 MiB in float64"""

WORDS: dict[Clip, str] = {
    "none": "min and max",
    "percentile": f"{PERCENTILES[0]} and {PERCENTILES[1]} percentiles",
    "mse": "least squared error",
}
"""How each finds ranges, as reports say it."""


def clipped_range(
    w: Tensor, *, clip: Clip, kind: Kind, bits: int = 8, axis: int | None = None
) -> tuple[Tensor, Tensor]:
    """The ends lo and hi of the range to quantize, per tensor or per channel along ``axis``.

    Both are float32, float64 for float64 weights, and broadcast against ``w``, which is of any
    shape. Percentiles interpolate linearly between elements. For ``mse`` lo and hi minimise

        sum (w' - w)^2,   w' = dequantize(quantize(clamp(w, lo, hi)))

    among the proportional shrinkings of [min, max], the widest of equals; a shrunken end stays
    within [min, max] where all elements have one sign. NaN and infinities are left out; where no
    element is finite lo and hi are 0.

    Raises ValueError for another clip, kind or width, IndexError for an axis that w has not.
    """
    if clip not in CLIPS:
        raise ValueError(f"clip is one of {', '.join(CLIPS)}, not {clip!r}")
    w = w.detach().to(arithmetic_dtype(w.dtype))
    rows, kept = _rows(w, axis)
    if not rows.shape[1]:
        return w.new_zeros(kept), w.new_zeros(kept)
    finite = rows.isfinite()
    n = finite.sum(dim=1)
    # Elements that are none stand at the end, behind the n that count.
    values = torch.where(finite, rows, math.inf)
    if clip == "none":
        lo = values.amin(dim=1)
        hi = torch.where(finite, rows, -math.inf).amax(dim=1)
    else:
        values = values.sort(dim=1).values
        if clip == "percentile":
            lo, hi = (percentile(values, n, percent) for percent in PERCENTILES)
        else:
            counts = finite.sort(dim=1, descending=True).values
            lo, hi = least_error(values, counts, n, kind=kind, bits=bits)
    lo, hi = (torch.where(n > 0, end, 0.0).to(w.dtype).reshape(kept) for end in (lo, hi))
    return lo, hi


def quantize_clipped(
    w: Tensor, *, clip: Clip, kind: Kind, bits: int = 8, axis: int | None = None
) -> Quantized:
    """`qwd.quantize.arithmetic.quantize` of weights that are clamped to `clipped_range`.

    NaN and infinities stay what they are. Raises as those two do.
    """
    if clip == "none":
        return quantize(w, kind=kind, bits=bits, axis=axis)
    lo, hi = clipped_range(w, clip=clip, kind=kind, bits=bits, axis=axis)
    wide = w.detach().to(lo.dtype)
    clamped = torch.where(wide.isfinite(), wide.clamp(lo, hi), wide)
    return quantize(clamped, kind=kind, bits=bits, axis=axis)


def percentile(values: Tensor, n: Tensor, percent: float) -> Tensor:
    """A percentile of the first ``n`` [R] of ascending ``values`` [R, N], interpolated linearly.

        v[k] + (v[k + 1] - v[k]) * (p - k),   p = percent / 100 * (n - 1),   k = floor(p)

    float64 [R].
    """
    place = (n - 1).clamp(min=0).double() * (percent / 100)
    below = place.floor().long()
    above = torch.minimum(below + 1, (n - 1).clamp(min=0))
    first, second = (values.gather(1, k[:, None])[:, 0].double() for k in (below, above))
    return between(first, second, place - below)


def between(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """first + (second - first) * share, ``first`` itself where both are the same."""
    # The difference of two float64 numbers may be beyond float64; that of their halves is not.
    half = first / 2 + (second / 2 - first / 2) * share
    return torch.where(first == second, first, half * 2)


def least_error(
    values: Tensor, counts: Tensor, n: Tensor, *, kind: Kind, bits: int
) -> tuple[Tensor, Tensor]:
    """The shrinking of each row's range that loses least: lo and hi [R], in the dtype of values.

    ``values`` [R, N] ascend and the first ``n`` [R] of each row are finite; ``counts`` [R, N] say
    how many elements each stands for. Exact but for the rounding of float64: between two midpoints
    of a grid every element goes to the same point, so that the sums of the counts, of the values
    and of their squares up to each element give the error of any grid.
    """
    lo = values[:, 0]
    hi = values.gather(1, (n - 1).clamp(min=0)[:, None])[:, 0]
    lo, hi = (torch.where(n > 0, end, 0.0) for end in (lo, hi))
    shares = torch.arange(STEPS, 0, -1, dtype=lo.dtype, device=lo.device) / STEPS
    low, high = ((end[:, None] * shares).clamp(lo[:, None], hi[:, None]) for end in (lo, hi))
    return least_of(values, counts, low, high, kind=kind, bits=bits)


def least_of(
    values: Tensor, counts: Tensor, low: Tensor, high: Tensor, *, kind: Kind, bits: int
) -> tuple[Tensor, Tensor]:
    """Of the ranges [low, high] of each row, both [R, S], the one that loses least: [R] each.

    The first is the whole range of the row, and wins where others are no better; see `least_error`.
    """
    sums = _Sums(values, counts, low[:, 0], high[:, 0])
    at_once = max(1, POINTS // (len(low) * 2**bits))
    parts = zip(low.split(at_once, dim=1), high.split(at_once, dim=1), strict=True)
    errors = torch.cat([sums.error(*part, kind, bits) for part in parts], dim=1)
    best = errors.argmin(dim=1, keepdim=True)  # the first of equals, and so the widest
    return low.gather(1, best)[:, 0], high.gather(1, best)[:, 0]


class _Sums:
    """Rows of ascending values, summed up to each of them; see `least_error`."""

    def __init__(self, values: Tensor, counts: Tensor, lo: Tensor, hi: Tensor):
        # About the middle of the range and in units of its size: what is subtracted from what
        # stays small, and squares are in reach of float64.
        size = torch.maximum(lo.abs(), hi.abs()).double()
        self.unit = torch.where(size > 0, size, 1.0)[:, None]
        self.middle = (lo[:, None] / self.unit + hi[:, None] / self.unit) / 2
        self.values = self._position(values).contiguous()
        weight = torch.where(self.values.isfinite(), counts, 0).double()
        x = torch.where(self.values.isfinite(), self.values, 0.0)
        self.sums = [_up_to(weight), _up_to(weight * x), _up_to(weight * x * x)]

    def error(self, lo: Tensor, hi: Tensor, kind: Kind, bits: int) -> Tensor:
        """Sums of squared differences over the grids on ranges [lo, hi]: float64 [R, S], as lo."""
        lattice = grid(lo[..., None], hi[..., None], kind=kind, bits=bits)
        first, last = (0, 2**bits - 1) if kind == "minmax" else code_range(bits)
        codes = torch.arange(first, last + 1, device=lo.device, dtype=torch.int32)
        # Clamped first, nothing reaches the points outside of those of lo and hi.
        ends = lattice.values(lattice.codes(torch.stack([lo, hi], dim=2)))
        points = lattice.values(codes).clamp(ends[..., :1], ends[..., 1:])
        points = self._position(points.flatten(1)).reshape(*lo.shape, -1)
        midpoints = (points[..., 1:] + points[..., :-1]) / 2
        inner = torch.searchsorted(self.values, midpoints.flatten(1)).reshape(midpoints.shape)
        edges = pad(pad(inner, (1, 0)), (0, 1), value=self.values.shape[1])
        number, total, squares = (
            sums.gather(1, edges.flatten(1)).reshape(edges.shape).diff(dim=2) for sums in self.sums
        )
        return (squares - 2 * points * total + points * points * number).sum(dim=2)

    def _position(self, values: Tensor) -> Tensor:
        return values.double() / self.unit - self.middle


def _up_to(terms: Tensor) -> Tensor:
    """Sums of the first 0, 1, ..., N terms of each row: [R, N + 1]."""
    return pad(terms.cumsum(dim=1), (1, 0))


def _rows(w: Tensor, axis: int | None) -> tuple[Tensor, list[int]]:
    """What shares a range as a row each: [R, N], and the shape in which [R] broadcasts."""
    if axis is None:
        return w.reshape(1, -1), [1] * w.ndim
    moved = w.movedim(axis, 0)
    kept = [n if d == axis % w.ndim else 1 for d, n in enumerate(w.shape)]
    return moved.reshape(len(moved), moved[:1].numel()), kept
