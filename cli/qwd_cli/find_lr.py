"""`qwd find-lr`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from qwd import layers, parsing
from qwd.config import QUANTIZATION_SETTINGS
from qwd.errors import UsageError
from qwd.setting import checked, short
from qwd_cli.options import Command, config_option, given, setting_options, settings_in
from qwd_cli.outputs import check_outputs, deliver, output_options

if TYPE_CHECKING:
    from qwd.train.find_lr import Point, RangeTest

PLOT = "find-lr.png"
ENDINGS = (".png", ".svg", ".pdf")
ROWS = 20


@click.command("find-lr", cls=Command)
@click.option("--from", "first", metavar="RATE", default="1e-6", help="first rate  [1e-6]")
@click.option("--to", "last", metavar="RATE", default="10", help="last rate  [10]")
@click.option("--steps", metavar="N", default="200", help="steps, a batch each  [200]")
@click.option("--plot", "plot_path", metavar="PATH", default=PLOT, help=f"picture  [{PLOT}]")
@output_options
@config_option
@setting_options(without=QUANTIZATION_SETTINGS)
def command(
    first: str,
    last: str,
    steps: str,
    plot_path: str,
    json_path: str | None,
    csv_path: str | None,
    config_file: str | None,
    **options: Any,
) -> None:
    """Find a learning rate by a range test.

    The rate rises from --from to --to, batch by batch, with the model, optimizer, decay and
    augmentation of a training; schedules, warm-up and --lr itself play no part. A picture is
    written; the last line of stdout is the suggested --lr.
    """
    rate = parsing.number(above=0)
    low, high = checked("--from", rate, first), checked("--to", rate, last)
    if low >= high:
        raise UsageError(f"--to {last}: expected a rate greater than --from {first}")
    n = checked("--steps", parsing.integer(least=50, most=100_000), steps)
    if Path(plot_path).suffix.lower() not in ENDINGS or os.path.isdir(plot_path):
        raise UsageError(f"--plot {plot_path!r}: expected a file ending in {', '.join(ENDINGS)}")
    check_outputs({"--plot": plot_path, "--json": json_path, "--csv": csv_path})
    file = settings_in(config_file)
    config = layers.from_layers(given(options), os.environ, file)

    from qwd.train.find_lr import range_test
    from qwd.train.find_lr_plot import plot

    plan = f"range test: {config.model} on {config.data}, {config.optimizer}"
    console = Console(stderr=True)
    columns = TextColumn("lr {task.fields[lr]}"), BarColumn(), MofNCompleteColumn()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=n, lr=first)

        def stepped(point: "Point") -> None:
            if point.step == 1:
                click.echo(plan, err=True)
            bar.update(task, completed=point.step, lr=f"{point.lr:.2g}")

        test = range_test(
            config,
            first=low,
            last=high,
            steps=n,
            on_step=stepped,
        )
    for note in test.notes:
        click.echo(note, err=True)
    plot(test, plot_path)
    click.echo(f"plotted in {plot_path}", err=True)
    if deliver(test, json_path, csv_path):
        _show(test)


def _show(test: "RangeTest") -> None:
    from qwd.report.render import numbers
    from qwd.report.render.blocks import Note, Table
    from qwd.report.render.text import show

    points = test.points
    every = -(-len(points) // ROWS)
    rows = tuple(
        (short(float(f"{p.lr:.3g}")), numbers.digits(p.loss), numbers.digits(p.smoothed))
        for p in points[every - 1 :: every]
    )
    readings = [
        f"The smoothed loss is lowest at lr {test.lowest:.3g} and falls fastest at "
        f"{test.steepest:.3g}.",
        f"The test ended early: {test.stopped}."
        if test.stopped
        else f"The test went up to lr {points[-1].lr:g}"
        + ("; with a higher --to the loss may fall further." if test.open_ended else "."),
        "Suggested: a tenth of the rate of the lowest loss, as --lr:",
    ]
    table = Table(header=("lr", "loss", "smoothed"), rows=rows, keys=0)
    click.echo(show([table, *map(Note, readings)]), nl=False)
    click.echo(short(test.suggestion))
