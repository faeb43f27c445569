"""Means over runs, with their spread or their 95 % interval."""

from collections.abc import Sequence

import numpy as np

from qwd.report.figures import Interval, ModelReport, Spread

FLOAT32 = 2.0**-23
"""relative distance of neighbouring weights"""


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and sample standard deviation; None without values."""
    if not values:
        return None
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(mean=float(np.mean(values)), std=std)


def one_image(models: Sequence[ModelReport]) -> float:
    """The smallest change that an accuracy of these models shows: an image of the fewest."""
    return 1 / max(min((model.data.n for model in models if model.data), default=1), 1)


def interval(changes: Sequence[float], resolution: float = 0.0) -> Interval | None:
    """`qwd.report.verdict.paired.interval`; None without any changes."""
    if not changes:
        return None
    if len(changes) < 2:
        return Interval(mean=float(changes[0]), low=None, high=None, pairs=1)
    # Loads scipy, which takes long, and most reports pair nothing.
    from qwd.report.verdict.paired import interval as paired_interval

    found = paired_interval(changes, resolution)
    return Interval(mean=found.mean, low=found.low, high=found.high, pairs=len(changes))
