"""What is said about one weight tensor: the data class, free of torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class WidthFigures:
    """What codes of another width cost: figures of `minmax-tensor-w<bits>`."""

    bits: int
    scale: float | None
    """(b - a) / (2^bits - 1)"""
    sqnr_db: float | None
    sqnr_expected_db: float | None
    """20 log10(2^bits - 1) + 10.79 - 20 log10(range / std)"""
    rmse_over_scale: float | None
    codes_used: int
    """distinct codes, of 2^bits"""
    entropy_bits: float | None
    crowding: float | None
    """distinct values per used code; None unless asked for in full"""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFigures:
    """Figures of one tensor; those of codes and error belong to `minmax-tensor-w8`.

    A figure that does not exist (no finite element, no spread, no error) is None, never NaN. So
    are those that need the order or the number of distinct elements, unless asked for in full:
    quartiles, MAD, crowding and the outlier rules but sigma>3, sigma>4 and sigma>6.
    """

    shape: tuple[int, ...]
    dtype: str
    numel: int
    nan: int
    """elements that are not a number; left out of every figure below"""
    inf: int
    """infinite elements; left out of every figure below"""
    a: float | None
    """smallest finite element"""
    b: float | None
    """largest finite element"""
    range: float | None
    """b - a"""
    scale: float | None
    """(b - a) / 255"""
    zero_point: int | None
    """signed code (-128 to 127) of 0 under `affine-tensor-w8`"""
    mean: float | None
    std: float | None
    """population standard deviation (ddof 0)"""
    q1: float | None
    median: float | None
    q3: float | None
    mad: float | None
    """median of |w - median|"""
    range_over_std: float | None
    kurtosis: float | None
    """population excess kurtosis"""
    sqnr_db: float | None
    """10 log10(sum w^2 / sum (w' - w)^2)"""
    sqnr_expected_db: float | None
    """20 log10(255) + 10.79 - 20 log10(range / std): what uniform rounding error would give"""
    rmse_over_scale: float | None
    """0.289 when rounding is all that is lost"""
    codes_used: int
    """distinct codes, of 256"""
    entropy_bits: float | None
    """entropy of the codes"""
    crowding: float | None
    """distinct values per used code"""
    zeros: int
    """exact zeros"""
    outliers: dict[str, int | None]
    """count per rule of `qwd list outliers`; None where the rule has no threshold"""
    widths: tuple[WidthFigures, ...] = ()
    """at the bit widths asked for beside 8"""
