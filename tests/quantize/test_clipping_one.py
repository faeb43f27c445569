"""The clip of one weight, from a sample where it is large, against the exact search."""

import math

import pytest
import torch

from qwd.quantize import clipping_one
from qwd.quantize.clipping import clipped_range
from qwd.quantize.clipping_one import clip_and_sqnr


def heavy(*shape: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.distributions.StudentT(4.0).sample(shape)


def with_gaps() -> torch.Tensor:
    w = heavy(50, 400)
    w[3, 7], w[9] = math.nan, math.inf
    return w


CASES = {
    "matrix": heavy(100, 300),
    "transposed": heavy(300, 100).T,
    "channels last": heavy(8, 16, 5, 5).to(memory_format=torch.channels_last),
    "vector with a stride": heavy(4000)[::2],
    "bfloat16": heavy(60, 70).bfloat16(),
    "float64": heavy(60, 70).double() * 1e-30,
    "not finite": with_gaps(),
    "one sign": heavy(60, 70).abs() + 1,
}


def sqnr_within(w: torch.Tensor, lo: float, hi: float) -> float:
    kept = w[w.isfinite()].double()
    scale = (hi - lo) / 255
    lost = lo + ((kept.clamp(lo, hi) - lo) / scale).round() * scale - kept
    return 10 * math.log10(kept.square().sum() / lost.square().sum())


def ends(w: torch.Tensor) -> tuple[float, float]:
    kept = w[w.isfinite()]
    return float(kept.min()), float(kept.max())


def tried(w: torch.Tensor) -> list[tuple[float, float]]:
    a, b = ends(w)
    most = max(-a, b)
    even = [(r / 100 * a, r / 100 * b) for r in range(1, 101)]
    even = [(max(a, lo), min(b, max(a, hi))) for lo, hi in even]
    wide = [most * 10 ** (-2 * k / 99) for k in range(100)]
    uneven = [(max(a, -end), min(b, end)) for end in wide]
    return [(lo, hi) for lo, hi in even + uneven if hi > lo]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("part", [64, 2**17])
def test_small_weights_are_clipped_where_it_is_best(
    name: str, part: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(clipping_one, "PART", part)
    w = CASES[name]
    lo, hi, sqnr = clip_and_sqnr(w, *ends(w))
    assert sqnr == pytest.approx(sqnr_within(w, lo, hi), rel=1e-9)
    assert sqnr == pytest.approx(max(sqnr_within(w, *each) for each in tried(w)), abs=1e-4)


def test_an_outlier_on_one_side_is_cut_off_there():
    w = heavy(400, 4000).clamp(-5, 5)
    w[3, 3] = 40.0
    lo, hi, sqnr = clip_and_sqnr(w, *ends(w))
    assert -5 <= lo < -3
    assert hi < 12
    even = clipped_range(w, clip="mse", kind="minmax")
    assert sqnr is not None
    assert sqnr > sqnr_within(w, *map(float, even)) + 3


def test_a_sample_finds_nearly_the_best(monkeypatch: pytest.MonkeyPatch):
    w = heavy(400, 512)
    w[17, 5] = 300.0
    best = clip_and_sqnr(w, *ends(w))[2]
    monkeypatch.setattr(clipping_one, "SAMPLE", 5000)
    monkeypatch.setattr(clipping_one, "PART", 777)
    lo, hi, sqnr = clip_and_sqnr(w, *ends(w))
    assert best is not None
    assert sqnr is not None
    assert best - 0.2 < sqnr <= best
    assert sqnr == pytest.approx(sqnr_within(w, lo, hi), rel=1e-9)
