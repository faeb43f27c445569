"""Means over runs, with their spread or their 95 % interval."""

import math
from collections.abc import Sequence

import numpy as np

from qwd.report.figures import Interval, Spread


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and sample standard deviation; None without values."""
    if not values:
        return None
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(mean=float(np.mean(values)), std=std)


def interval(changes: Sequence[float]) -> Interval | None:
    """Mean of paired changes with its 95 % t interval; None without any, no bounds for one."""
    if not changes:
        return None
    mean, n = float(np.mean(changes)), len(changes)
    if n < 2:
        return Interval(mean=mean, low=None, high=None, pairs=n)
    from scipy.special import stdtrit  # slow to load, and most reports pair nothing

    half = float(np.std(changes, ddof=1)) / math.sqrt(n) * float(stdtrit(n - 1, 0.975))
    return Interval(mean=mean, low=mean - half, high=mean + half, pairs=n)
