"""The tier without order statistics, its widths and its two engines, against extended precision."""

import math
import tracemalloc
from dataclasses import asdict
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwd.quantize import (
    histogram,
    kernels_loading,
    statistics,
    statistics_passes,
)
from qwd.quantize.statistics import weight_figures
from qwd.registry import OUTLIER_RULES

from .adversarial import ADVERSARIAL, check, close, mixed, normal
from .draws import drawn

ORDERED = ("q1", "median", "q3", "mad", "crowding")
KERNELS = kernels_loading._load()


def use(patch: pytest.MonkeyPatch, engine: ModuleType | None) -> None:
    for module in (statistics, histogram):
        patch.setattr(module, "kernels", lambda _: engine)


@pytest.fixture(params=[None, KERNELS], ids=["numpy", "kernels"])
def engine(request, monkeypatch):
    use(monkeypatch, request.param)
    return request.param


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial(name, engine):
    w = ADVERSARIAL[name]
    before = w.clone()
    found = weight_figures(w, full=False, bits=(8, 6, 4, 2))
    check(w, found)
    assert [each.bits for each in found.widths] == [6, 4, 2]
    assert torch.equal(w.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("full", [True, False])
def test_histograms_of_patterns(dtype, full, engine, monkeypatch):
    for w in (normal(40_001), mixed(), torch.full((9,), -0.25), torch.tensor([0.0, -0.0, 1.0])):
        short = w.to(dtype)
        monkeypatch.setattr(histogram, "LEAST", 0)
        found = weight_figures(short, full=full, bits=(8, 6, 4))
        check(short, found)
        monkeypatch.setattr(histogram, "LEAST", math.inf)
        other = asdict(weight_figures(short, full=full, bits=(8, 6, 4)))
        close(asdict(found), other)


def test_histograms_of_nothing(monkeypatch):
    monkeypatch.setattr(histogram, "LEAST", 0)
    w = torch.full((70,), math.nan, dtype=torch.bfloat16)
    w[3:5] = math.inf
    found = weight_figures(w)
    assert (found.nan, found.inf, found.a, found.zero_point) == (68, 2, None, None)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 3000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    chunk=st.sampled_from([7, 64, 256, 300, 2**14]),
    threads=st.sampled_from([1, 2, 3]),
)
def test_engines_and_threads_agree_bit_for_bit(seed, n, dtype, chunk, threads):
    w = drawn(seed, n, dtype)
    if seed % 3 == 0:
        w[n // 2] = math.nan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "CHUNK", max(chunk, n // 30))
        patch.setattr(statistics_passes, "TASK", 256)
        found = []
        for engine in (None, KERNELS):
            use(patch, engine)
            found.append(weight_figures(w, full=False, bits=(8, 3), threads=1))
            found.append(weight_figures(w, full=False, bits=(8, 3), threads=threads))
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("n", [1, 255, 256, 257, 2**14 - 1, 2**14, 2**14 + 1, 50_000])
def test_borders_of_chunks(n, engine):
    w = normal(n) * 0.02
    check(w, weight_figures(w, full=False, bits=(8, 4)))


def test_ties_round_to_even(engine):
    w = torch.cat([torch.arange(0, 511) / 2, torch.tensor([0.0, 255.0])])
    found = weight_figures(w, full=False)
    check(w, found)
    even = np.unique(np.rint(w.numpy()), return_counts=True)[1] / len(w)
    assert found.entropy_bits == pytest.approx(-(even * np.log2(even)).sum(), rel=1e-12)


@pytest.mark.parametrize("size", [1.0, 1e-150, 1e-160, 1e150, 1e160, 1e-300])
def test_codes_near_a_tie_are_those_of_the_division(size):
    scale = size * 0.7 / 255
    ties = (np.arange(255) + 0.5) * scale
    near = [np.nextafter(ties, np.inf), np.nextafter(ties, 0), ties * (1 + 1e-13)]
    far = np.full(4096, 0.3 * size)  # tiles without a tie
    w = torch.from_numpy(np.concatenate([[0.0, 255 * scale], ties, *near, far]))
    found = []
    for engine in (None, KERNELS):
        with pytest.MonkeyPatch.context() as patch:
            use(patch, engine)
            found.append(weight_figures(w, full=False, bits=(8, 5)))
    assert found[0] == found[1]


def test_both_tiers_say_the_same():
    for seed in range(14):
        w = drawn(seed, 5000)
        few, every = (asdict(weight_figures(w, full=full, bits=(8, 6))) for full in (False, True))
        for name in ORDERED:
            assert few.pop(name) is None
            assert every.pop(name) is not None
        for figures in (few, every):
            for rule in ("iqr>1.5", "mad>3.5"):
                figures["outliers"].pop(rule)
            for width in figures["widths"]:
                width.pop("crowding")
        close(few, every)


def test_rules_that_need_order_are_left_out():
    outliers = weight_figures(normal(1000), full=False).outliers
    assert set(outliers) == set(OUTLIER_RULES.names())
    assert (outliers["iqr>1.5"], outliers["mad>3.5"]) == (None, None)
    assert outliers["sigma>3"] is not None


def test_counts_in_long_sorted_arrays():
    w = torch.from_numpy(np.random.default_rng(0).standard_t(2, 150_000))
    found = weight_figures(w)
    x = w.numpy()
    q1, median, q3 = np.quantile(x, [0.25, 0.5, 0.75])
    reach = 1.5 * (q3 - q1)
    assert found.outliers["iqr>1.5"] == ((x < q1 - reach) | (x > q3 + reach)).sum()
    distance = np.abs(x - median)
    assert found.outliers["mad>3.5"] == (0.6745 * distance / np.median(distance) > 3.5).sum()
    assert found.crowding == len(np.unique(x)) / found.codes_used


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_is_copied(dtype, engine):
    w = torch.zeros(2**22, dtype=dtype)
    w[::3], w[5] = 1, 7
    weight_figures(w[:1000], full=False)
    tracemalloc.start()
    weight_figures(w, full=False, threads=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < w.nbytes / 2


def test_other_widths_are_refused():
    with pytest.raises(ValueError, match="bits are 2 to 8, not \\(8, 9\\)"):
        weight_figures(normal(3), bits=(8, 9))
