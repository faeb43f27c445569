"""Interleaved timing, with a clock of our own: no real time is looked at."""

from collections.abc import Callable

import pytest

from qwd.export.timing import WARM_UP, Spread, benchmark, spread


class Clock:
    """Advances by what is told while something runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def takes(self, name: str, seconds: Callable[[int], float]) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds(self.calls.count(name))
            self.calls.append(name)

        return run


def test_repetitions_are_interleaved_and_every_other_one_is_reversed() -> None:
    clock = Clock()
    runs = {name: clock.takes(name, lambda i: 1.0) for name in "abc"}
    benchmark(runs, "c", repetitions=3, clock=clock)
    warm = ["a"] * WARM_UP + ["b"] * WARM_UP + ["c"] * WARM_UP
    assert clock.calls == [*warm, *"abc", *"cba", *"abc"]


def test_medians_quartiles_and_ratios_within_a_repetition() -> None:
    clock = Clock()
    # The machine slows down: the times drift, the ratios do not. The warm-up is far slower.
    slow = lambda i: 100.0 if i < WARM_UP else float(i - WARM_UP + 1)  # noqa: E731
    runs = {
        "float": clock.takes("float", lambda i: 3 * slow(i)),
        "int8": clock.takes("int8", slow),
    }
    plain, file = benchmark(runs, "int8", repetitions=5, clock=clock)
    assert (plain.name, file.name) == ("float", "int8")
    assert plain.seconds == Spread(median=9, low=6, high=12)
    assert file.seconds == Spread(median=3, low=2, high=4)
    assert plain.ratio == Spread(median=3, low=3, high=3)
    assert file.ratio == Spread(median=1, low=1, high=1)


def test_a_spread_is_of_the_values_given() -> None:
    assert spread([2.0]) == Spread(median=2, low=2, high=2)
    assert spread([4.0, 1.0]) == Spread(median=2.5, low=1.75, high=3.25)
    with pytest.raises(KeyError):
        benchmark({"a": lambda: None}, "b", repetitions=1)
