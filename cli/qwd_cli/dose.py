"""`qwd dose`."""

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
    from qwd.train.dosing import DoseTable

UNFELT = 0.5
"""share of the steps that is worth a warning"""


@click.command("dose", cls=Command)
@click.option("--wd", "wds", metavar="GRID", help="decays, as 1e-5,1e-4 or 1e-6..1e-2  [1e-4]")
@click.option("--target", metavar="DOSE", default="0.5", help="the dose to find a --wd for  [0.5]")
@click.option("--images", metavar="N", help="training images, in place of reading --data")
@click.option("--convert", is_flag=True, help="show the same dose in other tools' coefficients")
@click.option("--convert-lr", metavar="RATE", help="--convert to this peak rate; default: the same")
@click.option("--convert-momentum", metavar="MU", help="... and this momentum of SGD; likewise")
@output_options
@config_option
@setting_options(without=("wd", *QUANTIZATION_SETTINGS))
def command(
    wds: str | None,
    target: str,
    images: str | None,
    convert: bool,
    convert_lr: str | None,
    convert_momentum: str | None,
    json_path: str | None,
    csv_path: str | None,
    config_file: str | None,
    **options: Any,
) -> None:
    """What weight decays will do in a training, without running it.

    The dose D is what decay takes from a weight without gradient, exp(-D) being left. Decays whose
    doses are all below 0.05 cannot differ visibly.
    """
    file = settings_in(config_file)
    config = layers.from_layers(given(options), os.environ, file)
    decays = grid(parsing.number(least=0))
    values = checked("--wd", decays, config.wd if wds is None else wds)
    positive = parsing.number(above=0)
    aim = checked("--target", positive, target)
    n = checked("--images", parsing.optional(parsing.integer(least=1)), images)
    rate = checked("--convert-lr", parsing.optional(positive), convert_lr)
    momentum = checked(
        "--convert-momentum",
        parsing.optional(parsing.number(least=0, most=0.9999)),
        convert_momentum,
    )
    check_outputs({"--json": json_path, "--csv": csv_path})

    from qwd.train.dosing import dose_table

    table = dose_table(config, values, images=n, target=aim, lr=rate, momentum=momentum)
    if deliver(table, json_path, csv_path):
        _show(table, convert=convert or rate is not None or momentum is not None)


def _show(table: "DoseTable", *, convert: bool) -> None:
    from qwd.decay import VISIBLE
    from qwd.report.render.blocks import Block, Heading, Note, Table
    from qwd.report.render.numbers import digits, percent
    from qwd.report.render.text import show

    head = (
        f"{table.form} decay under {table.optimizer}, peak rate {short(table.lr)}, "
        f"{table.epochs} epochs, {table.steps:,} steps"
    )
    most = ", at most" if table.is_bound else ""
    others = f"dose of others{most}"
    columns = {
        "wd": lambda row: short(row.wd),
        f"dose{most}": lambda row: digits(row.dose, 3),
        others: lambda row: digits(row.other_dose, 3),
        f"idle loses{most}": lambda row: percent(row.shrinkage),
        "tau, steps": lambda row: _whole(row.tau_steps),
        "tau, epochs": lambda row: _whole(row.tau_epochs),
        "lr/wd, decades": lambda row: digits(row.decades, 2),
        "penalty/loss": lambda row: digits(row.penalty_share, 2),
        "unfelt": lambda row: f"{row.unfelt:.0%}",
        "in bf16": lambda row: f"{row.unfelt_bfloat16:.0%}",
    }
    if all(row.other_dose is None for row in table.rows):
        del columns[others]
    rows = tuple(tuple(cell(row) for cell in columns.values()) for row in table.rows)
    blocks: list[Block] = [Heading(head), Table(header=tuple(columns), rows=rows)]
    if table.rows[0].dose is None:
        blocks.append(
            Note(
                f"{table.form} under {table.optimizer} has no dose: what it takes depends on the "
                "gradients."
            )
        )
    if others in columns:
        blocks.append(
            Note("Others are the decayed weights that --lr-corrected leaves out, if any.")
        )
    if table.wd_for_target is not None:
        enough = f"for D = {table.target:g} use --wd {_rounded(table.wd_for_target)}"
        enough += " or more" if table.is_bound else ""
        if table.too_small:
            text = f"doses below {VISIBLE:g}: these runs cannot differ through decay; {enough}"
            blocks.append(Note(text, "warning"))
        else:
            blocks.append(Note(enough[0].upper() + enough[1:] + "."))
    unfelt = [short(row.wd) for row in table.rows if row.unfelt > UNFELT]
    if unfelt:
        text = f"most steps of wd {', '.join(unfelt)} are too small to change a float32 weight"
        blocks.append(Note(f"{text} by themselves", "warning"))
    if table.suggestion is not None:
        blocks.append(
            Note(
                f"A rule of thumb, no more: the penalty is a tenth of the data loss at the start "
                f"with --wd {_rounded(table.suggestion)}."
            )
        )
    if convert:
        header = ("the same dose in", *(f"wd {short(row.wd)}" for row in table.rows))
        lines = tuple(
            (name, *("-" if v is None else _rounded(v) for v in values))
            for name, values in table.conversions.items()
        )
        blocks.append(Table(header=header, rows=lines))
    click.echo(show(blocks), nl=False)


def _whole(figure: float | None) -> str:
    return "-" if figure is None else f"{float(f'{figure:.3g}'):,g}"


def _rounded(wd: float) -> str:
    return short(float(f"{wd:.3g}"))
