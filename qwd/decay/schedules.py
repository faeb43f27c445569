"""The coefficient over time: the factor m_t of a group's coefficient at each step.

A schedule is a function of the step t = 0, 1, ... and of lr_t / lr_peak, and gives m_t.
"""

import bisect
import math
from collections.abc import Callable, Mapping

Schedule = Callable[[int, float], float]


def constant(step: int, rate: float) -> float:
    """m_t = 1."""
    return 1.0


def proportional(step: int, rate: float) -> float:
    """m_t = lr_t / lr_peak."""
    return rate


def linear(steps: int, end: float = 0.0) -> Schedule:
    """m_t = 1 + (end - 1) t / T over T = ``steps`` steps, ``end`` after them."""
    return lambda step, rate: 1 + (end - 1) * min(step / steps, 1.0)


def cosine(steps: int, end: float = 0.0) -> Schedule:
    """m_t = end + (1 - end) (1 + cos(pi t / T)) / 2 over T = ``steps`` steps, ``end`` after them.

    Source: the decay schedule of DINO (Caron et al. 2021).
    """
    return lambda step, rate: end + (1 - end) * (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2


def piecewise(factors: Mapping[int, float]) -> Schedule:
    """m_t is the factor of the last of the steps ``factors`` that t has reached, 1 before all."""
    starts = sorted(factors)

    def factor(step: int, rate: float) -> float:
        place = bisect.bisect_right(starts, step)
        return factors[starts[place - 1]] if place else 1.0

    return factor


def until(end: int, schedule: Schedule = constant) -> Schedule:
    """``schedule`` before step ``end``, 0 from it on."""
    return lambda step, rate: schedule(step, rate) if step < end else 0.0
