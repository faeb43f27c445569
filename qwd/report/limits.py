"""``--fail-on METRIC:LIMIT``: how much worse a figure may get, decided without rounding."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from qwd.errors import UsageError
from qwd.printable import printable
from qwd.report import metrics

# So many digits and no more: an exponent of a million digits is no limit but an attack.
FORM = re.compile(
    r"(?P<sign>[+-])\s*"
    r"(?P<number>(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?)\s*"
    r"(?P<unit>pp|%|)"
)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The largest change of a metric in its harmful direction that still passes."""

    metric: str
    direction: Literal[-1, 1]
    """-1: less is worse"""
    amount: Fraction
    unit: Literal["pp", "%", ""]
    text: str
    """as it was typed, such as ``-0.5pp``"""

    def exceeded_by(self, base: float, head: float) -> bool:
        """Whether ``head`` is worse than ``base`` by more than the limit; equal to it passes.

        direction * (head - base) > allowed, in exact arithmetic on the shortest decimals that name
        the floats, those which JSON holds: 0.97 is 97/100. ``%`` is of |base|, so that any
        worsening from 0 is too much.
        """
        harm = self.direction * (exact(head) - exact(base))
        if self.unit == "%":
            return harm > self.amount * abs(exact(base)) / 100
        in_points = self.unit == "pp" and metrics.unit(self.metric) == "fraction"
        return harm > (self.amount / 100 if in_points else self.amount)

    def __str__(self) -> str:
        return self.text


def parse_limit(text: str) -> Limit:
    """``METRIC:LIMIT`` as a `Limit`: sign of the harmful direction, number, unit.

    ``pp`` are percentage points, ``%`` is relative to the base, no unit is the metric's own.
    Raises UsageError, naming the option, for anything that would not limit what it says.
    """
    name, colon, typed = (part.strip() for part in text.rpartition(":"))
    if not colon:
        raise _wrong(text, "expected METRIC:LIMIT, such as int8_accuracy:-0.5pp")
    try:
        metric = metrics.checked(name)
    except ValueError as error:
        raise _wrong(text, f"{name!r} is no figure of a report: {error}") from None
    match = FORM.fullmatch(typed)
    if match is None and FORM.fullmatch(f"-{typed}"):
        raise _wrong(text, f"-{typed} or +{typed}? The sign says which direction is harmful")
    if match is None or math.isinf(float(match["number"])):
        form = "a sign, a finite number, then pp, % or nothing, such as -0.5pp or +10%"
        raise _wrong(text, f"{typed!r} is no limit, expected {form}")
    limit = Limit(
        metric=metric,
        direction=-1 if match["sign"] == "-" else 1,
        amount=Fraction(match["number"]),
        unit=match["unit"],  # pyright: ignore[reportArgumentType]
        text=typed,
    )
    _check_unit(text, limit)
    return limit


def _check_unit(text: str, limit: Limit) -> None:
    kind = metrics.unit(limit.metric)
    number = limit.text.removesuffix("pp").rstrip()
    if limit.unit == "pp" and kind not in ("fraction", "pp"):
        raise _wrong(text, f"{limit.metric} is no fraction, expected {number} or {number}%")
    whole = 1 if limit.unit == "" else 100
    if kind == "fraction" and limit.unit != "%" and limit.amount >= whole:
        meant = f"; in percentage points that is {number}pp" if limit.unit == "" else ""
        raise _wrong(text, f"no fraction can change by more than {whole}{limit.unit}{meant}")


def exact(value: float) -> Fraction:
    """The number that the shortest decimal of a float names; whole numbers as they are."""
    return Fraction(value) if isinstance(value, int) else Fraction(repr(float(value)))


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"--fail-on {text!r}: {printable(why)}")
