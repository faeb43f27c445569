"""Where a command's figures go beside or instead of the terminal: ``--json`` and ``--csv``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import click

from qwd.errors import UsageError
from qwd.files import write_text


class Written(Protocol):
    """What a command has found."""

    def to_json(self) -> str:
        """As JSON."""
        ...

    def to_csv(self) -> str:
        """As CSV."""
        ...


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the options ``--json PATH`` and ``--csv PATH``."""
    for name in ("csv", "json"):
        help_text = f"write every figure as {name}; - for stdout, in place of the table"
        function = click.option(f"--{name}", f"{name}_path", metavar="PATH", help=help_text)(
            function
        )
    return function


def checked_outputs(json_path: str | None, csv_path: str | None) -> None:
    """UsageError, before any work, where the figures cannot go there."""
    if json_path == csv_path == "-":
        raise UsageError("--json, --csv: only one of them can be - (stdout)")
    for name, path in (("--json", json_path), ("--csv", csv_path)):
        if path is not None and (not path.strip() or Path(path).is_dir()):
            raise UsageError(f"{name} {path!r}: expected a file, or - for stdout")


def deliver(found: Written, json_path: str | None, csv_path: str | None) -> bool:
    """Write what was asked for; whether stdout is left for the table."""
    for path, text in ((json_path, found.to_json), (csv_path, found.to_csv)):
        if path == "-":
            click.echo(text(), nl=False)
        elif path is not None:
            write_text(path, text())
    return "-" not in (json_path, csv_path)
