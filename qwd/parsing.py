"""From what a person typed to a value: one parser for options, variables and YAML alike.

A parser takes the raw value, a string or what YAML made of it, and returns the checked value, or
raises ValueError with the words that describe a right one.
"""

import math
import re
from collections.abc import Callable
from typing import Any

from qwd.errors import UsageError, reason
from qwd.registry import Registry

Parser = Callable[[Any], Any]


def number(
    *, least: float = -math.inf, most: float = math.inf, above: float | None = None
) -> Parser:
    """A finite float in [least, most], and greater than ``above`` where that is given."""
    low = f" greater than {above:g}" if above is not None else f" of at least {least:g}"
    bounds = low if above is not None or least > -math.inf else ""
    bounds += f"{' and' if bounds else ' of'} at most {most:g}" if most < math.inf else ""
    expected = f"a finite number{bounds}"

    def parse(raw: Any) -> float:
        try:
            value = math.nan if isinstance(raw, bool) or not _plain(raw) else float(raw)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        small = value <= above if above is not None else value < least
        if not math.isfinite(value) or small or value > most:
            raise ValueError(expected)
        return value

    return parse


def _plain(raw: Any) -> bool:
    """Whether a text is a number as people write it, not ``1_0`` or other scripts' digits."""
    return not isinstance(raw, str) or re.fullmatch(r"\s*[0-9.eE+-]+\s*", raw) is not None


def integer(*, least: int, most: int = 2**31 - 1) -> Parser:
    """A whole number in [least, most]."""
    default = most == 2**31 - 1

    def parse(raw: Any) -> int:
        if isinstance(raw, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", raw):
            raw = int(raw)
        if not isinstance(raw, int) or isinstance(raw, bool) or not least <= raw <= most:
            huge = isinstance(raw, int) and raw > most
            bounds = f"from {least} to {most}" if huge or not default else f"of at least {least}"
            raise ValueError(f"a whole number {bounds}")
        return raw

    return parse


def coefficient_or_factor(raw: Any) -> str:
    """A decay of at least 0 as text, ``1e-5``, or a factor of another one, ``x0.1``."""
    text = str(raw).strip()
    try:
        number(least=0)(text.removeprefix("x"))
    except ValueError:
        raise ValueError("a coefficient of at least 0, or a factor as x0.1") from None
    return text


def flag(raw: Any) -> bool:
    """True or false, also as yes/no, on/off, 1/0."""
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    if isinstance(raw, bool):
        return raw
    if str(raw).strip().lower() not in words:
        raise ValueError("true or false")
    return words[str(raw).strip().lower()]


def text(raw: Any) -> str:
    """A string that is not empty."""
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError("a text that is not empty")
    return raw.strip()


def one_of(*choices: str) -> Parser:
    """One of the words listed."""

    def parse(raw: Any) -> str:
        if raw not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return raw

    return parse


def list_of(item: Parser, *, unique: bool = False) -> Parser:
    """A tuple of items, from a YAML list or from a string with commas; never empty."""

    def parse(raw: Any) -> tuple[Any, ...]:
        parts = raw.split(",") if isinstance(raw, str) else raw
        if not isinstance(parts, list | tuple) or not parts:
            parts = [raw]
        try:
            values = tuple(item(part) for part in parts)
        except ValueError as error:
            raise ValueError(f"a list with commas, each {error}") from None
        if unique and len(set(values)) < len(values):
            raise ValueError("a list without duplicates")
        return values

    return parse


def patterns(raw: Any) -> tuple[str, ...]:
    """A tuple of regular expressions; a string is one expression, commas included."""
    found = (raw,) if isinstance(raw, str) else raw
    if not isinstance(found, list | tuple):
        raise ValueError("a regular expression")
    for pattern in found:
        try:
            re.compile(pattern)
        except (re.error, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"a regular expression that compiles ({reason(error)})") from None
        if not pattern.strip():
            raise ValueError("a regular expression that is not empty")
    return tuple(found)


def assigned(text: str) -> tuple[str, str]:
    """``KEY=VALUE`` in its two parts, split at the last ``=``."""
    key, _, value = text.rpartition("=")
    return key, value


def assignments(words: str, key: Parser, value: Parser, *, commas: bool = False) -> Parser:
    """A tuple of ``KEY=VALUE`` texts whose parts satisfy ``key`` and ``value``.

    ``words`` describes a right one. A string is a single entry, or a list where ``commas``.
    """

    def parse(raw: Any) -> tuple[str, ...]:
        found = (raw.split(",") if commas else [raw]) if isinstance(raw, str) else raw
        if not isinstance(found, list | tuple):
            raise ValueError(words)
        for entry in found:
            if not isinstance(entry, str):
                raise ValueError(words)
            name, given = assigned(entry)
            if not name:
                raise ValueError(words)
            try:
                key(name)
                value(given)
            except ValueError as error:
                raise ValueError(f"{words} ({error})") from None
        return tuple(found)

    return parse


def matching(pattern: str, words: str) -> Parser:
    """A text that the regular expression ``pattern`` describes whole; ``words`` say it."""

    def parse(raw: Any) -> str:
        if not isinstance(raw, str) or not re.fullmatch(pattern, raw):
            raise ValueError(words)
        return raw

    return parse


def optional(item: Parser) -> Parser:
    """The item, or None for an absent value."""
    return lambda raw: None if raw is None else item(raw)


def name_in(registry: Registry, *prefixes: str, callables: bool = False) -> Parser:
    """A registered name, ``prefix:rest``, or ``package.module:callable`` where allowed."""

    def parse(raw: Any) -> str:
        name = text(raw)
        prefix, colon, rest = name.partition(":")
        if colon and prefix in prefixes and rest:
            return name
        if callables and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", name):
            return name
        try:
            return registry.check(name)
        except UsageError as error:
            also = [f"{p}:{'DIR' if p == 'imagefolder' else 'NAME'}" for p in prefixes]
            also += ["package.module:callable"] if callables else []
            more = f"; or {', '.join(also)}" if also else ""
            raise ValueError(
                f"a known {registry.kind} ({str(error).split(': ', 1)[1]}{more})"
            ) from None

    return parse
