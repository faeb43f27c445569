"""`qwd compare`."""

import click

from qwd.files import write_text
from qwd_cli.options import Command
from qwd_cli.outputs import check_outputs


@click.command("compare", cls=Command)
@click.argument("base")
@click.argument("head")
@click.option(
    "--fail-on",
    "limits",
    multiple=True,
    metavar="METRIC:LIMIT",
    help="exit 1 when the change exceeds LIMIT, whose sign is the harmful direction: "
    "int8_accuracy:-0.5pp, range:+5%, schemes.ao-static.kl:+0.01 (repeatable)",
)
@click.option("--md", "md_path", metavar="PATH", help="write Markdown; - for stdout")
def command(base: str, head: str, limits: tuple[str, ...], md_path: str | None) -> None:
    """Compare two reports or run folders, models matched by name.

    Exit code 0: within the limits; 1: a limit is exceeded; 2: wrong use; 3: not comparable.
    """
    from qwd.report.compare import compare_files

    check_outputs({"--md": md_path}, [base, head])
    compared = compare_files(base, head, fail_on=limits)
    if md_path == "-":
        click.echo(compared.to_markdown())
    else:
        if md_path is not None:
            write_text(md_path, compared.to_markdown() + "\n")
        click.echo(str(compared))
    for line in compared.exceeded:
        click.echo(f"exceeded: {line}", err=True)
    click.get_current_context().exit(compared.exit_code)
