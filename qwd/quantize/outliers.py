"""Which weights are extreme: one rule a function, each with its threshold in its name.

A rule takes the summary of a tensor and gives a test for its elements, or None where the summary
has no threshold to give. More rules are added through the entry-point group `qwd.outlier_rules`.

The sigma rules ask for distance in units that the outliers themselves enlarge; the other two use
quartiles and the median, which they do not move. Of normally distributed weights the rules find
2700, 63 and 0.002 per million (3, 4 and 6 sigma), 6977 (iqr) and 465 (mad).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Test = Callable[[NDArray[np.float64]], NDArray[np.bool_]]
"""From elements to a mask of the outliers among them, same shape"""


SIGMAS = {"sigma>3": 3, "sigma>4": 4, "sigma>6": 6}
"""k of the rules |w - mean| > k std, which need no order of the elements"""


@dataclass(frozen=True)
class Tails:
    """A test that is false at the centre and, on either side, true from some distance on.

    That is enough to count outliers in a sorted array by bisection.
    """

    centre: float
    test: Test

    def __call__(self, w: NDArray[np.float64]) -> NDArray[np.bool_]:
        return self.test(w)

    def holds(self, x: float) -> bool:
        """The test of one element."""
        return bool(self.test(np.array([x]))[0])


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What a rule may know of a tensor's finite elements, in the unit of the weights."""

    mean: float
    std: float
    """ddof 0"""
    q1: float
    median: float
    q3: float
    mad: float
    """median of |w - median|"""


def sigma3(of: Statistics) -> Test:
    """|w - mean| > 3 std."""
    return _beyond(of, SIGMAS["sigma>3"])


def sigma4(of: Statistics) -> Test:
    """|w - mean| > 4 std."""
    return _beyond(of, SIGMAS["sigma>4"])


def sigma6(of: Statistics) -> Test:
    """|w - mean| > 6 std."""
    return _beyond(of, SIGMAS["sigma>6"])


def iqr(of: Statistics) -> Test:
    """Beyond the quartiles by more than 1.5 (Q3 - Q1). Source: Tukey, Exploratory Data Analysis."""
    reach = 1.5 * (of.q3 - of.q1)
    return Tails(of.median, lambda w: (w < of.q1 - reach) | (w > of.q3 + reach))


def mad(of: Statistics) -> Test | None:
    """0.6745 |w - median| / MAD > 3.5; None where MAD = 0: half the weights are one number.

    Source: Iglewicz & Hoaglin, How to Detect and Handle Outliers (1993), the modified z-score.
    """
    if of.mad == 0:
        return None
    return Tails(of.median, lambda w: 0.6745 * np.abs(w - of.median) / of.mad > 3.5)


def _beyond(of: Statistics, k: int) -> Test:
    return Tails(of.mean, lambda w: np.abs(w - of.mean) > k * of.std)
