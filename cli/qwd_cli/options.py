"""Options made from the settings of `qwd.config`, so that each is declared once.

Values reach `qwd.config` as the text that was typed: it parses and checks them, for options as
for YAML files and variables.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import click

from qwd.config import fields
from qwd.setting import option_name, plain


def setting_options(
    *, shared_only: bool = False, without: tuple[str, ...] = ()
) -> Callable[[Any], Any]:
    """Decorator: one option per setting; absent ones are None.

    ``shared_only``: those that reports have too, where a run or nothing stands for the default.
    ``without``: settings that the command does not have, or has an option of its own for.
    """

    def decorate(function: Any) -> Any:
        for field in reversed(fields(shared_only=shared_only)):
            if field.name not in without:
                function = _option(field, show_default=not shared_only)(function)
        return function

    return decorate


def _option(field: dataclasses.Field[Any], *, show_default: bool) -> Callable[[Any], Any]:
    name = option_name(field.name)
    text, only, repeatable = (field.metadata[key] for key in ("help", "only", "repeatable"))
    if only is not None:
        text = f"{str(only)[2:]}: {text}"
    if repeatable:
        text += " (repeatable)"
    default = field.default if only is None else only.default
    if show_default and not repeatable and default is not None:
        text += f"  [{_shown(default)}]"
    if isinstance(field.default, bool):
        return click.option(f"{name}/--no-{name[2:]}", field.name, default=None, help=text)
    return click.option(
        name, field.name, multiple=bool(repeatable), metavar=repeatable or "VALUE", help=text
    )


def _shown(default: Any) -> str:
    return ("off", "on")[default] if isinstance(default, bool) else plain(default)


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were typed: absent ones and empty repeatable ones left out."""
    return {name: value for name, value in options.items() if value not in (None, ())}
