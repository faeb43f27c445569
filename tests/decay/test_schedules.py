"""The coefficient over time, point by point."""

import math

import pytest

from qwd.decay import schedules


def points(schedule: schedules.Schedule, steps: int, rate: float = 1.0) -> list[float]:
    return [schedule(t, rate) for t in range(steps)]


def test_formulas() -> None:
    assert points(schedules.constant, 3) == [1, 1, 1]
    assert points(schedules.proportional, 2, rate=0.3) == [0.3, 0.3]
    assert points(schedules.linear(4, 0.2), 6) == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0.2])
    expected = [0.2 + 0.8 * (1 + math.cos(math.pi * t / 4)) / 2 for t in (0, 1, 2, 3, 4, 4)]
    assert points(schedules.cosine(4, 0.2), 6) == pytest.approx(expected)


def test_a_coefficient_may_also_rise() -> None:
    assert points(schedules.linear(2, 3.0), 4) == pytest.approx([1, 2, 3, 3])


def test_piecewise_is_one_before_the_first_point() -> None:
    schedule = schedules.piecewise({4: 0.1, 2: 0.5})
    assert points(schedule, 6) == [1, 1, 0.5, 0.5, 0.1, 0.1]


def test_off_from_a_step_on() -> None:
    assert points(schedules.until(2), 4) == [1, 1, 0, 0]
    assert points(schedules.until(2, schedules.linear(4)), 4) == [1, 0.75, 0, 0]
