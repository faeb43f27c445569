"""Which settings may have several values in a sweep, and how those are typed and named."""

import dataclasses
from types import NoneType
from typing import Any, get_args

from qwd import parsing
from qwd.config import MACHINE_SETTINGS, fields
from qwd.grid import grid
from qwd.parsing import Parser
from qwd.setting import plain_name, short
from qwd.sweep.layout import safe

FIXED = ("seed", "from_", "data", "lr_corrected", *MACHINE_SETTINGS)
"""Settings with one value in a sweep, beside lists and patterns, whose commas are their own."""

BARE = ("model", "optimizer", "form")
"""Settings whose words speak for themselves in the name of a cell."""


def may_vary(field: dataclasses.Field[Any]) -> bool:
    """Whether a setting may have several values: a number, a word or a flag."""
    return field.name not in FIXED and "tuple" not in str(field.type)


def values_parser(field: dataclasses.Field[Any]) -> Parser:
    """A parser to the tuple of values that a setting is to have.

    Numbers are a list or a range as `qwd.grid` reads them, words and flags a list.
    """
    parse = field.metadata["parse"]
    if not may_vary(field):
        return lambda raw: (parse(raw),)
    kinds = get_args(field.type) or (field.type,)
    kind = next(kind for kind in kinds if kind is not NoneType)
    if kind is float:
        return grid(parse)
    if kind is int:
        return grid(_whole(parse))
    return parsing.list_of(parse, unique=True)


def _whole(parse: Parser) -> Parser:
    """``parse``, of an integer, for what a grid hands over: a float where it is a whole number."""
    return lambda raw: parse(int(raw) if isinstance(raw, float) and raw.is_integer() else raw)


def ordered(names: Any) -> list[str]:
    """Names of settings in the order of their declaration."""
    wanted = set(names)
    return [field.name for field in fields() if field.name in wanted]


def part_of_id(name: str, value: Any) -> str:
    """What a value adds to the name of a cell: ``wd1e-4``, ``adamw``, ``decay-bias``."""
    plain = plain_name(name).replace("_", "-")
    if isinstance(value, bool):
        return plain if value else f"no-{plain}"
    if isinstance(value, str):
        return safe(value if name in BARE else f"{plain}-{value}")
    return f"{plain}{exact(value)}"


def exact(value: float) -> str:
    """A number as people write it, with all the digits that it takes to read it back."""
    text = short(value)
    return text if float(text) == value else repr(value)
