"""What depends on the order of the elements: quartiles, the median absolute deviation, counts.

The elements stand in a sorted array, or as distinct values with their counts; the figures ask
either for the element at a place.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qwd.quantize.outliers import Statistics, Tails, Test
from qwd.quantize.statistics_lanes import Array, Chunk

CHUNK = 2**16
"""elements that an outlier rule is asked about at a time"""


class Order(Protocol):
    """Finite elements in ascending order, times 2^-exponent."""

    @property
    def n(self) -> int:
        """Elements."""
        ...

    @property
    def distinct(self) -> int:
        """Different ones; -0.0 is 0.0."""
        ...

    def at(self, place: int) -> float:
        """The element with ``place`` others before it."""
        ...

    def count(self, test: Test) -> int:
        """How many elements a test holds for."""
        ...


@dataclass(frozen=True)
class Sorted:
    """Of a sorted array without NaN and infinities."""

    elements: Array
    exponent: int = 0

    @property
    def n(self) -> int:
        """Elements."""
        return self.elements.size

    @property
    def distinct(self) -> int:
        """Different ones; -0.0 is 0.0."""
        return 1 + sum(
            int(np.count_nonzero(part[1:] != part[:-1])) for part in self._parts(overlap=1)
        )

    def at(self, place: int) -> float:
        """The element with ``place`` others before it."""
        return math.ldexp(float(self.elements[place]), -self.exponent)

    def count(self, test: Test) -> int:
        """How many elements a test holds for."""
        if isinstance(test, Tails) and self.n > CHUNK:
            out = test.holds
            below = self._first(lambda x: x >= test.centre or not out(x))
            return below + self.n - self._first(lambda x: x > test.centre and out(x))
        return sum(
            int(np.count_nonzero(test(np.ldexp(part.astype(np.float64), -self.exponent))))
            for part in self._parts()
        )

    def _first(self, holds: Callable[[float], bool]) -> int:
        """The first place whose element ``holds``, as all behind it do; n where none does."""
        first, last = 0, self.n
        while first < last:
            middle = (first + last) // 2
            if holds(self.at(middle)):
                last = middle
            else:
                first = middle + 1
        return first

    def _parts(self, overlap: int = 0) -> Iterator[Array]:
        for start in range(0, self.n, CHUNK):
            yield self.elements[start : start + CHUNK + overlap]


@dataclass(frozen=True)
class Counted:
    """Of distinct values in ascending order, each with how often it occurs."""

    values: Chunk
    counts: NDArray[np.int64]
    ends: NDArray[np.int64]
    """cumulative counts"""

    @property
    def n(self) -> int:
        """Elements."""
        return int(self.ends[-1])

    @property
    def distinct(self) -> int:
        """Values."""
        return self.values.size

    def at(self, place: int) -> float:
        """The element with ``place`` others before it."""
        return float(self.values[np.searchsorted(self.ends, place, "right")])

    def count(self, test: Test) -> int:
        """How many elements a test holds for."""
        return int(self.counts[test(self.values)].sum())


def statistics(order: Order, mean: float, std: float) -> Statistics:
    """What outlier rules ask for; quartiles by linear interpolation."""
    q1, median, q3 = (quantile(order, q) for q in (0.25, 0.5, 0.75))
    return Statistics(
        mean=mean, std=std, q1=q1, median=median, q3=q3, mad=_deviation(order, median)
    )


def quantile(order: Order, q: float) -> float:
    """The element at (n - 1) q, interpolated linearly between its neighbours."""
    place = (order.n - 1) * q
    below = math.floor(place)
    low, high = order.at(below), order.at(min(below + 1, order.n - 1))
    return low + (high - low) * (place - below)


def _deviation(order: Order, median: float) -> float:
    """Median of |w - median|, without computing all of them.

    The m elements nearest to the median stand side by side in the sorted array; bisection finds
    where they begin, and the farther of their two ends is the m-th smallest deviation.
    """

    def smallest(m: int) -> float:
        first, last = 0, order.n - m
        while first < last:
            middle = (first + last) // 2
            if median - order.at(middle) > order.at(middle + m) - median:
                first = middle + 1
            else:
                last = middle
        return max(median - order.at(first), order.at(first + m - 1) - median)

    return smallest((order.n + 1) // 2) / 2 + smallest(order.n // 2 + 1) / 2
