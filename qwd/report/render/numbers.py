"""How numbers look in text and Markdown; a figure that does not exist is a dash."""

import math
from collections.abc import Sequence

from qwd.report.figures import Spread
from qwd.report.metrics import Unit
from qwd.setting import short

NONE = "-"


def percent(fraction: float | None) -> str:
    """A fraction as ``97.50 %``."""
    return NONE if fraction is None else f"{100 * fraction:.2f} %"


def points(value: float | None) -> str:
    """Percentage points as ``0.28 pp``."""
    return NONE if value is None else f"{value:z.2f} pp"


def digits(value: float | None, n: int = 4) -> str:
    """``n`` significant digits, trailing zeros kept: ``0.8960``."""
    return NONE if value is None else f"{value:#.{n}g}".rstrip(".")


def decibel(value: float | None) -> str:
    """``41.20``, the unit being in the header."""
    return NONE if value is None else f"{value:z.2f}"


def count(value: float | None) -> str:
    """A whole number as ``12,345``."""
    return NONE if value is None else f"{value:,}"


def decay(value: float | None) -> str:
    """A weight decay as ``1e-4``."""
    return NONE if value is None else short(value)


def figure(value: float | None, unit: Unit) -> str:
    """A value of a metric in its unit."""
    if value is None:
        return NONE
    if unit == "dB":
        return f"{decibel(value)} dB"
    return {"fraction": percent, "pp": points, "count": count, "number": digits}[unit](value)


def change(base: float, head: float, unit: Unit) -> str:
    """head - base as ``-0.5 pp`` or ``+0.0123 (+1.4 %)``, four digits of it, however small."""
    by = head - base
    if by == 0:
        return "0"
    if unit in ("fraction", "pp"):
        return f"{by if unit == 'pp' else 100 * by:+.4g} pp"
    if unit == "dB":
        return f"{by:+.4g} dB"
    relative = f" ({100 * (by / abs(base)):+.3g} %)" if base else ""
    return (f"{by:+,}" if unit == "count" else f"{by:+.4g}") + relative


def spread(value: Spread | None, unit: Unit) -> str:
    """Mean and standard deviation as ``97.50 ± 0.12 %``; the mean alone for one seed."""
    if value is None:
        return NONE
    mean = figure(value.mean, unit if unit != "count" else "number")
    if value.std is None or not math.isfinite(value.std):
        return mean
    number, space, suffix = mean.partition(" ")
    std = 100 * value.std if unit == "fraction" else value.std
    places = len(number.partition(".")[2]) if "e" not in number else 4
    return f"{number} ± {std:.{places}f}{space}{suffix}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """``conv1, conv2, conv3 and 4 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
