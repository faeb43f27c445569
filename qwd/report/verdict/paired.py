"""Paired changes of n runs: their interval, and an exact test that they are none."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from qwd.report.verdict.figures import Estimate

ALPHA = 0.05
EXACT = 17
"""pairs up to which every combination of signs is tried: 2^16, for one sign is free"""
DRAWS = 2**16
"""combinations beyond that, the observed one included"""
CHUNK = 2**12
NEAR = 1e-9
"""relative difference of two sums that rounding alone may make"""

Array = NDArray[np.float64]
Changes = Sequence[float] | Array


def spread(changes: Changes, resolution: float) -> float:
    """Sample standard deviation of two or more changes, no less than rounding alone would give.

        s = max(std with ddof 1, resolution / sqrt(6))

    Changes that are all equal show that the spread is too small to see, not that it is zero: an
    accuracy over N images moves in steps of 1 / N, and the difference of two figures that are
    rounded to steps has the variance step^2 / 6.
    """
    return max(float(np.std(changes, ddof=1)), resolution / 6**0.5)


def interval(changes: Changes, resolution: float = 0.0) -> Estimate:
    """Mean of one or more paired changes with its 95 % t interval.

        mean +- t(0.975, n - 1) s / sqrt(n),  s as in `spread`

    No bounds for one pair, which shows no spread.
    """
    mean, n = float(np.mean(changes)), len(changes)
    if n < 2:
        return Estimate(mean=mean, low=None, high=None)
    half = float(stdtrit(n - 1, 1 - ALPHA / 2)) * spread(changes, resolution) / n**0.5
    return Estimate(mean=mean, low=mean - half, high=mean + half)


def fewest(tests: int) -> int:
    """The fewest pairs n with which a sign-flip test can reject among so many.

    Its smallest two-sided p is 2^(1-n), and Holm's first step asks for p <= 0.05 / tests.
    """
    n = 1
    while 2.0 ** (1 - n) > ALPHA / tests:
        n += 1
    return n


def sign_flip_p(changes: Changes) -> float:
    """Two-sided p of the sign-flip (Fisher-Pitman) test that paired changes are centred on 0.

    The share of all 2^n combinations of signs whose |sum| is at least the observed one: under the
    hypothesis that decay makes no difference the two runs of a pair may be swapped, which turns
    the sign of their difference. So the test is exact, whatever the distribution, where a t test
    asks for normal changes; it uses their sizes and keeps zeros, which Wilcoxon's test drops.
    Beyond 17 pairs 65,535 random combinations and the observed one stand for all:
    p = (1 + hits) / 65,536 is valid and the same at every call.

    Source: R. A. Fisher, The Design of Experiments (1935), section 21; for the random
    combinations B. Phipson and G. K. Smyth (2010), arXiv:1603.05766.
    """
    d = np.asarray(changes, dtype=np.float64)
    # Sizes without meaning for the test must not overflow or vanish in it.
    d = d / (np.abs(d).max() or 1.0)
    least = abs(d.sum()) - NEAR * np.abs(d).sum()
    exact = len(d) <= EXACT
    signs = [_all_signs(len(d))] if exact else _drawn_signs(len(d))
    hits = sum(int((np.abs(some @ d) >= least).sum()) for some in signs)
    return hits / 2 ** (len(d) - 1) if exact else (1 + hits) / DRAWS


@functools.lru_cache(maxsize=4)
def _all_signs(n: int) -> Array:
    """Every combination of n signs whose first is +: the others have the same |sum|."""
    bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1
    return 1.0 - 2.0 * bits[:, ::-1] if n > 1 else np.ones((1, 1))


def _drawn_signs(n: int) -> Iterator[Array]:
    generator = np.random.default_rng(0)
    left = DRAWS - 1
    while left:
        rows = min(CHUNK, left)
        bits = generator.integers(0, 2, (rows, n), dtype=np.int8)
        yield 1.0 - 2.0 * bits.astype(np.float64)
        left -= rows
