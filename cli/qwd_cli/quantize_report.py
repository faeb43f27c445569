"""`qwd quantize-report`."""

import gc
import os
import sys
from pathlib import Path
from typing import Any

import click

from qwd import parsing
from qwd.errors import InputError, QwdError, UsageError
from qwd.files import write_text
from qwd.registry import RENDERERS
from qwd.report.prefetch import prefetch
from qwd.setting import checked
from qwd.train.layout import REPORT, RUNS, is_finished, is_run
from qwd_cli.options import Command, read_given, setting_options
from qwd_cli.outputs import PAGES, renderer_options, renderers_in, write_outputs


@click.command("quantize-report", cls=Command)
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option(
    "--scheme", "schemes", multiple=True, metavar="NAME", help="scheme (repeatable) [all]"
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME[:ENGINE]",
    help="what runs the schemes with activations (`qwd list backends`; repeatable) [ao]",
)
@click.option("--bits", metavar="LIST", default="8", help="widths of the weights  [8]")
@click.option("--calibration-n", metavar="N", default="512", help="calibration images  [512]")
@click.option("--key", metavar="NAME", help="which state dict of a file that holds several")
@click.option("--top", metavar="N", help="tensors shown per model; 0: all  [10]")
@click.option("--sort", metavar="FIELD", help="what weights are sorted by: range, gain, ... [sqnr]")
@click.option("--filter", "matching", metavar="REGEX", help="measure the weights it finds alone")
@click.option(
    "--fold",
    multiple=True,
    metavar="LAYER=NORM",
    help="a BatchNorm that folds into a layer of a checkpoint, as 'conv(\\d)=bn\\1' (repeatable)",
)
@click.option("--bn-eps", metavar="X", help="eps of a checkpoint's BatchNorms  [1e-5]")
@click.option("--full", is_flag=True, help="order statistics of weights over 100 MB too")
@click.option("--sensitivity", is_flag=True, help="try every layer alone, and left in float")
@click.option(
    "--sensitivity-n", metavar="N", help="validation images that layers are tried on  [2000]"
)
@click.option(
    "--fix", metavar="LIMIT", help="try remedies where int8 loses more than LIMIT pp on validation"
)
@renderer_options
@setting_options(shared_only=True)
def command(
    paths: tuple[str, ...],
    schemes: tuple[str, ...],
    backends: tuple[str, ...],
    bits: str,
    calibration_n: str,
    key: str | None,
    top: str | None,
    sort: str | None,
    matching: str | None,
    fold: tuple[str, ...],
    bn_eps: str | None,
    full: bool,
    sensitivity: bool,
    sensitivity_n: str | None,
    fix: str | None,
    **options: Any,
) -> None:
    """Quantize to 8 bits with scale = (b-a)/255 and report.

    PATH is a run folder, a checkpoint (.pt, .pth, .th, .bin, .ckpt, .pth.tar, .safetensors), a
    folder of those, or a sweep folder, for its cells; without one, every run under runs/ is
    reported, side by side. Checkpoints of one training become a trajectory. A checkpoint from
    elsewhere needs --model and --data for accuracy. A run's report is also written to its folder.
    """
    from qwd.quantize.schemes import DEFAULT_SCHEMES, expand, on_backends, parse_scheme
    from qwd.report.render.tensors import SORTS

    widths = parsing.list_of(parsing.integer(least=2, most=8), unique=True)
    read_bits = checked("--bits", widths, bits)
    read_n = checked("--calibration-n", parsing.integer(least=1), calibration_n)
    read_top = checked("--top", parsing.optional(parsing.integer(least=0)), top)
    read_sort = checked("--sort", parsing.optional(parsing.one_of(*SORTS)), sort)
    checked("--key", parsing.optional(parsing.text), key)
    checked("--filter", parsing.optional(parsing.patterns), matching)
    read_eps = checked("--bn-eps", parsing.optional(parsing.number(least=0)), bn_eps)
    _check_statements(fold)
    named = [parse_scheme(name) for name in schemes] or DEFAULT_SCHEMES
    expand(on_backends(named, backends), read_bits)
    asked_n = 2000 if sensitivity_n is None else sensitivity_n
    read_images = checked("--sensitivity-n", parsing.integer(least=1), asked_n)
    if sensitivity_n is not None and not sensitivity:
        raise UsageError(f"--sensitivity-n {sensitivity_n!r}: belongs to --sensitivity")
    read_fix = checked("--fix", parsing.optional(parsing.number(least=0, most=100)), fix)
    targets = renderers_in(options, paths)
    chosen = read_given(options, of_runs=not paths or any(map(os.path.isdir, paths)))
    found = [Path(path) for path in paths] or _runs()

    prefetch(found)
    # What is imported stays: to look through it for garbage takes a third of a second.
    gc.disable()
    import torch

    from qwd.report.entry import report
    from qwd.report.render.text import render
    from qwd_cli.study_progress import StudyProgress
    from qwd_cli.weight_progress import WeightProgress

    gc.freeze()
    gc.enable()
    if chosen.get("threads"):
        torch.set_num_threads(chosen["threads"])
    made = report(
        found,
        schemes=schemes or None,
        backends=backends,
        bits=read_bits,
        calibration_n=read_n,
        device=chosen.get("device", "auto"),
        key=key,
        given=chosen,
        sensitivity=sensitivity,
        sensitivity_n=read_images,
        fix=read_fix,
        watcher=StudyProgress(),
        on_model=_keep if matching is None else _mention,
        full=full or None,
        fold=fold,
        matching=matching,
        on_bytes=WeightProgress(),
        **({} if read_eps is None else {"bn_eps": read_eps}),
    )
    shown = {"top": read_top, "sort": read_sort}

    def text(name: str) -> str:
        return RENDERERS.get(name)(made, **(shown if name in PAGES else {}))

    if write_outputs(targets, text):
        click.echo(render(made, **shown, colour=sys.stdout.isatty()), nl=False)


def _check_statements(fold: tuple[str, ...]) -> None:
    """UsageError for what is no pair of patterns."""
    for text in fold:
        layer, equals, norm = text.partition("=")
        if not (layer and equals and norm):
            raise UsageError(f"--fold {text!r}: expected LAYER=NORM, as 'conv(\\d)=bn\\1'")


def _mention(model: Any) -> None:
    click.echo(f"reported {model.path}", err=True)


def _keep(model: Any) -> None:
    """Write a run's report to its folder; where that is not possible, say so and go on."""
    from qwd.report.figures import Report

    _mention(model)
    if model.path is not None and is_run(Path(model.path)):
        try:
            write_text(Path(model.path) / REPORT, RENDERERS.get("json")(Report(models=(model,))))
        except QwdError as error:
            click.echo(f"qwd: note: {error}", err=True)


def _runs() -> list[Path]:
    """Every finished run under runs/; unfinished ones are named on stderr."""
    folders = sorted(path for path in RUNS.glob("*") if is_run(path))
    for path in folders:
        if not is_finished(path):
            resume = f"qwd train --resume --out {path}"
            click.echo(f"left out: {path} is unfinished (`{resume}`)", err=True)
    finished = [path for path in folders if is_finished(path)]
    if not finished:
        raise InputError(f"no finished run under {RUNS}/: `qwd train --wd 1e-4` makes one")
    return finished
