"""`qwd sweep`."""

import os
from pathlib import Path
from typing import Any

import click

from qwd import parsing
from qwd.errors import UsageError
from qwd.registry import EXECUTORS
from qwd.setting import checked
from qwd_cli.options import Command, config_option, given, setting_options, settings_in
from qwd_cli.outputs import renderer_options, renderers_in
from qwd_cli.sweep_search import refuse_grid_options, refuse_search_options, run_search


@click.command("sweep", cls=Command)
@click.option(
    "--wd",
    metavar="GRID",
    help="decays: 0,1e-5,1e-4 or 2^-20..2^-6 (powers of two), 1e-5..1e-2 (of ten), "
    "1e-6..1e-2:9 (nine values), 1e-5..1e-3:x3 (times three)  [1e-5,1e-4]",
)
@click.option("--seeds", metavar="N", help="a count, 0 to N-1, or a list as 0,3,8..15  [8]")
@click.option("--name", metavar="NAME", help="the folder sweeps/NAME  [MODEL-DATA]")
@click.option("--out", metavar="DIR", help="the sweep's own folder, in place of --name")
@click.option("--resume", is_flag=True, help="go on with the sweep in its folder, or extend it")
@click.option("--cell", "cells", multiple=True, metavar="ID", help="train it again (repeatable)")
@click.option("--dry-run", is_flag=True, help="print cells, doses and a time estimate; no more")
@click.option(
    "--executor", metavar="NAME", default="auto", help="`qwd list executors`, or auto  [auto]"
)
@click.option("--jobs", metavar="N", help="cells computed at once; default: one per core")
@click.option("--reference", metavar="WD", help="compare with it; default: the least above 0")
@click.option("--placebo", is_flag=True, help="add arms without effect: how often is one claimed?")
@click.option(
    "--scheme", "scheme", multiple=True, metavar="NAME", help="report it (repeatable)  [all]"
)
@click.option(
    "--backend", "backend", multiple=True, metavar="NAME[:ENGINE]", help="runs schemes (repeatable)"
)
@click.option("--calibration-n", metavar="N", help="calibration images  [512]")
@click.option(
    "--bits", metavar="LIST", help="widths of the weights: reported, or with --qat trained for  [8]"
)
@click.option(
    "--search",
    metavar="N",
    help="in place of a grid, train N draws: --lr, --wd and --momentum are a value, or a range to "
    "draw from evenly in the logarithm (of 1 - momentum)  [1e-5..0.1, 1e-7..0.1, 0.9..0.999]",
)
@click.option("--sampler", metavar="NAME", help="--search: random, or tpe of Optuna  [random]")
@click.option(
    "--storage",
    metavar="URL",
    help="--search: a database that several machines share; default: a file in the folder",
)
@click.option("--seed", metavar="N", help="--search: seed of the draws and of every training  [0]")
@renderer_options
@setting_options(without=("wd", "seed", "bits"))
@config_option
@click.option("--print-config", is_flag=True, help="print the grid as YAML and stop")
def command(
    name: str | None,
    out: str | None,
    resume: bool,
    cells: tuple[str, ...],
    dry_run: bool,
    executor: str,
    jobs: str | None,
    placebo: bool,
    search: str | None,
    storage: str | None,
    config_file: str | None,
    print_config: bool,
    **options: Any,
) -> None:
    """Train a grid of decays and seeds, report every cell, and give a verdict.

    Every setting that is a number or a word may be a list, numbers also a range as in --wd: --lr
    0.05,0.1 --model mlp,small_cnn --batch-size 16..128. All combinations are trained, those of one
    seed with the same initialization, data order and augmentation. After --from SWEEP each cell
    starts from the cell of the same settings and seed.

    With --search N learning rate, decay and momentum are drawn N times, and the best is found by
    the int8 accuracy on the validation split; --lr 1e-4..1e-1 is then a range to draw from.
    """
    targets = renderers_in(options, [config_file] if config_file else [])
    if targets and (print_config or dry_run):
        raise UsageError(f"--{next(iter(targets))}: --print-config and --dry-run report nothing")
    if search is not None:
        refuse_grid_options(
            {
                "--cell": cells,
                "--executor": None if executor == "auto" else executor,
                "--placebo": placebo,
                **{f"--{name}": path for name, path in targets.items()},
            }
        )
        run_search(
            search,
            storage,
            folder=_folder(name, out),
            resume=resume,
            dry_run=dry_run,
            jobs=jobs,
            config_file=config_file,
            print_config=print_config,
            options=given(options),
        )
        return
    seed, sampler = options.pop("seed"), options.pop("sampler")
    refuse_search_options({"--seed": seed, "--sampler": sampler, "--storage": storage})

    from qwd.sweep import read

    if executor != "auto":
        checked("--executor", parsing.name_in(EXECUTORS), executor)
    read_jobs = checked("--jobs", parsing.optional(parsing.integer(least=1, most=4096)), jobs)
    file = settings_in(config_file)
    asked = read(given({**options, "placebo": placebo or None}), os.environ, file)
    folder = _folder(name, out)

    from qwd.sweep.cells import cells_of
    from qwd.sweep.opening import open_sweep
    from qwd.sweep.reading import begin
    from qwd.sweep.session import sweep
    from qwd_cli.sweep_progress import SweepProgress, show_plan, show_sweep

    if cells and (print_config or dry_run):
        raise UsageError(f"--cell {cells[0]!r}: trains it, unlike --print-config and --dry-run")
    progress = SweepProgress()
    if print_config:
        design = open_sweep(asked, folder, resume).design if resume else begin(asked)
        cells_of(design)  # which checks the settings against each other
        click.echo(design.to_yaml(), nl=False)
    elif dry_run:
        opened = open_sweep(asked, folder, resume, progress.note)

        from qwd.sweep.planning import planned

        show_plan(planned(opened, executor, read_jobs))
    else:
        done = sweep(
            asked,
            out=folder,
            resume=resume,
            executor=executor,
            jobs=read_jobs,
            only=cells,
            watcher=progress,
        )
        show_sweep(done, targets)
        done.check()


def _folder(name: str | None, out: str | None) -> Path | None:
    from qwd.sweep.layout import SWEEPS, safe

    if name is not None and out is not None:
        raise UsageError(f"--name {name} and --out {out}: give one of them")
    if name is not None and (name != safe(name) or not name.strip(".")):
        raise UsageError(f"--name {name!r}: expected letters, digits, dots and dashes")
    if out is not None and not out.strip():
        raise UsageError("--out '': expected a folder")
    return SWEEPS / name if name else Path(out) if out else None
