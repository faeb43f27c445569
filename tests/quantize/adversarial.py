"""Tensors that are hard to measure, and what their figures are by definition."""

import math

import numpy as np
import pytest
import torch

from qwd.quantize.figures import WeightFigures


def check(w: torch.Tensor, found: WeightFigures, rel: float = 1e-9) -> None:
    """The definitions of design section 3 on the whole tensor at once, moments in long double."""
    every = w.double().numpy().ravel()
    x = every[np.isfinite(every)]
    assert (found.numel, found.nan) == (every.size, np.isnan(every).sum())
    assert (found.inf, found.zeros) == (np.isinf(every).sum(), (x == 0).sum())
    assert (found.a, found.b) == (x.min(), x.max())
    long = x.astype(np.longdouble)
    mean = long.mean()
    spread = long - mean
    std = np.sqrt((spread**2).mean())
    size = float(x.max()) - float(x.min())
    assert found.mean == pytest.approx(float(mean), rel=rel, abs=1e-14 * size)
    assert found.std == pytest.approx(float(std), rel=rel)
    if size:
        kurtosis = float(((spread / std) ** 4).mean() - 3)
        assert found.kurtosis == pytest.approx(kurtosis, rel=rel, abs=1e-9)
    for name, k in (("sigma>3", 3), ("sigma>4", 4), ("sigma>6", 6)):
        assert found.outliers[name] == (np.abs(x - float(mean)) > k * float(std)).sum(), name
    for bits, at in ((8, found), *((each.bits, each) for each in found.widths)):
        scale = size / (2**bits - 1)
        assert at.scale == scale
        codes = np.rint((x - x.min()) / scale) if scale else np.zeros_like(x)
        used, counts = np.unique(codes, return_counts=True)
        assert at.codes_used == used.size
        shares = counts / x.size
        assert at.entropy_bits == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-12)
        if not scale:
            assert (at.sqnr_db, at.rmse_over_scale, at.sqnr_expected_db) == (None,) * 3
            continue
        lost = x.min() + codes * np.longdouble(scale) - long
        error = np.sqrt((lost**2).mean())
        assert at.rmse_over_scale == pytest.approx(float(error / scale), rel=rel, abs=1e-14)
        if error > 1e-9 * scale:  # else rounding errors of float64, or none
            sqnr = float(20 * np.log10(np.sqrt((long**2).mean()) / error))
            assert at.sqnr_db == pytest.approx(sqnr, rel=rel)
        expected = 20 * math.log10(2**bits - 1) + 10.7918 - 20 * math.log10(size / float(std))
        assert at.sqnr_expected_db == pytest.approx(expected, abs=1e-3)


def normal(*shape: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def mixed(dtype=torch.float32) -> torch.Tensor:
    w = normal(40_000).to(dtype)
    w[::97], w[5::1009], w[7::2003] = math.nan, math.inf, -math.inf
    w[100:200] = 0
    return w


ADVERSARIAL = {
    "mean beyond spread": 1e6 + normal(40_000),
    "mean far beyond spread, float64": 1e9 + normal(40_000, dtype=torch.float64),
    "subnormal": torch.arange(-3000, 5000).float() * 2.0**-149,
    "both ends": torch.cat([normal(30_000) * 3e37, torch.tensor([3e38, -3e38])]),
    "one far element": torch.cat([normal(40_000), torch.tensor([1e8])]),
    "1e300": normal(20_000, dtype=torch.float64) * 1e300,
    "1e-300": normal(20_000, dtype=torch.float64) * 1e-300,
    "one element": torch.tensor([0.3]),
    "0-d": torch.tensor(-2.5),
    "constant": torch.full((20_000,), 0.1),
    "zero": torch.zeros(300, 70),
    "one in many": torch.eye(170),
    "steps of two sizes": torch.cat([torch.zeros(30_000), 1 + normal(900) * 1e-3]),
    "not finite": mixed(),
    "not finite, float64": mixed(torch.float64),
    "one finite": torch.cat([torch.full((20_000,), math.nan), torch.tensor([0.1])]),
    "far from what is sampled": torch.where(torch.arange(65_535) % 64 > 0, 1e4 + normal(65_535), 0),
    "transposed": normal(130, 150).T,
    "strided": normal(100, 300)[:, ::3],
    "not aligned": normal(30_001)[1:],
    "repeated": normal(100).expand(200, 100),
    "channels last": normal(8, 9, 10, 30).to(memory_format=torch.channels_last),
}


def close(one: dict, other: dict) -> None:
    """The same but for the order of summation."""
    assert one.keys() == other.keys()
    for name, figure in one.items():
        if name == "widths":
            for a, b in zip(figure, other[name], strict=True):
                close(a, b)
        elif isinstance(figure, float):
            assert figure == pytest.approx(other[name], rel=1e-11, abs=1e-14), name
        else:
            assert figure == other[name], name
