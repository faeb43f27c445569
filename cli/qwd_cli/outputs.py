"""Where a command's figures go beside or instead of the terminal: ``--json``, ``--html``, ..."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import click

from qwd.errors import UsageError
from qwd.files import check_writable, write_text
from qwd.registry import RENDERERS

PAGES = ("md", "html")
"""Renderers for readers, which take the number of tensors to show and their order"""


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


def renderer_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: an option per registered renderer of reports, ``--json PATH`` and so on."""
    for name in reversed(RENDERERS.names()):
        help_text = f"write the report as {name}; - for stdout"
        function = click.option(f"--{name}", name, metavar="PATH", help=help_text)(function)
    return function


def renderers_in(options: dict[str, Any], inputs: Iterable[str] = ()) -> dict[str, str]:
    """Take the paths of `renderer_options` out of ``options`` and check them as `check_outputs`."""
    typed = {name: options.pop(name) for name in RENDERERS.names()}
    targets = {name: path for name, path in typed.items() if path is not None}
    check_outputs({f"--{name}": path for name, path in targets.items()}, inputs)
    return targets


def check_outputs(targets: Mapping[str, str | None], inputs: Iterable[str] = ()) -> None:
    """Check, before any work, where results go: paths by option, None where not asked for.

    Raises UsageError for a path that can be no file, for the same file or stdout twice, and for
    one of the ``inputs``, which would be lost; StorageError where nothing can be written.
    """
    taken = {os.path.realpath(path): f"what is read, {path!r}" for path in inputs}
    for option, path in targets.items():
        if path is None:
            continue
        if not path.strip() or os.path.isdir(path):
            raise UsageError(f"{option} {path!r}: expected a file")
        place = path if path == "-" else os.path.realpath(path)
        if place in taken and path == "-":
            raise UsageError(f"{option} -: only one of them can be - (stdout)")
        if place in taken:
            raise UsageError(f"{option} {path!r}: expected another place than {taken[place]}")
        taken[place] = f"that of {option} {path!r}"
        if path != "-":
            check_writable(path)


def deliver(found: Written, json_path: str | None, csv_path: str | None) -> bool:
    """Write what was asked for; whether stdout is left for the table."""
    texts = {"json": found.to_json, "csv": found.to_csv}
    paths = {"json": json_path, "csv": csv_path}
    asked = {name: path for name, path in paths.items() if path is not None}
    return write_outputs(asked, lambda name: texts[name]())


def write_outputs(targets: Mapping[str, str], text: Callable[[str], str]) -> bool:
    """Write ``text(name)`` to each path; whether stdout is left for the table."""
    for name, path in targets.items():
        if path == "-":
            click.echo(text(name), nl=False)
        else:
            write_text(path, text(name))
    return "-" not in targets.values()
