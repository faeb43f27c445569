"""The interval of a drop: paired, and honest about few images."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from qwd.report.function import functional_figures
from qwd.report.paired import difference, effect, interval

Z = float(norm.ppf(0.975))


def score(b: int, c: int, n: int, d: float) -> float:
    """The score statistic of a difference d, its nuisance found by maximizing the likelihood."""

    def loss(q: float) -> float:
        cells = ((b, q + d), (c, q), (n - b - c, 1 - 2 * q - d))
        return -sum(k * math.log(p) for k, p in cells if k)

    ends = max(0.0, -d) + 1e-12, (1 - d) / 2 - 1e-12
    q = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-13}).x
    return (b - c - n * d) / math.sqrt(n * (2 * q + d * (1 - d)))


@pytest.mark.parametrize(
    ("b", "c", "n"), [(9, 1, 10), (14, 5, 100), (3, 2, 5), (44, 1, 2000), (200, 150, 2000)]
)
def test_the_ends_are_where_the_score_test_rejects(b: int, c: int, n: int) -> None:
    low, high = interval(b, c, n)
    assert score(b, c, n, low) == pytest.approx(Z, rel=1e-4)
    assert score(b, c, n, high) == pytest.approx(-Z, rel=1e-4)


def test_no_difference_in_few_images_is_not_certainty() -> None:
    for n in (10, 180, 2000):
        low, high = interval(0, 0, n)
        assert high == pytest.approx(Z**2 / (n + Z**2))
        assert low == pytest.approx(-high)


counts = st.integers(0, 40)


@given(counts, counts, counts.map(lambda n: n + 1))
def test_any_interval_holds_the_estimate_and_mirrors(b: int, c: int, neither: int) -> None:
    n = b + c + neither
    low, high = interval(b, c, n)
    assert -1 <= low < (b - c) / n < high <= 1
    assert interval(c, b, n) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize("n", [1, 7, 500])
def test_everything_lost_ends_at_one(n: int) -> None:
    low, high = interval(n, 0, n)
    assert (low > 0) == (n > 3)
    assert high == 1


def test_coverage_is_that_of_the_confidence() -> None:
    generator = torch.Generator().manual_seed(0)
    n, lost, gained = 200, 0.06, 0.03
    inside = 0
    for _ in range(1500):
        u = torch.rand(n, generator=generator)
        low, high = interval(int((u < lost).sum()), int((u > 1 - gained).sum()), n)
        inside += low <= lost - gained <= high
    assert 0.93 < inside / 1500 < 0.97


def test_effects_are_those_of_every_other_accuracy() -> None:
    generator = torch.Generator().manual_seed(1)
    reference = torch.randn(90, 5, generator=generator)
    outputs = reference + 0.4 * torch.randn(90, 5, generator=generator)
    labels = reference.argmax(dim=1).clone()
    labels[::4] = 0
    found = effect(reference, outputs, labels)
    known = functional_figures(reference, outputs, labels)
    for name in ("accuracy", "drop_pp", "flip_n", "flip_rate", "kl"):
        assert getattr(found, name) == known[name]
    right, right_now = (o.argmax(dim=1) == labels for o in (reference, outputs))
    assert difference(right, right_now) == (
        pytest.approx(found.drop_pp),
        found.drop_low_pp,
        found.drop_high_pp,
    )
    assert found.drop_low_pp < found.drop_pp < found.drop_high_pp
