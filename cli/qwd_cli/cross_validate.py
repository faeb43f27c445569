"""`qwd cross-validate`."""

import os
from typing import TYPE_CHECKING, Any

import click

from qwd import layers, parsing
from qwd.config import QUANTIZATION_SETTINGS
from qwd.grid import grid
from qwd.setting import checked, short
from qwd_cli.options import Command, config_option, given, setting_options, settings_in
from qwd_cli.outputs import check_outputs, deliver, output_options

if TYPE_CHECKING:
    from qwd.train.cross_validation import Arm, Cell, CrossValidation


@click.command("cross-validate", cls=Command)
@click.option(
    "--wd",
    "wds",
    metavar="GRID",
    required=True,
    help="decays: 0,1e-5,1e-4 or 2^-20..2^-6 (powers of two), 1e-5..1e-2 (of ten), "
    "1e-6..1e-2:9 (nine values), 1e-5..1e-3:x3 (times three)",
)
@click.option("--folds", metavar="K", default="5", help="parts held out in turn  [5]")
@click.option("--metric", metavar="NAME", default="accuracy", help="accuracy or loss  [accuracy]")
@output_options
@config_option
@setting_options(without=("wd", "early_stop", *QUANTIZATION_SETTINGS))
def command(
    wds: str,
    folds: str,
    metric: str,
    json_path: str | None,
    csv_path: str | None,
    config_file: str | None,
    **options: Any,
) -> None:
    """Choose a weight decay by stratified k-fold cross-validation.

    Every decay is trained on the same folds of the training images, with the same seed in each.
    The choice is the largest decay within one standard error of the best; the last line of stdout
    is that decay.
    """
    values = checked("--wd", grid(parsing.number(least=0)), wds)
    k = checked("--folds", parsing.integer(least=2, most=100), folds)
    decisive = checked("--metric", parsing.one_of("accuracy", "loss"), metric)
    check_outputs({"--json": json_path, "--csv": csv_path})
    file = settings_in(config_file)
    config = layers.from_layers(given(options), os.environ, file)

    from qwd.train.cross_validation import cross_validate

    plan = (
        f"{len(values) * k} trainings of {config.model} on {config.data}, {len(values)} wd x {k} "
        f"folds, {config.epochs} epochs each"
    )
    found = cross_validate(
        config,
        values,
        k,
        metric=decisive,
        on_begin=lambda: click.echo(plan, err=True),
        on_cell=_heard,
    )
    for note in found.notes:
        click.echo(note, err=True)
    if deliver(found, json_path, csv_path):
        _show(found)


def _heard(cell: "Cell") -> None:
    from qwd.report.render import numbers

    figures = f"accuracy {numbers.percent(cell.accuracy)}, loss {numbers.digits(cell.loss)}"
    outcome = "diverged" if cell.diverged else figures
    click.echo(f"wd {_named(cell.wd)}, fold {cell.fold}: {outcome}", err=True)


def _show(found: "CrossValidation") -> None:
    from qwd.report.render.blocks import Note, Table
    from qwd.report.render.text import show

    header = ("wd", "dose", "accuracy", "loss", "mark")
    rows = tuple(_row(found, arm) for arm in found.arms)
    rule = Note(
        f"Mean ± deviation over {found.folds} folds. Best: the best mean {found.metric}. Chosen: "
        "the largest decay whose mean is within one standard error of the best, the best's "
        f"deviation / sqrt({found.folds}) (Breiman et al. 1984)."
    )
    page = [Table(header=header, words=("mark",), rows=rows), rule]
    if found.at_the_end:
        page.append(Note("No larger decay was tried: one may do as well."))
    click.echo(show(page), nl=False)
    wd = found.chosen.wd
    click.echo(short(wd) if float(short(wd)) == wd else repr(wd))


def _row(found: "CrossValidation", arm: "Arm") -> tuple[str, ...]:
    from qwd.report.figures import Spread
    from qwd.report.render import numbers

    accuracy, loss = (e and Spread(mean=e.mean, std=e.std) for e in (arm.accuracy, arm.loss))
    marks = {
        "best": arm is found.best,
        "chosen": arm is found.chosen,
        f"diverged in {arm.diverged} of {found.folds}": arm.diverged,
    }
    return (
        _named(arm.wd),
        numbers.digits(arm.dose, 3),
        numbers.spread(accuracy, "fraction"),
        numbers.spread(loss, "number"),
        ", ".join(mark for mark, holds in marks.items() if holds),
    )


def _named(wd: float) -> str:
    return short(float(f"{wd:.4g}"))
