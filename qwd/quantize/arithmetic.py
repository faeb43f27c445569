"""From floats to codes and back: the four kinds of grid, per tensor or per channel.

Every kind lays an even grid over the range [a, b] of the weights and moves each weight to the
nearest point of it. With L = 2^bits - 1 steps (255 at 8 bits):

    minmax      scale = (b - a) / L    q = round((w - a) / scale)    w' = a + q * scale
    affine      scale = (b - a) / L    q = round(w / scale) + z      w' = (q - z) * scale
    symmetric   as affine, with a = -max|w|, b = max|w| and z = 0
    pow2        as symmetric, with the scale rounded up to a power of two

round is half to even, and q is clamped: to 0..L for minmax, to qmin..qmax = -2^(bits-1)..
2^(bits-1)-1 for the others. minmax is the formula to the letter, in float64. affine is what
integer kernels run: 0 has to be a code of its own (padding, ReLU), so [a, b] is first widened to
hold it and the zero point is z = qmin - round(a / scale). Its arithmetic is float32, so that scale
and z are bitwise those of torch.ao's MinMaxObserver and q those of onnxruntime's QuantizeLinear;
only where float32 cannot hold the scale, float64 takes its place. Where the scale is a power of
two, kernels shift instead of multiplying. The price of affine against minmax is the widening, of
symmetric that up to half of the codes are never used, and of pow2 up to half of those left.

A grid costs at most half a step: |w - w'| <= scale / 2, plus the float32 rounding of scale, w /
scale and w', together below scale * 2^-14. No kind clips by more. Scaling all weights by a power
of two scales w' by it and changes no code: the shape of the weights matters, not their size.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qwd.quantize.schemes import KINDS, Kind


@dataclass(frozen=True)
class Quantized:
    """A weight tensor as codes and what they stand for.

    ``scale``, ``zero_point`` and ``a`` are 0-d for a grid per tensor, [C] for one per channel.
    """

    codes: Tensor
    """int32, shape of w: 0..2^bits-1 (minmax) or -2^(bits-1)..2^(bits-1)-1"""
    scale: Tensor
    """float64; 0 where all weights are equal (minmax) or zero (the other kinds)"""
    zero_point: Tensor
    """int64; 0 for symmetric and pow2, and for minmax, whose offset is ``a``"""
    a: Tensor
    """float64; lower end of the range: the widened one for affine, -max|w| for symmetric, pow2"""
    values: Tensor
    """w', shape of w: float64 for minmax and float64 weights, else float32 (see `Grid.values`)"""


@dataclass(frozen=True)
class Grid:
    """The points that codes stand for; its tensors broadcast against the weights."""

    kind: Kind
    bits: int
    dtype: torch.dtype
    """of the arithmetic: float32 or float64"""
    a: Tensor
    b: Tensor
    scale: Tensor
    zero_point: Tensor
    wide: Tensor
    """bool: where float32 cannot hold the scale or the points, and float64 is used instead"""

    def codes(self, w: Tensor) -> Tensor:
        """q, int32, for finite weights in the grid's dtype."""
        # A scale of 0 means that every weight is the same point; dividing by 1 finds its code.
        divisor = torch.where(self.scale > 0, self.scale, 1.0)
        if self.kind == "minmax":
            w, unit = w.double(), self._unit()
            position = (w * unit - self.a * unit) / (divisor * unit)
            return position.round().clamp(0, 2**self.bits - 1).int()
        narrow = torch.where(self.wide, 1.0, divisor).to(self.dtype)
        position = w / narrow
        if self.wide.any():
            position = torch.where(self.wide, w.double() / divisor, position)
        return (position.round() + self.zero_point).clamp(*code_range(self.bits)).int()

    def values(self, codes: Tensor) -> Tensor:
        """w' of codes, in the grid's dtype; in float64 if any scale is beyond float32."""
        if self.kind == "minmax":
            unit = self._unit()
            values = (self.a * unit + codes * (self.scale * unit)) / unit
        else:
            steps = (codes - self.zero_point).to(self.dtype)
            values = steps * self.scale.to(self.dtype)
            if self.wide.any():
                values = torch.where(self.wide, steps.double() * self.scale, values)
        # At the very end of float64 the outermost point may round to infinity.
        largest = torch.finfo(values.dtype).max
        return values.clamp(-largest, largest)

    def _unit(self) -> Tensor:
        # The span of finite numbers may be infinite; that of their halves is not, and at that size
        # halving is exact.
        return torch.where((self.scale * 2**self.bits).isinf(), 0.5, 1.0).double()


def quantize(w: Tensor, *, kind: Kind, bits: int = 8, axis: int | None = None) -> Quantized:
    """Quantize and dequantize weights with one grid per tensor, or per channel along ``axis``.

        q = clamp(round(w / scale) + zero_point),  w' = (q - zero_point) * scale

    and for minmax q = clamp(round((w - a) / scale)), w' = a + q * scale; see the module's
    docstring. ``w`` has any shape, 0-d and empty included, and any floating-point dtype; those
    below 32 bits are exact in float32. ``bits`` is 2 to 8. NaN and infinities are not quantized:
    they are left out of the range, their w' is the element itself and their code 0.

    Raises ValueError for another kind, another width or weights that are not floating-point, and
    IndexError for an axis that w does not have.

    Source: B. Jacob et al., Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference (CVPR 2018), eq. 1 and 12.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
    if not w.is_floating_point():
        raise ValueError(f"weights are floating-point, not {w.dtype}")
    w = w.detach().to(arithmetic_dtype(w.dtype))
    finite = w.isfinite()
    clean = w if finite.all() else torch.where(finite, w, 0.0)
    a, b = _range(w, finite, axis)
    lattice = grid(a, b, kind=kind, bits=bits)
    codes = lattice.codes(clean)
    values = lattice.values(codes)
    if clean is not w:
        codes = torch.where(finite, codes, 0)
        values = torch.where(finite, values, w.to(values.dtype))
    shape = () if axis is None else (w.shape[axis],)
    return Quantized(
        codes=codes,
        scale=lattice.scale.reshape(shape),
        zero_point=lattice.zero_point.reshape(shape),
        a=lattice.a.reshape(shape),
        values=values,
    )


def grid(a: Tensor, b: Tensor, *, kind: Kind, bits: int = 8) -> Grid:
    """The grid over ranges [a, b], finite float32 or float64 tensors of one shape.

    ``a`` and ``b`` are in the dtype of the weights, float32 for shorter ones; the arithmetic of
    all kinds but minmax is in that dtype. Raises ValueError for bits outside 2 to 8.
    """
    if bits not in range(2, 9):
        raise ValueError(f"bits are 2 to 8, not {bits}")
    if kind == "affine":
        a, b = a.clamp(max=0), b.clamp(min=0)
    elif kind in ("symmetric", "pow2"):
        b = torch.maximum(-a, b)
        a = -b
    else:
        a, b = a.double(), b.double()
    levels = 2**bits - 1
    scale = _step(a.double(), b.double(), levels)
    if kind == "pow2":
        scale = _power_of_two(scale)
    wide = torch.zeros_like(scale, dtype=torch.bool)
    if a.dtype == torch.float32:
        # Below its normal numbers float32 would round the scale to a coarse grid or to 0, and near
        # its largest the outermost points, zero_point included, would be infinite.
        limits = torch.finfo(torch.float32)
        wide = (scale > 0) & ((scale < limits.tiny) | (scale * (levels + 1) > limits.max))
        if kind != "pow2":
            scale = torch.where(wide, scale, ((b - a) / _full(levels, b)).double())
    zero_point = torch.zeros_like(scale, dtype=torch.int64)
    if kind == "affine":
        qmin, qmax = code_range(bits)
        divisor = torch.where(scale > 0, scale, 1.0)
        steps = torch.where(
            wide, a.double() / divisor, a / torch.where(wide, 1.0, divisor).to(a.dtype)
        )
        zero_point = (qmin - steps.round()).clamp(qmin, qmax).long()
    return Grid(
        kind=kind,
        bits=bits,
        dtype=a.dtype,
        a=a.double(),
        b=b.double(),
        scale=scale,
        zero_point=zero_point,
        wide=wide,
    )


def code_range(bits: int) -> tuple[int, int]:
    """Smallest and largest signed code: -128 and 127 at 8 bits."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def arithmetic_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for float32 and every shorter format, which it holds exactly."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _step(a: Tensor, b: Tensor, levels: int) -> Tensor:
    span = b - a
    parts = _full(levels, span)
    # b - a may be beyond float64 although its part is not; halving is exact at that size.
    scale = torch.where(span.isinf(), (b / 2 - a / 2) / (parts / 2), span / parts)
    # Among float64's subnormal numbers a part rounded down (to 0, even) times levels may fall
    # short of b and clip; there, and only there, it is rounded up.
    short = (scale < torch.finfo(torch.float64).tiny) & (scale * levels < span)
    return torch.where(short, scale.nextafter(torch.full_like(scale, math.inf)), scale)


def _power_of_two(scale: Tensor) -> Tensor:
    """The smallest power of two that is not below a scale, exactly; 0 for 0.

    Above 2^1023 float64 has none, and the scale stays as it is.
    """
    mantissa, _ = torch.frexp(scale)
    # scale = mantissa * 2^n with a mantissa of 0.5 to 1, so that the quotient is 2^n.
    above = scale / torch.where(scale > 0, mantissa, 1.0)
    return torch.where((mantissa == 0.5) | above.isinf(), scale, above)


def _full(number: int, like: Tensor) -> Tensor:
    # CUDA divides by a Python number through its reciprocal, which rounds twice.
    return torch.full_like(like, number)


def _range(w: Tensor, finite: Tensor, axis: int | None) -> tuple[Tensor, Tensor]:
    """Smallest and largest finite element, 0 and 0 where there is none; broadcasts against w."""
    if axis is None:
        kept = (1,) * w.ndim
        rows = w.reshape(1, -1)
        mask = finite.reshape(1, -1)
    else:
        moved = w.movedim(axis, 0)
        kept = tuple(n if d == axis % w.ndim else 1 for d, n in enumerate(w.shape))
        rows = moved.reshape(len(moved), moved[:1].numel())
        mask = finite.movedim(axis, 0).reshape(rows.shape)
    if not w.numel():
        return w.new_zeros(kept), w.new_zeros(kept)
    a = torch.where(mask, rows, math.inf).amin(dim=1)
    b = torch.where(mask, rows, -math.inf).amax(dim=1)
    some = mask.any(dim=1)
    return torch.where(some, a, 0.0).reshape(kept), torch.where(some, b, 0.0).reshape(kept)
