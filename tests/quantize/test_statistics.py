"""Figures of weight tensors against a reference in float64, written from the definitions."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qwd.quantize import statistics
from qwd.quantize.arithmetic import quantize
from qwd.quantize.statistics import mean_range, weight_figures

from .draws import drawn

SIGMAS = {"sigma>3": 3, "sigma>4": 4, "sigma>6": 6}


def reference(w: torch.Tensor) -> dict:
    """The definitions of design section 3, on the whole tensor at once."""
    every = w.double().numpy().ravel()
    x = every[np.isfinite(every)]
    a, b = x.min(), x.max()
    mean, std = x.mean(), x.std()
    q1, median, q3 = np.quantile(x, [0.25, 0.5, 0.75])
    mad = scipy.stats.median_abs_deviation(x)
    scale = (b - a) / 255
    codes = np.clip(np.rint((x - a) / scale), 0, 255) if scale else np.zeros_like(x)
    error = a + codes * scale - x
    used, counts = np.unique(codes, return_counts=True)
    outliers: dict[str, int | None] = {
        n: int((abs(x - mean) > k * std).sum()) for n, k in SIGMAS.items()
    }
    reach = 1.5 * (q3 - q1)
    outliers["iqr>1.5"] = int(((x < q1 - reach) | (x > q3 + reach)).sum())
    outliers["mad>3.5"] = int((0.6745 * abs(x - median) / mad > 3.5).sum()) if mad else None
    ratio = (b - a) / std if std else None
    lost = (error**2).sum()
    return {
        "shape": tuple(w.shape),
        "dtype": str(w.dtype)[6:],
        "numel": w.numel(),
        "nan": int(np.isnan(every).sum()),
        "inf": int(np.isinf(every).sum()),
        "a": a,
        "b": b,
        "range": b - a,
        "scale": scale,
        "zero_point": int(quantize(torch.from_numpy(x).to(w.dtype), kind="affine").zero_point),
        "mean": mean,
        "std": std,
        "q1": q1,
        "median": median,
        "q3": q3,
        "mad": mad,
        "range_over_std": ratio,
        "kurtosis": scipy.stats.kurtosis(x) if std else None,
        "sqnr_db": 10 * math.log10((x**2).sum() / lost) if lost else None,
        "sqnr_expected_db": 58.92 - 20 * math.log10(ratio) if ratio else None,
        "rmse_over_scale": math.sqrt((error**2).mean()) / scale if scale else None,
        "codes_used": len(used),
        "entropy_bits": scipy.stats.entropy(counts, base=2),
        "crowding": len(np.unique(x)) / len(used),
        "zeros": int((x == 0).sum()),
        "outliers": outliers,
        "widths": (),
    }


def check(w: torch.Tensor, **tolerance) -> None:
    found, expected = asdict(weight_figures(w)), reference(w)
    assert found.keys() == expected.keys()
    size = expected["range"] or 1.0
    for name, value in expected.items():
        if not isinstance(value, float):
            assert found[name] == value, name
        else:
            # A mean or quartile near zero is exact against the range, not against itself.
            absolute = {"mean": 1e-12 * size, "median": 1e-12 * size, "kurtosis": 1e-9}
            absolute |= {"sqnr_expected_db": 5e-3, "entropy_bits": 1e-12, "rmse_over_scale": 1e-9}
            near = pytest.approx(value, rel=tolerance.get(name, 1e-9), abs=absolute.get(name, 0))
            assert found[name] == near, name


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 3000),
    dtype=st.sampled_from([torch.float32, torch.float32, torch.float64]),
    chunk=st.sampled_from([2**14, 7, 100]),
)
def test_figures_are_the_references(seed, n, dtype, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "CHUNK", max(chunk, n // 20))
        w = drawn(seed, n, dtype)
        few_values = len(w.unique()) < 3  # the error is then rounding noise or none
        check(w, **({"sqnr_db": 1.0, "rmse_over_scale": 1.0} if few_values else {}))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("seed", range(4))
def test_short_formats(dtype, seed):
    w = (torch.randn(3000, generator=torch.Generator().manual_seed(seed)) * 0.1).to(dtype)
    check(w)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16])
def test_shorter_formats_are_exact_in_float32(dtype):
    w = torch.randn(60, 50, generator=torch.Generator().manual_seed(0)).to(dtype)
    short, long = asdict(weight_figures(w)), asdict(weight_figures(w.float()))
    assert short.pop("dtype") == str(dtype)[6:]
    assert long.pop("dtype") == "float32"
    assert short == long


def test_mean_far_beyond_the_spread():
    # Exact: the deviations are multiples of the spacing of float32 at 1e6.
    steps = torch.tensor([-2.0, -1.0, -1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 7.0]).repeat(1000)
    far, near = weight_figures(1e6 + steps / 16), weight_figures(steps / 16)
    assert far.mean == pytest.approx(1e6 + 7 / 160, rel=1e-15)
    for name in ("std", "kurtosis", "range_over_std", "mad", "rmse_over_scale"):
        tolerance = 1e-6 if name == "rmse_over_scale" else 1e-9  # w' itself is rounded at 1e6
        assert getattr(far, name) == pytest.approx(getattr(near, name), rel=tolerance), name
    assert far.outliers == near.outliers
    offset = weight_figures(1e12 + steps.double() / 2**10)
    assert offset.std == pytest.approx(float((steps / 2**10).double().std(correction=0)), rel=1e-12)


def test_one_hot():
    w = torch.zeros(1000, 10)
    w[3, 4] = 5.0
    figures = weight_figures(w)
    n = 10_000
    assert figures.zeros == n - 1
    assert figures.outliers == {
        "sigma>3": 1,
        "sigma>4": 1,
        "sigma>6": 1,
        "iqr>1.5": 1,
        "mad>3.5": None,
    }
    assert figures.range_over_std == pytest.approx(n / math.sqrt(n - 1))
    assert figures.kurtosis == pytest.approx(n**2 / (n - 1) - 6, rel=1e-9)
    assert figures.codes_used == 2
    assert figures.crowding == 1
    assert (figures.q1, figures.median, figures.q3, figures.mad) == (0, 0, 0, 0)


@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, -1e-3, 3e38, 1e-45, 7.0])
@pytest.mark.parametrize("n", [1, 3, 1000, 50_001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_constant_tensors_have_no_spread(value, n, dtype):
    w = torch.full((n,), value, dtype=dtype)
    figures = weight_figures(w)
    exact = float(w[0])
    assert (figures.a, figures.b, figures.mean, figures.median) == (exact,) * 4
    assert (figures.range, figures.scale, figures.std, figures.mad) == (0, 0, 0, 0)
    none = ("range_over_std", "kurtosis", "sqnr_db", "sqnr_expected_db", "rmse_over_scale")
    assert all(getattr(figures, name) is None for name in none)
    assert figures.outliers.pop("mad>3.5") is None
    assert set(figures.outliers.values()) == {0}
    assert (figures.codes_used, figures.entropy_bits, figures.crowding) == (1, 0, 1)
    assert math.copysign(1, figures.entropy_bits or 0) == 1
    assert figures.zeros == (n if exact == 0 else 0)
    assert math.copysign(1, figures.a or 0) == (-1 if exact < 0 else 1)


def test_negative_zero_is_zero():
    w = torch.tensor([0.0, -0.0, 1.0, -0.0])
    figures = weight_figures(w)
    assert figures.zeros == 3
    assert figures.crowding == 1
    assert math.copysign(1, figures.a or 0) == 1


@pytest.mark.parametrize("w", [torch.empty(0), torch.empty(3, 0), torch.full((2,), math.nan)])
def test_no_finite_element_no_figures(w):
    figures = asdict(weight_figures(w))
    assert figures.pop("shape") == tuple(w.shape)
    assert figures.pop("dtype") == "float32"
    assert figures.pop("numel") == w.numel() == figures.pop("nan")
    assert [figures.pop(name) for name in ("inf", "codes_used", "zeros")] == [0, 0, 0]
    assert set(figures.pop("outliers").values()) == {None}
    assert figures.pop("widths") == ()
    assert set(figures.values()) == {None}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_what_is_not_finite_is_counted_and_left_out(dtype):
    finite = torch.randn(500, generator=torch.Generator().manual_seed(0)).to(dtype)
    broken = torch.full((10,), math.nan, dtype=dtype)
    broken[:3], broken[3:5] = math.inf, -math.inf
    figures = asdict(weight_figures(torch.cat([broken[:4], finite, broken[4:]]).reshape(51, 10)))
    assert (figures.pop("nan"), figures.pop("inf"), figures.pop("numel")) == (5, 5, 510)
    expected = asdict(weight_figures(finite))
    assert {n: expected[n] for n in figures if n != "shape"} == {
        n: v for n, v in figures.items() if n != "shape"
    }
    check(torch.cat([broken, finite]))


def test_the_ends_of_float32():
    check(torch.tensor([3e38, -3e38, 1.0, 2e38, -1e30]))
    check(torch.tensor([1e-45, -3e-45, 0.0, 1e-44, 5e-45, 5e-45]))
    check(torch.tensor([3.4028235e38, -3.4028235e38, 3.4028235e38, 0.0, 1e-45]))


@pytest.mark.parametrize("exponent", [1020, 400, -400, -900])
def test_the_ends_of_float64(exponent):
    w = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    usual, far = asdict(weight_figures(w)), asdict(weight_figures(w * 2.0**exponent))
    with_unit = ("a", "b", "range", "scale", "mean", "std", "q1", "median", "q3", "mad")
    for name, figure in usual.items():
        assert far[name] == (figure * 2.0**exponent if name in with_unit else figure), name
    widest = weight_figures(torch.tensor([-1.7e308, 0.0, 1.7e308], dtype=torch.float64))
    assert widest.range is None  # beyond float64
    assert widest.scale == pytest.approx(1.7e308 / 127.5)
    assert widest.kurtosis == pytest.approx(-1.5)
    smallest = weight_figures(torch.tensor([5e-324, 0.0], dtype=torch.float64))
    assert smallest.range_over_std == 2


def test_any_layout():
    w = torch.randn(20, 30, 40, generator=torch.Generator().manual_seed(0))
    figures = asdict(weight_figures(w))
    for other in (w.transpose(0, 2), w[:, ::2], nn.Parameter(w), w.expand(2, 20, 30, 40)):
        given = asdict(weight_figures(other))
        packed = asdict(weight_figures(other.detach().clone(memory_format=torch.contiguous_format)))
        assert given == packed
    moved = asdict(weight_figures(w.transpose(0, 2)))
    assert moved.pop("shape") == (40, 30, 20)
    assert moved.items() <= figures.items()
    before = w.clone()
    weight_figures(w)
    assert torch.equal(w, before)
    assert weight_figures(torch.tensor(2.5)).shape == ()


def test_codes_are_those_of_quantize():
    for seed in range(30):
        w = drawn(seed, 2000)
        quantized = quantize(w, kind="minmax")
        figures = weight_figures(w)
        assert figures.codes_used == len(quantized.codes.unique())
        assert figures.scale == float(quantized.scale)
        error = quantized.values - w.double()
        rmse = float(error.square().mean().sqrt() / quantized.scale)
        assert figures.rmse_over_scale == pytest.approx(rmse, rel=1e-12)


def test_uniform_rounding_error():
    w = torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    check(w)
    figures = weight_figures(w)
    assert figures.rmse_over_scale == pytest.approx(1 / math.sqrt(12), rel=2e-3)
    assert figures.sqnr_db == pytest.approx(figures.sqnr_expected_db, abs=0.05)


def test_a_wider_tensor_has_the_same_shape_figures():
    w = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    one, other = weight_figures(w), weight_figures(w / 1024)
    for name in ("range_over_std", "kurtosis", "sqnr_db", "rmse_over_scale", "codes_used"):
        assert getattr(one, name) == getattr(other, name)
    assert one.outliers == other.outliers


def test_mean_range_is_weighted_by_elements():
    weights = [torch.randn(3, 4), torch.randn(2, 2, 3, 3), torch.zeros(2, 2)]
    figures = [weight_figures(w) for w in weights]
    n = sum(f.numel for f in figures)
    expected = sum((f.range or 0) * f.numel for f in figures) / n
    assert mean_range(weights) == pytest.approx(expected, rel=1e-6)


def test_mean_range_of_nothing():
    assert mean_range([]) is None
    assert mean_range([torch.empty(0, 2)]) is None
    assert mean_range([torch.ones(2, 2)]) == 0.0
    assert mean_range([torch.tensor([[math.nan, 1.0]])]) is None
    assert mean_range([torch.eye(2, dtype=torch.bfloat16)]) == 1.0
