"""Lists and grids of numbers, as an experiment over several values is typed.

``0,1e-5,1e-4`` lists values; a range is even in the logarithm and holds both its ends:

- ``2^-20..2^-6`` every power of two, ``1e-5..1e-2`` every power of ten;
- ``1e-6..1e-2:9`` nine values;
- ``1e-5..1e-3:x3`` the first, and three times the one before up to the last.

Between the ends arithmetic is decimal, to far more digits than a float has, and rounded once: a
decade within a range is the very float that ``1e-4`` is, and a power of two is exact.
"""

import math
import re
from collections.abc import Iterator
from decimal import Context, Decimal, localcontext
from itertools import islice
from typing import Any

from qwd.parsing import Parser, integer, number

MOST = 1000
"""values a grid may have"""
WORDS = (
    "a list with commas of numbers and rising ranges, such as 2^-20..2^-6, 1e-5..1e-2, "
    "1e-6..1e-2:9 or 1e-5..1e-3:x3"
)
_NEAR = Decimal("1e-9")
_PRECISION = Context(prec=50)
_POWER = re.compile(r"\s*(2|10)\^([+-]?[0-9]{1,4})\s*")
_RANGE = re.compile(r"(?P<first>.+?)\.\.(?P<last>[^:]+)(:\s*(?P<factor>x?)(?P<spacing>.*))?")


def grid(item: Parser) -> Parser:
    """A parser of lists and ranges to a tuple of floats, in their order, none of them twice.

    It takes a string as above, or what YAML has for one: a number, or a list of numbers and
    ranges. ``item`` parses a single number, and sees every value. At most 1000 values.
    """

    def parse(raw: Any) -> tuple[float, ...]:
        parts = raw.split(",") if isinstance(raw, str) else raw
        if not isinstance(parts, list | tuple) or not parts:
            parts = [raw]
        values: list[float] = []
        try:
            with localcontext(_PRECISION):
                for part in parts:
                    values += islice(_values(part, item), MOST + 1)
            if len(values) > MOST:
                raise ValueError(f"at most {MOST} of them")
            if len(set(values)) < len(values):
                raise ValueError("none of them twice")
        except ValueError as error:
            raise ValueError(f"{WORDS} ({error})") from None
        return tuple(values)

    return parse


def _values(part: Any, item: Parser) -> Iterator[float]:
    found = _RANGE.fullmatch(part) if isinstance(part, str) else None
    if found is None:
        yield item(float(_number(part, item)))
        return
    first, last = _number(found["first"], item), _number(found["last"], item)
    if not 0 < float(first) < float(last):
        raise ValueError("a range starts above 0 and rises")
    if found["spacing"] is None:
        points = _by_factor(first, last, _common_base(first, last))
    elif found["factor"]:
        factor = _read("the factor is", number(above=1), found["spacing"])
        points = _by_factor(first, last, Decimal(repr(factor)))
    else:
        n = _read("the count is", integer(least=2, most=MOST), found["spacing"])
        points = (first * (last / first) ** (Decimal(i) / (n - 1)) for i in range(n))
    yield from (item(float(point)) for point in points)


def _number(raw: Any, item: Parser) -> Decimal:
    """A single value, ``2^-12`` and ``10^-4`` included."""
    power = _POWER.fullmatch(raw) if isinstance(raw, str) else None
    if power is None:
        return Decimal(repr(float(_read("each", item, raw))))
    value = Decimal(power[1]) ** int(power[2])
    _read("each", item, float(value))
    return value


def _read(what: str, parse: Parser, raw: Any) -> Any:
    try:
        return parse(raw)
    except ValueError as error:
        raise ValueError(f"{what} {error}") from None


def _common_base(first: Decimal, last: Decimal) -> Decimal:
    """The base that both ends are powers of."""
    ends = float(first), float(last)
    if all(math.frexp(end)[0] == 0.5 for end in ends):
        return Decimal(2)
    if all(end == float(f"1e{round(math.log10(end))}") for end in ends):
        return Decimal(10)
    raise ValueError("a range between others than powers of 2 or of 10 ends in :COUNT or :xFACTOR")


def _by_factor(first: Decimal, last: Decimal, factor: Decimal) -> Iterator[Decimal]:
    """first * factor^i up to ``last``; what comes within 1e-9 of ``last``, relatively, is it."""
    point = first
    while point <= last * (1 + _NEAR):
        yield last if abs(point - last) <= last * _NEAR else point
        point *= factor
