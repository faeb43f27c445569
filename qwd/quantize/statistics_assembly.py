"""From sums, counts and order statistics to the figures of a tensor."""

import functools
import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from qwd.quantize.figures import WeightFigures, WidthFigures
from qwd.quantize.outliers import SIGMAS
from qwd.quantize.statistics_order import Order, statistics
from qwd.quantize.statistics_passes import Codes
from qwd.registry import OUTLIER_RULES

FAR = 4
"""standard deviations from the origin of power sums to the mean, beyond which they start again"""

# A name never changes its rule, and looking one up reads what packages are installed.
_rule = functools.cache(OUTLIER_RULES.get)


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Of finite elements; range and moments times 2^-exponent."""

    n: int
    a: float
    b: float
    mean: float
    second: float
    """central, mean((w - mean)^2)"""
    fourth: float
    exponent: int = 0

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return math.sqrt(self.second)

    def scale(self, bits: int) -> float:
        """(b - a) / (2^bits - 1)."""
        return (self.b - self.a) / (2**bits - 1)


@dataclass(frozen=True)
class Found:
    """All that is read from a tensor but the order of its elements."""

    nan: int
    inf: int
    moments: Moments | None
    """None without a finite element"""
    codes: Codes | None


def central(n: int, a: float, b: float, origin: float, sums: list[float]) -> Moments:
    """Moments from sums of (w - origin)^1..4.

    With d the mean of w - origin, m2 = s2 - d^2 and m4 = s4 - 4 d s3 + 6 d^2 s2 - 3 d^4. Little
    is lost to cancellation while |d| is no larger than the spread, as it is about the median.
    """
    d, s2, s3, s4 = (term / n for term in sums)
    if a == b:
        return Moments(n=n, a=a, b=b, mean=a, second=0.0, fourth=0.0)
    fourth = s4 - 4 * d * s3 + 6 * d * d * s2 - 3 * d**4
    return Moments(n=n, a=a, b=b, mean=origin + d, second=max(s2 - d * d, 0.0), fourth=fourth)


def constant(moments: Moments, widths: int) -> Codes:
    """Codes of elements that are all the same: one code, no error."""
    counts = np.array([moments.n])
    zeros = moments.n if moments.a == 0 else 0
    return Codes(
        counts=(counts,) * widths, errors=(0.0,) * widths, zeros=zeros, outside=(0,) * len(SIGMAS)
    )


def assemble(
    of: Moments, codes: Codes, order: Order | None, bits: tuple[int, ...], known: dict[str, Any]
) -> WeightFigures:
    """The figures of a tensor; ``bits`` begins with 8, ``known`` holds what is no statistic."""
    std = of.std
    ratio = (of.b - of.a) / std if std else None

    def in_weights(figure: float) -> float | None:
        if of.exponent:
            with np.errstate(over="ignore"):
                figure = float(np.ldexp(figure, of.exponent))
        return figure if math.isfinite(figure) else None

    def at_width(i: int) -> dict[str, Any]:
        scale, counts = of.scale(bits[i]), codes.counts[i]
        used = counts[counts > 0]
        shares = used / of.n
        signal = of.n * (of.second + of.mean * of.mean)
        return {
            "scale": in_weights(scale),
            "sqnr_db": sqnr_db(signal, codes.errors[i]),
            "sqnr_expected_db": expected_sqnr_db(ratio, bits[i]) if ratio else None,
            "rmse_over_scale": math.sqrt(codes.errors[i] / of.n) / scale if scale else None,
            "codes_used": used.size,
            "entropy_bits": abs(float((shares * np.log2(shares)).sum())),
            "crowding": order.distinct / used.size if order else None,
        }

    figures: dict[str, Any] = dict.fromkeys(("q1", "median", "q3", "mad"))
    outliers: dict[str, int | None] = dict.fromkeys(OUTLIER_RULES.names())
    outliers |= zip(SIGMAS, codes.outside, strict=True)
    if order:
        ranks = statistics(order, of.mean, std)
        figures = {name: in_weights(getattr(ranks, name)) for name in figures}
        for name in outliers.keys() - SIGMAS.keys():
            test = _rule(name)(ranks)
            outliers[name] = order.count(test) if test is not None else None
    return WeightFigures(
        **known,
        **figures,
        **at_width(0),
        a=in_weights(of.a),
        b=in_weights(of.b),
        range=in_weights(of.b - of.a),
        mean=in_weights(of.mean),
        std=in_weights(std),
        range_over_std=ratio,
        kurtosis=of.fourth / of.second**2 - 3 if of.second else None,
        zeros=codes.zeros,
        outliers=outliers,
        widths=tuple(WidthFigures(bits=bits[i], **at_width(i)) for i in range(1, len(bits))),
    )


def without_elements(known: dict[str, Any]) -> WeightFigures:
    """The figures of a tensor without a finite element."""
    none: dict[str, Any] = dict.fromkeys(field.name for field in fields(WeightFigures))
    none |= {"codes_used": 0, "zeros": 0, "widths": ()}
    return WeightFigures(**{**none, **known, "outliers": dict.fromkeys(OUTLIER_RULES.names())})


def zero_point(a: float, b: float, dtype: np.dtype) -> int:
    """Signed code of 0 under `affine-tensor-w8`, as `qwd.quantize.arithmetic.grid` has it."""
    a, b = min(a, 0.0), max(b, 0.0)
    scale = (b - a) / 255
    steps = a / scale if scale else 0.0
    if dtype == np.float32 and _NARROWEST <= scale <= _WIDEST:
        low, high = np.float32(a), np.float32(b)
        steps = float(low / ((high - low) / np.float32(255)))
    return min(max(-128 - round(steps), -128), 127)


_NARROWEST = float(np.finfo(np.float32).tiny)
_WIDEST = float(np.finfo(np.float32).max) / 256


def sqnr_db(signal: float, error: float) -> float | None:
    """10 log10(signal / error) in dB, of two sums of squares; None where either is 0."""
    return 10 * math.log10(signal / error) if signal and error else None


def expected_sqnr_db(range_over_std: float, bits: int = 8) -> float:
    """SQNR in dB if rounding errors are uniform over a step and the mean of the weights is 0."""
    return 20 * math.log10(2**bits - 1) + 10 * math.log10(12) - 20 * math.log10(range_over_std)
