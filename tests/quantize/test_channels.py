"""Channel figures against the arithmetic of `quantize`, channel by channel."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwd.quantize import channels, kernels_loading
from qwd.quantize.arithmetic import quantize
from qwd.quantize.channels import FLOORS, ChannelFigures, channel_figures
from qwd.quantize.statistics import weight_figures

from .draws import rows

KERNELS = kernels_loading._load()


@pytest.fixture(params=[None, KERNELS], ids=["numpy", "kernels"])
def engine(request, monkeypatch):
    monkeypatch.setattr(channels, "kernels", lambda _: request.param)
    return request.param


def normal(*shape: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def check(w: torch.Tensor, axis: int, found: ChannelFigures) -> None:
    x = w.double().movedim(axis, 0).numpy().reshape(w.shape[axis], -1)
    kept = [row[np.isfinite(row)] for row in x]
    levels = 2**found.bits - 1
    spans = np.array([row.max() - row.min() for row in kept if row.size])
    n = np.array([row.size for row in kept if row.size])
    assert found.channels == len(kept)
    given = [row.max() - row.min() if row.size else None for row in kept]
    assert list(found.ranges) == given
    assert found.range_median == np.median(spans)
    if np.median(spans):
        assert found.spread == pytest.approx(spans.max() / np.median(spans), rel=1e-12)
    else:
        assert found.spread is None
    dead = [k for k, row in enumerate(kept) if row.size and not row.any()]
    assert found.dead == tuple(dead)
    scales = spans / levels
    assert found.floored == {
        name: int(((scales > 0) & (scales < floor)).sum()) for name, floor in FLOORS.items()
    }
    quantized = quantize(w, kind="minmax", bits=found.bits, axis=axis)
    finite = w.isfinite()
    lost = (quantized.values - w.double())[finite].numpy()
    every = np.concatenate(kept).astype(np.longdouble)
    signal, error = float((every**2).mean()), float((lost.astype(np.longdouble) ** 2).mean())
    if not error:
        assert found.sqnr_db is None
        return
    assert found.sqnr_db == pytest.approx(10 * math.log10(signal / error), rel=1e-9)
    variance = float(((every - every.mean()) ** 2).mean())
    noise = float((n * scales**2).sum() / n.sum() / 12)
    assert found.sqnr_expected_db == pytest.approx(10 * math.log10(variance / noise), rel=1e-9)
    whole = quantize(w, kind="minmax", bits=found.bits)
    lost = (whole.values - w.double())[finite].numpy()
    one = 10 * math.log10(signal / float((lost.astype(np.longdouble) ** 2).mean()))
    assert found.tensor_sqnr_db == pytest.approx(one, rel=1e-9)
    assert found.gain_db == pytest.approx((found.sqnr_db or 0) - one, abs=1e-9)


def mixed() -> torch.Tensor:
    w = normal(12, 3000) * torch.logspace(1, -6, 12)[:, None]
    w[2], w[7] = 0, 0.5
    w[3, ::7], w[4, 5], w[5, 100] = math.nan, math.inf, -math.inf
    w[9] = math.nan
    return w


CASES = {
    "rows": (normal(64, 300) * torch.logspace(-4, 0, 64)[:, None], 0),
    "convolution": (normal(16, 8, 3, 3), 0),
    "depthwise": (normal(32, 1, 3, 3) * torch.logspace(-3, 2, 32).reshape(-1, 1, 1, 1), 0),
    "transposed convolution": (normal(20, 8, 3, 3), 1),
    "last axis": (normal(500, 7), -1),
    "channels last": (normal(8, 6, 5, 5).to(memory_format=torch.channels_last), 0),
    "wide": (normal(3, 70_001), 0),
    "not finite": (mixed(), 0),
    "dead": (torch.zeros(4, 5), 0),
    "vector": (normal(30), 0),
    "bfloat16": (normal(16, 500).bfloat16(), 0),
    "float64": (normal(16, 500, dtype=torch.float64), 0),
    "every size": (
        normal(40, 300, dtype=torch.float64)
        * torch.logspace(-305, 50, 40, dtype=torch.float64)[:, None],
        0,
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("bits", [8, 4])
def test_channels(name, bits, engine):
    w, axis = CASES[name]
    check(w, axis % w.ndim, channel_figures(w, axis, bits=bits))


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    threads=st.sampled_from([1, 2, 3]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_engines_and_threads_agree_bit_for_bit(seed, threads, dtype):
    w = rows(seed, 50, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channels, "TASK", 100)
        found = []
        for engine in (None, KERNELS):
            patch.setattr(channels, "kernels", lambda _, engine=engine: engine)
            found.append(channel_figures(w, threads=1))
            found.append(channel_figures(w, threads=threads))
    assert all(each == found[0] for each in found)
    assert found[0].ranges == tuple((w.double().amax(1) - w.double().amin(1)).tolist())


def test_the_gain_of_unequal_channels():
    w = normal(64, 4096)
    equal = channel_figures(w)
    assert 0 < (equal.gain_db or 0) < 3
    # One scale gives every channel the error of the widest one; 63 of 64 have 2^-10 of it alone.
    w[0] *= 2**5
    found = channel_figures(w)
    assert found.spread == pytest.approx(2**5, rel=0.2)
    assert found.gain_db == pytest.approx(10 * math.log10(64 / (1 + 63 / 2**10)), abs=0.2)


def test_figures_of_the_tensor_are_taken_as_given():
    w = normal(16, 100)
    of = weight_figures(w, bits=(8, 4))
    for bits in (8, 4):
        assert channel_figures(w, bits=bits, of=of) == channel_figures(w, bits=bits)


@pytest.mark.parametrize("exponent", [900, -900])
def test_the_ends_of_float64(exponent):
    w = normal(9, 400, dtype=torch.float64)
    usual, far = asdict(channel_figures(w)), asdict(channel_figures(w * 2.0**exponent))
    for name in ("spread", "sqnr_db", "sqnr_expected_db", "gain_db", "dead"):
        assert far[name] == usual[name], name
    assert far["range_median"] == usual["range_median"] * 2.0**exponent
    assert far["ranges"] == tuple(r * 2.0**exponent for r in usual["ranges"])


def test_channels_farther_apart_than_float64_reaches():
    sizes = torch.tensor([1e300, 1e-300, 1e-20, 0.0], dtype=torch.float64)
    w = normal(4, 400, dtype=torch.float64) * sizes[:, None]
    w[1, 0] = float("nan")
    found = channel_figures(w)
    assert found.dead == (3,)
    assert set(found.floored.values()) == {2}
    assert found.ranges[2] == float(w[2].max() - w[2].min())
    assert found.spread is None


@pytest.mark.parametrize("shape", [(0,), (0, 3), (4, 0)])
def test_without_elements(shape):
    found = channel_figures(torch.empty(shape))
    assert found.channels == shape[0]
    assert found.ranges == (None,) * shape[0]
    assert (found.sqnr_db, found.range_median, found.spread, found.dead) == (None, None, None, ())


def test_an_axis_that_is_not_there():
    with pytest.raises(IndexError, match="the tensor has 2 axes, there is no axis 2"):
        channel_figures(normal(3, 4), 2)
