"""The arithmetic against its formula, and at the ends of every format."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwd.quantize.arithmetic import KINDS, Kind, grid, quantize

from .draws import rows, seeds, several


@several
@given(seed=seeds, bits=st.integers(2, 8))
def test_minmax_is_the_formula(seed, bits):
    w = rows(seed, count=50, least=1e-30)
    ours = quantize(w, kind="minmax", bits=bits, axis=0)
    x = w.numpy().astype(np.float64)
    a, b = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
    scale = (b - a) / (2**bits - 1)
    with np.errstate(invalid="ignore"):
        q = np.nan_to_num(np.clip(np.rint((x - a) / scale), 0, 2**bits - 1))
    np.testing.assert_array_equal(ours.codes.numpy(), q)
    np.testing.assert_array_equal(ours.values.numpy(), a + q * scale)
    np.testing.assert_array_equal(ours.scale.numpy(), scale[:, 0])
    np.testing.assert_array_equal(ours.a.numpy(), a[:, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
@several
@given(seed=seeds, bits=st.integers(2, 8))
def test_no_weight_moves_by_more_than_half_a_step(kind, dtype, seed, bits):
    limits = torch.finfo(dtype)
    w = rows(
        seed, count=60, least=limits.smallest_normal * 1e-3, most=limits.max / 1e4, dtype=dtype
    )
    for axis in (None, 0, 1):
        check_bound(w, quantize(w, kind=kind, bits=bits, axis=axis), bits, axis)


@pytest.mark.parametrize("kind", KINDS)
@settings(several, max_examples=300)
@given(
    numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=9),
    bits=st.integers(2, 8),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_no_weight_moves_by_more_than_half_a_step_at_the_ends_of_the_format(
    kind, numbers, bits, dtype
):
    limits = torch.finfo(dtype)
    w = torch.tensor(numbers, dtype=torch.float64).clamp(limits.min, limits.max).to(dtype)
    tiny = w / w.abs().max().clamp(min=1) * limits.smallest_normal
    for x in (w, tiny):
        check_bound(x, quantize(x, kind=kind, bits=bits), bits, None)


def check_bound(w, quantized, bits, axis):
    shape = [-1 if d == axis else 1 for d in range(w.ndim)]
    scale = quantized.scale.reshape(shape if axis is not None else [1] * w.ndim)
    # Halved: the difference of two float64 numbers may be beyond float64.
    moved = (w.double() / 2 - quantized.values.double() / 2).abs()
    assert (moved <= scale / 4 * (1 + 2**-13)).all()
    low = 0 if quantized.codes.min() >= 0 else -(2 ** (bits - 1))
    assert low <= quantized.codes.min()
    assert quantized.codes.max() - low < 2**bits
    assert quantized.values.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, -7.5, 1e-42, 3e38])
def test_constant_tensors(kind, value):
    w = torch.full((3, 4), value)
    quantized = quantize(w, kind=kind)
    if kind == "minmax" or value == 0:
        assert float(quantized.scale) == 0
        assert torch.equal(quantized.values, w.to(quantized.values.dtype))
    else:  # widened to hold 0, so there is a step, and the constant is at its end
        assert float(quantized.scale) > 0
        assert abs(float(quantized.values[0, 0]) - float(w[0, 0])) <= float(quantized.scale) * 0.501
    assert len(quantized.codes.unique()) == 1


def test_float64_keeps_its_precision():
    w = torch.tensor([1.0, 1.0 + 2**-50, 1.0 + 2**-44], dtype=torch.float64)
    assert quantize(w, kind="minmax").codes.tolist() == [0, 4, 255]
    w = torch.tensor([-1.0, 0.5, 1.0], dtype=torch.float64)
    for kind in ("affine", "symmetric"):
        quantized = quantize(w, kind=kind)
        assert quantized.values.dtype == torch.float64
        assert float(quantized.scale) == 2 / 255


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_are_none_are_kept_and_left_out(kind):
    w = torch.tensor([[1.0, math.nan, -2.0], [math.inf, 0.5, -math.inf], [math.nan] * 3])
    kept = w.isfinite()
    for axis in (None, 0, 1):
        quantized = quantize(w, kind=kind, axis=axis)
        np.testing.assert_array_equal(quantized.values[~kept], w[~kept])  # NaN equals NaN here
        assert quantized.values[kept].isfinite().all()
        assert (quantized.codes[~kept] == 0).all()
        assert quantized.scale.isfinite().all()
    assert float(quantize(w, kind=kind).scale) == float(quantize(w[kept], kind=kind).scale)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes(kind):
    assert quantize(torch.tensor(2.0), kind=kind).codes.shape == ()
    for axis, scale in [(None, ()), (0, (0,)), (1, (3,)), (-1, (3,))]:
        empty = quantize(torch.empty(0, 3), kind=kind, axis=axis)
        assert empty.codes.shape == empty.values.shape == (0, 3)
        assert empty.scale.shape == empty.zero_point.shape == empty.a.shape == scale
    w = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    for axis in range(-3, 3):
        every = quantize(w, kind=kind, axis=axis)
        for i in range(w.shape[axis]):
            one = quantize(w.select(axis, i), kind=kind)
            assert torch.equal(one.codes, every.codes.select(axis, i))
            assert torch.equal(one.values, every.values.select(axis, i))
            assert one.scale == every.scale[i]
            assert one.zero_point == every.zero_point[i]
    turned = quantize(w.transpose(0, 2), kind=kind)
    assert torch.equal(turned.codes, quantize(w, kind=kind).codes.transpose(0, 2))
    assert turned.codes.dtype == torch.int32
    assert turned.scale.dtype == torch.float64
    assert turned.zero_point.dtype == torch.int64


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_short_formats_are_exact_in_float32(kind, dtype):
    w = torch.randn(9, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    short, upcast = quantize(w, kind=kind), quantize(w.float(), kind=kind)
    assert torch.equal(short.codes, upcast.codes)
    assert torch.equal(short.values, upcast.values)
    assert short.values.dtype == (torch.float64 if kind == "minmax" else torch.float32)


@pytest.mark.parametrize("kind", KINDS)
@several
@given(seed=seeds, exponent=st.integers(-20, 20), bits=st.integers(2, 8))
def test_size_does_not_matter(kind, seed, exponent, bits):
    w = rows(seed, count=20, most=1e4)
    factor = 2.0**exponent
    one = quantize(w, kind=kind, bits=bits, axis=0)
    other = quantize(w * factor, kind=kind, bits=bits, axis=0)
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.values * factor, other.values)


@several
@given(seed=seeds, bits=st.integers(2, 8))
def test_affine_has_a_code_that_is_zero(seed, bits):
    w = rows(seed, count=50)
    w[:, 0] = 0
    quantized = quantize(w, kind="affine", bits=bits, axis=0)
    assert (quantized.values[:, 0] == 0).all()
    assert torch.equal(quantized.codes[:, 0].long(), quantized.zero_point)


def test_wrong_use():
    w = torch.ones(2, 2)
    with pytest.raises(ValueError, match="kind is one of"):
        quantize(w, kind="power-of-two")  # pyright: ignore[reportArgumentType]
    for bits in (1, 9, 0, -8):
        with pytest.raises(ValueError, match="bits are 2 to 8"):
            quantize(w, kind="minmax", bits=bits)
    with pytest.raises(ValueError, match="floating-point"):
        quantize(w.int(), kind="minmax")
    with pytest.raises(IndexError):
        quantize(w, kind="minmax", axis=2)
    assert get_args(Kind) == KINDS


def test_the_grid_comes_from_the_range_alone():
    w = torch.tensor([-0.3, 0.1, 0.9])
    quantized = quantize(w, kind="affine")
    alone = grid(w.min(), w.max(), kind="affine")
    assert alone.scale == quantized.scale
    assert alone.zero_point == quantized.zero_point == -128 + 64
