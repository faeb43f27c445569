"""`qwd list`."""

import click

from qwd.errors import UsageError
from qwd.parsing import one_of
from qwd.registry import KINDS, Registry
from qwd.setting import checked
from qwd_cli.options import Command


@click.command("list", cls=Command)
@click.argument("kind", metavar=f"KIND [{'|'.join(KINDS)}]")
def command(kind: str) -> None:
    """List what can be named, with what each entry says of itself."""
    registry = KINDS[checked("KIND", one_of(*KINDS), kind)]
    for name in registry.names():
        click.echo(f"{name:<14} {_description(registry, name)}".rstrip())


def _description(registry: Registry, name: str) -> str:
    try:
        thing = registry.get(name)
    except UsageError as error:
        return str(error)  # an extra that is not installed
    if hasattr(thing, "summary"):
        return thing.summary
    return (thing.__doc__ or "").strip().split("\n")[0]
