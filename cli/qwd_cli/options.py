"""Options made from the settings of `qwd.config`, so that each is declared once.

Values reach `qwd.config` as the text that was typed: it parses and checks them, for options as
for YAML files and variables.
"""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import click

from qwd import parsing
from qwd.config import MACHINE_SETTINGS, fields
from qwd.errors import UsageError
from qwd.layers import environment_settings, load_yaml, merged, read_all
from qwd.setting import checked, option_name, plain


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


class Command(click.Command):
    """A command that refuses what click takes in silence, the last of an option given twice."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        values, _, order = self.make_parser(ctx).parse_args(list(args))
        for option, times in Counter(order).items():
            if not isinstance(option, click.Option) or (
                option.is_flag and not option.secondary_opts
            ):
                continue
            given = values[option.name or ""]
            twice = [v for v in given if given.count(v) > 1] if option.multiple else [given]
            if times > 1 and twice:
                shown = "" if option.is_flag else f" {twice[0]!r}"
                raise UsageError(f"{option.opts[-1]}{shown}: given {times} times, expected once")
        return super().parse_args(ctx, args)


def config_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the option ``--config FILE``."""
    return click.option(
        "--config", "config_file", metavar="FILE", help="settings from a YAML file"
    )(function)


def settings_in(config_file: str | None) -> dict[str, Any]:
    """What the file of ``--config`` says, nothing without one; UsageError, InputError."""
    if config_file is None:
        return {}
    return load_yaml(checked("--config", parsing.text, config_file))


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were typed: absent ones and empty repeatable ones left out."""
    return {name: value for name, value in options.items() if value not in (None, ())}


def read_given(options: dict[str, Any], *, of_runs: bool) -> dict[str, Any]:
    """The checked settings of options, over those of variables; UsageError.

    Where they are ``of_runs``, whose own folders say what they are, variables decide only where
    and on what those are evaluated.
    """
    counted = MACHINE_SETTINGS if of_runs else options
    variables = environment_settings(os.environ)
    read = {name: value for name, value in variables.items() if name in counted}
    return merged(given(options), read, None, read_all)
