"""Intervals and the exact test against scipy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from qwd.report.verdict.paired import EXACT, fewest, interval, sign_flip_p, spread

CHANGES = st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=2, max_size=12)


def scipy_p(changes) -> float:
    return float(
        stats.permutation_test(
            (np.asarray(changes),),
            lambda x, axis: np.sum(x, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=2**20,
        ).pvalue
    )


@pytest.mark.parametrize("n", [2, 3, 5, 8, 11, 14])
def test_the_sign_flip_test_is_scipys_exact_permutation_test(n: int):
    generator = np.random.default_rng(n)
    for changes in (generator.normal(0.3, 1, n), generator.integers(-2, 4, n) / 360):
        assert sign_flip_p(changes) == pytest.approx(scipy_p(changes), abs=1e-12)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_ties_of_discrete_changes_count_as_ties(steps: list[int]):
    """An accuracy over 360 images has steps that float64 does not hold."""
    sums = [
        abs(sum(s if i >> k & 1 else -s for k, s in enumerate(steps)))
        for i in range(2 ** len(steps))
    ]
    exact = sum(s >= abs(sum(steps)) for s in sums) / len(sums)
    assert sign_flip_p([100 * (s / 360) for s in steps]) == exact


@given(CHANGES, st.floats(1e-30, 1e30))
def test_p_is_free_of_units_and_of_direction(changes: list[float], factor: float):
    p = sign_flip_p(changes)
    assert 2.0 ** (1 - len(changes)) <= p <= 1
    assert sign_flip_p([-c for c in changes]) == p
    rounded = [float(np.float32(c)) for c in changes]
    power = 2.0 ** round(np.log2(factor))
    assert sign_flip_p([power * c for c in rounded]) == sign_flip_p(rounded)


def test_no_change_at_all_is_no_evidence():
    assert sign_flip_p([0.0] * 8) == 1
    assert sign_flip_p([1.0] * 8) == 2**-7


def test_beyond_the_exact_sizes_p_is_estimated_and_the_same_at_every_call():
    generator = np.random.default_rng(0)
    changes = generator.normal(0.4, 1, EXACT + 1)
    p = sign_flip_p(changes)
    sums = np.zeros(1)
    for change in changes:
        sums = np.concatenate([sums + change, sums - change])
    exact = np.mean(abs(sums) >= abs(changes.sum()) - 1e-9)
    assert p == pytest.approx(exact, abs=4 * (exact / 2**16) ** 0.5)
    assert sign_flip_p(changes) == p
    assert sign_flip_p(np.ones(40)) == 2**-16


@pytest.mark.parametrize(
    ("tests", "n"), [(1, 6), (3, 7), (6, 8), (9, 9), (12, 9), (15, 10), (3000, 17)]
)
def test_the_fewest_pairs_that_can_reject(tests: int, n: int):
    assert fewest(tests) == n
    assert 2.0 ** (1 - n) <= 0.05 / tests < 2.0 ** (2 - n)


@pytest.mark.parametrize("n", [2, 3, 8, 40])
def test_the_interval_is_that_of_the_paired_t_test(n: int):
    generator = np.random.default_rng(n)
    a, b = generator.normal(0, 1, (2, n))
    expected = stats.ttest_rel(b, a).confidence_interval(0.95)
    found = interval(b - a)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert found.mean == pytest.approx(np.mean(b - a))


def test_one_pair_has_no_interval():
    assert interval([0.4]).low is None
    assert interval([0.4]).high is None


def test_equal_changes_have_the_width_of_rounding_to_steps():
    found = interval([0.0] * 8, 100 / 360)
    assert found.low is not None
    half = float(stats.t.ppf(0.975, 7)) * 100 / 360 / 48**0.5
    assert (found.low, found.high) == (pytest.approx(-half), pytest.approx(half))
    assert spread([0.0, 1.0], 0.1) == pytest.approx(np.std([0, 1], ddof=1))


def covered(sweeps, effect: float, step: float) -> float:
    found = [interval(changes, step) for changes in sweeps]
    return float(np.mean([f.low <= effect <= f.high for f in found]))  # type: ignore[operator]


@pytest.mark.parametrize("n", [3, 8, 20])
def test_the_interval_covers_an_injected_effect(n: int):
    """A range that is 10 % smaller on average, and an accuracy on 360 images that falls by 1 pp."""
    generator = np.random.default_rng(n)
    reference = np.exp(generator.normal(0, 0.1, (4000, n)))
    other = reference * 0.9 * np.exp(generator.normal(-(0.03**2) / 2, 0.03, (4000, n)))
    assert 0.93 <= covered(100 * (other / reference - 1), -10, 1e-5) <= 0.97
    right = generator.binomial(360, 0.96, (4000, n)) - generator.binomial(360, 0.97, (4000, n))
    assert 0.93 <= covered(100 * right / 360, -1, 100 / 360) <= 0.97


def test_the_test_holds_its_level_without_normality():
    """Symmetric, heavy-tailed and discrete changes; p <= x at most x of the time."""
    generator = np.random.default_rng(6)
    heavy = [sign_flip_p(c) for c in generator.standard_t(2, (4000, 8))]
    steps = [sign_flip_p(c) for c in generator.integers(-1, 2, (4000, 8))]
    for p in (heavy, steps):
        for level in (0.05, 0.05 / 3):
            # Four standard errors of a share of 4,000.
            assert np.mean(np.array(p) <= level) <= level + 4 * (level / 4000) ** 0.5
