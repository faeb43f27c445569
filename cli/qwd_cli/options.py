"""Options made from the settings of `qwd.config`, so that each is declared once.

Values reach `qwd.config` as the text that was typed: it parses and checks them, for options as
for YAML files and variables.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import click

from qwd.config import fields, option_name, short


def setting_options(*, shared_only: bool = False) -> Callable[[Any], Any]:
    """Decorator: one option per setting; absent ones are None.

    ``shared_only``: those that reports have too, where a run or nothing stands for the default.
    """

    def decorate(function: Any) -> Any:
        for field in reversed(fields(shared_only=shared_only)):
            function = _option(field, show_default=not shared_only)(function)
        return function

    return decorate


def _option(field: dataclasses.Field[Any], *, show_default: bool) -> Callable[[Any], Any]:
    name = option_name(field.name)
    text = field.metadata["help"]
    repeatable = field.name == "no_decay"
    if repeatable:
        text += " (repeatable)"
    elif show_default and field.default is not None:
        text += f"  [{_default(field)}]"
    if isinstance(field.default, bool):
        return click.option(f"{name}/--no-{name[2:]}", field.name, default=None, help=text)
    metavar = "REGEX" if repeatable else "VALUE"
    return click.option(name, field.name, multiple=repeatable, metavar=metavar, help=text)


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(f"{item:g}" for item in value)
    return short(value) if isinstance(value, float) else str(value)


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were typed: absent ones and empty repeatable ones left out."""
    return {name: value for name, value in options.items() if value not in (None, ())}
