"""Ranges that are cut: against NumPy's percentiles, and every range tried by itself."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwd.quantize import backend
from qwd.quantize.arithmetic import quantize
from qwd.quantize.clipping import clipped_range, least_error, quantize_clipped
from qwd.quantize.schemes import CLIPS, KINDS, Clip, Kind, parse_scheme

from .draws import drawn, rows, seeds, several


def tried(w: torch.Tensor, kind: Kind, bits: int) -> list[tuple[float, float, float]]:
    """The error, and the ends, of every shrinking of the range, each quantized by itself."""
    lo, hi = w.min(), w.max()
    found = []
    for step in range(100, 0, -1):
        share = torch.tensor(step, dtype=w.dtype) / 100
        low, high = (lo * share).clamp(lo, hi), (hi * share).clamp(lo, hi)
        values = quantize(w.clamp(low, high), kind=kind, bits=bits).values
        error = (values.double() - w.double()).square().sum()
        found.append((error.item(), low.item(), high.item()))
    return found


@pytest.mark.parametrize("kind", KINDS)
@several
@given(seed=seeds, bits=st.sampled_from([2, 3, 4, 8]))
def test_mse_is_the_best_of_a_hundred_ranges(kind: Kind, seed: int, bits: int) -> None:
    w = drawn(seed, 400)
    candidates = tried(w, kind, bits)
    least = min(error for error, _, _ in candidates)
    lo, hi = clipped_range(w, clip="mse", kind=kind, bits=bits)
    chosen = next(error for error, *ends in candidates if ends == [lo.item(), hi.item()])
    # The error is found from sums: two that are equal but for rounding may change places.
    assert chosen <= least * (1 + 1e-5) + 1e-12 * float(w.double().square().sum())
    made = quantize_clipped(w, clip="mse", kind=kind, bits=bits)
    assert (made.values.double() - w.double()).square().sum().item() == pytest.approx(chosen)


def test_mse_takes_the_widest_of_equal_ranges() -> None:
    w = torch.zeros(7)
    assert clipped_range(w, clip="mse", kind="affine") == (0, 0)
    constant = torch.full((7,), -3.0)
    lo, hi = clipped_range(constant, clip="mse", kind="minmax")
    assert (lo, hi) == (-3, -3)
    exact = torch.tensor([-1.0, 0.0, 1.0, 2.0])  # on the grid of its whole range at 2 bits
    lo, hi = clipped_range(exact, clip="mse", kind="affine", bits=2)
    assert (lo, hi) == (-1, 2)
    # A power of two takes in a range up to twice as wide at the same error.
    lo, hi = clipped_range(torch.tensor([-1.0, 1.0, 0.5]), clip="mse", kind="pow2", bits=8)
    assert (lo, hi) == (-1, 1)


def test_mse_beats_the_whole_range_where_few_weights_stand_out() -> None:
    w = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    w[:2] = torch.tensor([-20, 20])
    for kind in KINDS:
        errors = {
            clip: float(
                (quantize_clipped(w, clip=clip, kind=kind, bits=4).values - w).square().sum()
            )
            for clip in CLIPS
        }
        assert errors["mse"] < errors["none"] / 2
        assert errors["mse"] <= errors["percentile"]


@several
@given(seed=seeds)
def test_percentiles_are_those_of_numpy(seed: int) -> None:
    for n in (1, 2, 50, 30_001):
        w = drawn(seed, n, torch.float64)
        lo, hi = clipped_range(w, clip="percentile", kind="affine")
        expected = np.percentile(w.numpy(), [0.01, 99.99])
        spread = np.ptp(w.numpy())
        np.testing.assert_allclose(
            [lo.item(), hi.item()], expected, rtol=1e-12, atol=1e-12 * spread
        )


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_channel_is_a_tensor_of_its_own(clip: Clip, kind: Kind, axis: int) -> None:
    w = torch.randn(5, 4, 30, generator=torch.Generator().manual_seed(1)) ** 3
    lo, hi = clipped_range(w, clip=clip, kind=kind, bits=4, axis=axis)
    made = quantize_clipped(w, clip=clip, kind=kind, bits=4, axis=axis)
    for i in range(w.shape[axis]):
        channel = w.select(axis, i)
        low, high = clipped_range(channel, clip=clip, kind=kind, bits=4)
        assert (lo.select(axis, 0 if lo.shape[axis] == 1 else i) == low).all()
        assert (hi.select(axis, 0 if hi.shape[axis] == 1 else i) == high).all()
        alone = quantize_clipped(channel, clip=clip, kind=kind, bits=4)
        assert torch.equal(made.codes.select(axis, i), alone.codes)
        assert torch.equal(made.values.select(axis, i), alone.values)


@several
@given(seed=seeds, bits=st.integers(2, 8))
def test_none_is_the_whole_range(seed: int, bits: int) -> None:
    w = rows(seed, count=20)
    for kind in KINDS:
        lo, hi = clipped_range(w, clip="none", kind=kind, axis=0)
        assert torch.equal(lo[:, 0], w.amin(dim=1))
        assert torch.equal(hi[:, 0], w.amax(dim=1))
        ours = quantize_clipped(w, clip="none", kind=kind, bits=bits, axis=0)
        plain = quantize(w, kind=kind, bits=bits, axis=0)
        assert torch.equal(ours.values, plain.values)


@pytest.mark.parametrize("clip", CLIPS)
def test_numbers_that_are_none_are_left_out(clip: Clip) -> None:
    w = torch.randn(3, 50, generator=torch.Generator().manual_seed(2))
    spoiled = torch.cat([w, torch.tensor([math.nan, math.inf, -math.inf]).expand(3, 3)], dim=1)
    spoiled = torch.cat([spoiled, torch.full((1, 53), math.nan)])
    for kind in KINDS:
        lo, hi = clipped_range(spoiled, clip=clip, kind=kind, bits=4, axis=0)
        low, high = clipped_range(w, clip=clip, kind=kind, bits=4, axis=0)
        assert torch.equal(lo[:3], low)
        assert torch.equal(hi[:3], high)
        assert lo[3] == hi[3] == 0
        values = quantize_clipped(spoiled, clip=clip, kind=kind, bits=4, axis=0).values
        kept = quantize_clipped(w, clip=clip, kind=kind, bits=4, axis=0).values
        assert torch.equal(values[:3, :50], kept)
        np.testing.assert_array_equal(values[:, 50:], spoiled[:, 50:])


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("size", [1e-42, 1e-36, 1e-6, 1e36])
@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_of_the_format(clip: Clip, size: float, kind: Kind) -> None:
    w = torch.tensor([-1.0, 0.3, 0.2, 0.7, 2.0]) * size
    made = quantize_clipped(w, clip=clip, kind=kind, bits=8)
    assert made.values.isfinite().all()
    assert ((made.values.double() - w.double()).abs() <= 0.05 * size).all()
    double = w.double() * 1e250
    assert quantize_clipped(double, clip=clip, kind=kind).values.isfinite().all()


@pytest.mark.parametrize("clip", CLIPS)
def test_shapes(clip: Clip) -> None:
    for shape, axis, kept in [((), None, ()), ((0, 3), 1, (1, 3)), ((2, 0), None, (1, 1))]:
        lo, hi = clipped_range(torch.ones(shape), clip=clip, kind="affine", axis=axis)
        assert lo.shape == hi.shape == kept
    half = torch.randn(9, 9, generator=torch.Generator().manual_seed(0)).half()
    lo, hi = clipped_range(half, clip=clip, kind="affine")
    low, high = clipped_range(half.float(), clip=clip, kind="affine")
    assert lo.dtype == torch.float32
    assert (lo, hi) == (low, high)


def test_counted_values_are_that_many_values() -> None:
    values = torch.tensor([-2.0, -0.5, 0.1, 0.2, 3.0], dtype=torch.float64)
    counts = torch.tensor([1, 500, 800, 900, 2])
    repeated = values.repeat_interleave(counts)
    ends = least_error(values[None], counts[None], torch.tensor([5]), kind="affine", bits=3)
    lo, hi = clipped_range(repeated, clip="mse", kind="affine", bits=3)
    assert (ends[0], ends[1]) == (lo, hi)
    assert hi < 3


@pytest.mark.parametrize("name", ["affine-tensor-mse-w4", "affine-channel-percentile-w3"])
def test_schemes_of_weights_alone_are_clipped(name: str) -> None:
    scheme = parse_scheme(name)
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] = 2
    made = backend.quantize(torch.nn.Sequential(layer), scheme, [torch.zeros(1, 3, 4, 4)])
    axis = 0 if scheme.granularity == "channel" else None
    expected = quantize_clipped(
        layer.weight, clip=scheme.clip, kind=scheme.kind, bits=scheme.weight_bits, axis=axis
    )
    unclipped = quantize(layer.weight, kind=scheme.kind, bits=scheme.weight_bits, axis=axis)
    found = made.converted.network[0].weight
    assert torch.equal(found, expected.values)
    assert not torch.equal(found, unclipped.values)
    words = {"mse": "least squared error", "percentile": "0.01 and 99.99 percentiles"}
    assert made.description.observer == f"{words[scheme.clip]} of the weights"


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="clip is one of none, percentile, mse, not 'max'"):
        clipped_range(torch.ones(3), clip="max", kind="affine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bits are 2 to 8"):
        clipped_range(torch.ones(3), clip="mse", kind="affine", bits=9)
    with pytest.raises(IndexError):
        clipped_range(torch.ones(3), clip="none", kind="affine", axis=1)
