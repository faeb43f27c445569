"""Showing that a change is too small to matter, and how many seeds it takes to know."""

from collections.abc import Callable

import numpy as np
from scipy.special import nctdtr, stdtr, stdtrit

from qwd.report.verdict.paired import Changes, spread
from qwd.report.verdict.words import MOST_SEEDS

POWER = 0.8
CERTAIN = 30.0
"""noncentrality beyond which every test here has power 1"""


def equivalence_p(changes: Changes, margin: float, resolution: float = 0.0) -> float:
    """p of the two one-sided t tests that the mean of n >= 2 paired changes is within +-margin.

        p = P(T_(n-1) >= (margin - |mean|) / (s / sqrt(n))),  s as in `qwd.report.verdict.paired`

    p <= alpha exactly where the 1 - 2 alpha interval lies within the margin. A spread is no
    less than that of rounding, so that no claim rests on an interval without width.

    Source: D. J. Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15 (1987), 657-680.
    """
    n = len(changes)
    s = spread(changes, resolution)
    room = margin - abs(float(np.mean(changes)))
    if s == 0:
        return 0.0 if room > 0 else 1.0
    return float(stdtr(n - 1, -room / (s / n**0.5)))


def seeds_to_decide(
    *,
    spread: float,
    margin: float,
    mean: float,
    pairs: int,
    fewest: int,
    level: float,
    equivalence_level: float,
) -> int | None:
    """How many more pairs decide with a power of 80 %; None for more than 1,000.

    Enough to decide either way: to show equivalence if there is no change, and a difference if it
    is as large as the margin. Where there are that many already, the truth lies between, and the
    count is for the observed mean. ``spread`` and ``margin`` in one unit; ``level`` and
    ``equivalence_level`` are those of the two tests, ``fewest`` the pairs that the first needs.
    """

    def different(n: int, by: float) -> float:
        return difference_power(n, by / spread, level)

    def equivalent(n: int, by: float) -> float:
        return equivalence_power(n, by / spread, margin / spread, equivalence_level)

    def either_way(n: int) -> float:
        return min(different(n, margin), equivalent(n, 0.0))

    def as_observed(n: int) -> float:
        return max(different(n, abs(mean)), equivalent(n, abs(mean)))

    enough = pairs >= fewest and either_way(pairs) >= POWER
    return _first(max(pairs + 1, fewest), pairs, as_observed if enough else either_way)


def difference_power(n: int, effect: float, level: float) -> float:
    """Power of the two-sided paired t test; ``effect`` >= 0 in standard deviations.

    That of the sign-flip test is about the same once it can reject.
    """
    noncentrality = effect * n**0.5
    if noncentrality > CERTAIN:
        return 1.0
    return 1.0 - float(nctdtr(n - 1, noncentrality, stdtrit(n - 1, 1 - level / 2)))


def equivalence_power(n: int, effect: float, margin: float, level: float) -> float:
    """Power of the two one-sided tests, from below; ``effect`` and ``margin`` in deviations.

        1 - P(T(near) <= t) - P(T(far) <= t),  t = t(1 - level, n - 1)

    with T noncentral t at (margin -+ |effect|) sqrt(n).
    """
    t = stdtrit(n - 1, 1 - level)
    missed = 0.0
    for room in (margin - abs(effect), margin + abs(effect)):
        noncentrality = room * n**0.5
        if noncentrality <= 0:
            return 0.0
        missed += float(nctdtr(n - 1, noncentrality, t)) if noncentrality <= CERTAIN else 0.0
    return max(1.0 - missed, 0.0)


def _first(least: int, pairs: int, power: Callable[[int], float]) -> int | None:
    """The first n >= ``least`` with enough power, less ``pairs``; power rises with n."""
    low, high, most = least, least, pairs + MOST_SEEDS
    # In steps that double, because most counts are small and powers take time.
    while power(high) < POWER:
        if high >= most:
            return None
        low, high = high + 1, min(2 * high - least + 2, most)
    while low < high:
        middle = (low + high) // 2
        if power(middle) >= POWER:
            high = middle
        else:
            low = middle + 1
    return low - pairs if low <= most else None
