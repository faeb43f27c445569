"""The grid of an activation: found on calibration images, then rounded to.

The first pass over the images finds the exact minimum and maximum. Clipping takes a second one:
percentiles are exact, from as many of the smallest and the largest values as lie beyond them; the
least squared error is that of a histogram whose bins are at most a tenth of a step of any range
that is tried. Values that are not finite are left out.
"""

import math

import torch
from torch import Tensor, nn

from qwd.quantize.arithmetic import code_range, grid
from qwd.quantize.clipping import PERCENTILES, STEPS, between, least_error
from qwd.quantize.schemes import Clip, Kind

BINS = 10 * STEPS * 2**8
"""of a histogram between the extremes: the narrowest range tried is their STEPS-th part, and has
2^8 - 1 steps"""


class Extremes(nn.Module):
    """Passes activations on and keeps the smallest and the largest value; the first pass."""

    def __init__(self) -> None:
        super().__init__()
        self.lo, self.hi = math.inf, -math.inf
        self.n = 0

    def forward(self, x: Tensor) -> Tensor:
        """Look at ``x``, of any shape, and return it."""
        values = finite(x)
        if values.numel():
            lo, hi = values.aminmax()
            self.lo, self.hi = min(self.lo, lo.item()), max(self.hi, hi.item())
            self.n += values.numel()
        return x

    def ends(self) -> tuple[float, float]:
        """The range that was seen; 0 and 0 before any value was."""
        return (self.lo, self.hi) if self.n else (0.0, 0.0)


class Tails(nn.Module):
    """Passes activations on and keeps those that decide on the percentiles; a second pass."""

    def __init__(self, first: Extremes):
        super().__init__()
        self.n = first.n
        shares = [percent / 100 * max(self.n - 1, 0) for percent in PERCENTILES]
        self.below, self.above = (math.floor(share) for share in shares)
        self.shares = [share - math.floor(share) for share in shares]
        # Interpolation reads the value at that place and the next one.
        self.lowest = torch.empty(0)
        self.highest = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        """Look at ``x``, of any shape, and return it."""
        values = finite(x)
        self.lowest = _most_extreme(self.lowest, values, self.below + 2, largest=False)
        self.highest = _most_extreme(self.highest, values, self.n - self.above, largest=True)
        return x

    def ends(self) -> tuple[float, float]:
        """The two percentiles; 0 and 0 before any value was seen."""
        if not self.n:
            return 0.0, 0.0
        ends = (self.lowest.double(), self.below), (self.highest.double().flip(0), 0)
        lo, hi = (
            between(tail[k], tail[min(k + 1, len(tail) - 1)], torch.tensor(share))
            for (tail, k), share in zip(ends, self.shares, strict=True)
        )
        return lo.item(), hi.item()


class Histogram(nn.Module):
    """Passes activations on and counts them between their extremes; a second pass."""

    def __init__(self, first: Extremes, kind: Kind, bits: int):
        super().__init__()
        self.lo, self.hi = first.ends()
        self.kind: Kind = kind
        self.bits = bits
        # Halved: the difference of two numbers may be beyond float64.
        self.width = (self.hi / 2 - self.lo / 2) / BINS * 2
        self.counts = torch.zeros(BINS, dtype=torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        """Look at ``x``, of any shape, and return it."""
        if self.width:
            bins = ((finite(x).double() - self.lo) / self.width).long().clamp(0, BINS - 1)
            self.counts += torch.bincount(bins, minlength=BINS)
        return x

    def ends(self) -> tuple[float, float]:
        """The shrunken range whose codes lose least."""
        seen = self.counts.nonzero()[:, 0]
        if not len(seen):
            return self.lo, self.hi
        centres = self.lo + (seen.double() + 0.5) * self.width
        # The outermost bins stand for the extremes, whose shrinkings are tried.
        centres[0], centres[-1] = self.lo, self.hi
        counts = self.counts[seen]
        n = torch.tensor([len(seen)])
        lo, hi = least_error(centres[None], counts[None], n, kind=self.kind, bits=self.bits)
        return lo.item(), hi.item()


def second_pass(first: Extremes, *, clip: Clip, kind: Kind, bits: int) -> nn.Module:
    """What has to see the images again for ``clip``; ``first`` itself where nothing has."""
    if clip == "percentile":
        return Tails(first)
    return Histogram(first, kind, bits) if clip == "mse" else first


class ActivationGrid(nn.Module):
    """Moves activations to the grid of a range, as `qwd.quantize.arithmetic` moves weights.

        x' = offset + clamp(round((x - offset) / scale), lowest, highest) * scale

    with the offset a and codes 0..2^bits-1 for minmax, in float64; for the other kinds without
    offset, in float32 where that holds the scale. ``lowest`` and ``highest`` are the ends of the
    codes less the zero point: unsigned codes for affine, signed ones for symmetric and pow2, whose
    zero point is 0. A range without width is one point, and everything is moved to it.
    """

    def __init__(self, name: str, lo: float, hi: float, *, kind: Kind, bits: int):
        super().__init__()
        self.name = name
        self.quantizing = True
        """False: activations pass as they are"""
        ends = (torch.tensor(end, dtype=torch.float32) for end in (lo, hi))
        lattice = grid(*ends, kind=kind, bits=bits)
        exact = kind == "minmax" or bool(lattice.wide)
        self.dtype = torch.float64 if exact else torch.float32
        """of the arithmetic"""
        first, last = (0, 2**bits - 1) if kind == "minmax" else code_range(bits)
        zero_point = int(lattice.zero_point)
        self.lowest, self.highest = first - zero_point, last - zero_point
        offset = lattice.a if kind == "minmax" else torch.zeros(())
        self.offset_is_zero = not offset
        self.register_buffer("offset", offset.to(self.dtype))
        self.register_buffer("scale", lattice.scale.to(self.dtype))
        # A point is divided into by 1, which leaves any finite number to be multiplied by 0.
        self.register_buffer("divisor", torch.where(self.scale > 0, self.scale, 1.0))

    offset: Tensor
    scale: Tensor
    divisor: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """x', shape and dtype of ``x``."""
        if not self.quantizing:
            return x
        y = x.to(self.dtype)
        y = (y if self.offset_is_zero else y - self.offset) / self.divisor
        y = y.round_().clamp_(self.lowest, self.highest).mul_(self.scale)
        return (y if self.offset_is_zero else y + self.offset).to(x.dtype)


def finite(x: Tensor) -> Tensor:
    """The finite elements of a tensor: 1-d."""
    x = x.detach().flatten()
    kept = x.isfinite()
    return x if kept.all() else x[kept]


def _most_extreme(kept: Tensor, new: Tensor, most: int, *, largest: bool) -> Tensor:
    """The ``most`` smallest or largest of some values and new ones, the most extreme first."""
    if len(kept) >= most:
        new = new[new > kept[most - 1]] if largest else new[new < kept[most - 1]]
    together = torch.cat([kept.to(new), new])
    return together.topk(min(most, len(together)), largest=largest).values
