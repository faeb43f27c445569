"""Scales that are powers of two, against the formula in NumPy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwd.quantize.arithmetic import quantize

from .draws import drawn, rows, seeds, several


def expected(w: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, values and scales of the rows of ``w``, in float64, from logarithms of exact ratios.

    The power is the first of 2^k, k rising, that leaves max|w| within half the number of steps.
    """
    w = w.astype(np.float64)
    scales = np.zeros((len(w), 1))
    for row, largest in enumerate(np.abs(w).max(axis=1)):
        if largest:
            k = math.floor(math.log2(largest)) - bits - 1
            while math.ldexp(2**bits - 1, k - 1) < largest:
                k += 1
            scales[row] = math.ldexp(1.0, k)
    steps = w / np.where(scales > 0, scales, 1)
    codes = np.clip(np.rint(steps), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return codes, codes * scales, scales[:, 0]


@pytest.mark.parametrize("least", [1e-4, 1e-37, 1e-42])
@pytest.mark.parametrize("bits", range(2, 9))
@several
@given(seed=seeds)
def test_it_is_symmetric_on_the_next_power_of_two(bits: int, least: float, seed: int) -> None:
    w = rows(seed, count=50, least=least)
    ours = quantize(w, kind="pow2", bits=bits, axis=0)
    codes, values, scales = expected(w.numpy(), bits)
    np.testing.assert_array_equal(ours.scale.numpy(), scales)
    np.testing.assert_array_equal(ours.codes.numpy(), codes)
    np.testing.assert_array_equal(ours.values.numpy().astype(np.float64), values)
    assert not ours.zero_point.any()


@several
@given(seed=seeds, bits=st.integers(2, 8))
def test_per_tensor_in_both_formats(seed: int, bits: int) -> None:
    for dtype in (torch.float32, torch.float64):
        w = drawn(seed, 100, dtype)
        ours = quantize(w, kind="pow2", bits=bits)
        codes, values, scales = expected(w.numpy()[None], bits)
        np.testing.assert_array_equal(ours.codes.numpy(), codes[0])
        np.testing.assert_array_equal(ours.values.numpy(), values[0].astype(w.numpy().dtype))
        assert ours.scale == scales[0]
        assert ours.values.dtype == dtype


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("power", [-160, -149, -130, -126, -20, 0, 20, 118])
def test_exact_powers_stay(bits: int, power: int) -> None:
    """max|w| = 2^k * (2^bits - 1) / 2 has the scale 2^k, and the next float above it 2^(k+1)."""
    largest = torch.tensor([math.ldexp(2**bits - 1, power - 1)], dtype=torch.float64)
    above = largest.nextafter(torch.tensor(math.inf, dtype=torch.float64))
    assert quantize(largest, kind="pow2", bits=bits).scale == 2.0**power
    assert quantize(above, kind="pow2", bits=bits).scale == 2.0 ** (power + 1)
    if power >= -126:
        single = largest.float()
        next_single = single.nextafter(torch.tensor(math.inf))
        assert quantize(single, kind="pow2", bits=bits).scale == 2.0**power
        assert quantize(next_single, kind="pow2", bits=bits).scale == 2.0 ** (power + 1)


@several
@given(seed=seeds, bits=st.integers(2, 8))
def test_the_scale_is_at_most_twice_that_of_symmetric(seed: int, bits: int) -> None:
    w = rows(seed, count=50, least=1e-42)
    pow2 = quantize(w, kind="pow2", bits=bits, axis=0)
    symmetric = quantize(w, kind="symmetric", bits=bits, axis=0)
    assert (pow2.scale <= 2 * symmetric.scale * (1 + 2**-20)).all()
    assert (pow2.scale >= symmetric.scale * (1 - 2**-20)).all()
    assert (torch.frexp(pow2.scale[pow2.scale > 0]).mantissa == 0.5).all()
    # At the largest weight the grid clips by no more than symmetric does.
    largest = w.abs().amax(dim=1).double()
    ends = (
        made.values.abs().amax(dim=1).double() + made.scale / 2 * (1 + 2**-13)
        for made in (pow2, symmetric)
    )
    assert all((end >= largest).all() for end in ends)


def test_the_largest_numbers() -> None:
    for dtype in (torch.float32, torch.float64):
        largest = torch.finfo(dtype).max
        for bits in (2, 3, 8):
            made = quantize(
                torch.tensor([largest, -largest / 3], dtype=dtype), kind="pow2", bits=bits
            )
            assert made.values.isfinite().all()
            assert made.scale.isfinite()
            assert (made.values[0].double() / 2 - largest / 2).abs() <= made.scale / 4 * (
                1 + 2**-13
            )


def test_zeros() -> None:
    made = quantize(torch.zeros(3, 4), kind="pow2", axis=0)
    assert not made.scale.any()
    assert not made.codes.any()
    assert not made.values.any()
