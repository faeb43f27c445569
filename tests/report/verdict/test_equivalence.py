"""The two one-sided tests, and the seeds it takes to decide, against scipy and simulation."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from qwd.report.verdict.equivalence import (
    difference_power,
    equivalence_p,
    equivalence_power,
    seeds_to_decide,
)


def by_hand(changes, margin: float) -> float:
    above: Any = stats.ttest_1samp(changes, -margin, alternative="greater")
    below: Any = stats.ttest_1samp(changes, margin, alternative="less")
    return float(max(above.pvalue, below.pvalue))


@pytest.mark.parametrize("n", [2, 3, 8, 30])
@pytest.mark.parametrize("mean", [-0.7, -0.2, 0.0, 0.49, 3.0])
def test_p_is_the_larger_of_two_one_sided_t_tests(n: int, mean: float):
    changes = np.random.default_rng(n).normal(mean, 0.3, n)
    assert equivalence_p(changes, 0.5) == pytest.approx(by_hand(changes, 0.5), rel=1e-9)


def test_at_the_margin_equivalence_is_claimed_no_oftener_than_the_level():
    generator = np.random.default_rng(2)
    for n, s in ((7, 0.1), (8, 0.4), (20, 0.4)):
        claims = [equivalence_p(c, 0.5) <= 0.05 for c in generator.normal(0.5, s, (4000, n))]
        assert np.mean(claims) <= 0.05 + 4 * (0.05 * 0.95 / 4000) ** 0.5
        within = [equivalence_p(c, 0.5) <= 0.05 for c in generator.normal(0.0, 0.1, (200, n))]
        assert np.mean(within) > 0.95


def test_no_observed_spread_is_that_of_rounding_to_steps():
    # 8 times the same accuracy on 360 images is equivalent within 0.5 pp, on 40 images it is not.
    assert equivalence_p([0.0] * 8, 0.5, 100 / 360) < 0.01
    assert equivalence_p([0.0] * 8, 0.5, 100 / 40) > 0.05
    assert equivalence_p([0.5] * 8, 0.5, 100 / 360) == 0.5


LEVELS = {"level": 0.05 / 3, "equivalence_level": 0.05 / 3}


def sign_flip_free_power(n: int, effect: float, margin: float) -> tuple[float, float]:
    """Shares of simulated sweeps of spread 1 that reject, and that show equivalence."""
    generator = np.random.default_rng(n)
    changes = generator.normal(effect, 1, (4000, n))
    found: Any = stats.ttest_1samp(changes, 0, axis=1)
    t = stats.t.ppf(1 - 0.05 / 3, n - 1)
    half = t * changes.std(axis=1, ddof=1) / n**0.5
    return float(np.mean(found.pvalue <= 0.05 / 3)), float(
        np.mean(abs(changes.mean(axis=1)) + half < margin)
    )


@pytest.mark.parametrize(("n", "effect"), [(8, 0.5), (8, 1.5), (20, 0.8), (60, 0.3)])
def test_powers_against_simulation(n: int, effect: float):
    found, _ = sign_flip_free_power(n, effect, 1.0)
    assert difference_power(n, effect, 0.05 / 3) == pytest.approx(found, abs=0.035)
    for true in (0.0, effect / 4):
        _, shown = sign_flip_free_power(n, true, effect)
        assert equivalence_power(n, true, effect, 0.05 / 3) <= shown + 0.035
        if shown > 0.5:
            assert equivalence_power(n, true, effect, 0.05 / 3) == pytest.approx(shown, abs=0.035)


@pytest.mark.parametrize("spread", [0.3, 0.6, 1.2])
def test_the_seeds_asked_for_decide_in_four_of_five_sweeps_either_way(spread: float):
    more = seeds_to_decide(spread=spread, margin=0.5, mean=0.1, pairs=4, fewest=7, **LEVELS)
    assert more is not None
    n, margin = 4 + more, 0.5 / spread
    different, _ = sign_flip_free_power(n, margin, margin)
    _, equivalent = sign_flip_free_power(n, 0.0, margin)
    assert min(different, equivalent) > 0.77
    fewer, _ = sign_flip_free_power(n - 1, margin, margin)
    _, fewer_equivalent = sign_flip_free_power(n - 1, 0.0, margin)
    assert n == 7 or min(fewer, fewer_equivalent) < 0.83


def test_enough_seeds_and_still_undecided_asks_for_what_the_observed_change_needs():
    some = {"spread": 0.3, "margin": 0.5, "pairs": 40, "fewest": 7, **LEVELS}
    near_the_margin = seeds_to_decide(mean=0.45, **some)
    near_zero = seeds_to_decide(mean=0.02, **some)
    assert near_the_margin == near_zero == 1
    between = seeds_to_decide(mean=0.25, **{**some, "spread": 0.6})
    assert between is not None
    assert between > 1


def test_no_more_than_a_thousand_are_counted():
    assert seeds_to_decide(spread=50, margin=0.5, mean=0, pairs=8, fewest=7, **LEVELS) is None
    assert seeds_to_decide(spread=1e-9, margin=0.5, mean=0, pairs=3, fewest=7, **LEVELS) == 4


@given(st.floats(1e-6, 1e3), st.floats(-10, 10), st.integers(2, 300), st.integers(1, 20))
def test_seeds_are_a_count(spread: float, mean: float, pairs: int, fewest: int):
    found = seeds_to_decide(
        spread=spread, margin=0.5, mean=mean, pairs=pairs, fewest=fewest, **LEVELS
    )
    assert found is None or 1 <= found <= 1000
    assert found is None or pairs + found >= fewest
