"""Latency of several things against each other, on this machine, interleaved."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

WARM_UP = 3
"""calls of each before the clock runs: memory is allocated and kernels are chosen then"""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median and quartiles over the repetitions."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One contestant."""

    name: str
    seconds: Spread
    """of one call"""
    ratio: Spread
    """its time / the time of ``base`` in the same repetition"""


def benchmark(
    runs: Mapping[str, Callable[[], object]],
    base: str,
    *,
    repetitions: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Timed, ...]:
    """Time every call ``repetitions`` times, one after the other within each repetition.

    Interleaved, so that what else the machine does meets all of them alike; every other repetition
    runs in the reverse order, so that none is always the one that follows the same other. A ratio
    is taken within a repetition: time / time of the contestant called ``base``. ``seconds`` are
    wall-clock seconds of ``clock``.
    """
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(repetitions):
        order = list(runs.items())
        for name, run in order if repetition % 2 == 0 else reversed(order):
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return tuple(
        Timed(
            name=name,
            seconds=spread(times),
            ratio=spread([t / b for t, b in zip(times, seconds[base], strict=True)]),
        )
        for name, times in seconds.items()
    )


def spread(values: list[float]) -> Spread:
    """Median and quartiles, by linear interpolation; one value is all three."""
    if len(values) == 1:
        return Spread(median=values[0], low=values[0], high=values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median=median, low=low, high=high)
