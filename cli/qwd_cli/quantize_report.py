"""`qwd quantize-report`."""

import os
from pathlib import Path
from typing import Any

import click

from qwd import config as settings
from qwd import parsing
from qwd.errors import InputError, QwdError, UsageError
from qwd.files import write_text
from qwd_cli.options import given, setting_options

RUNS = Path("runs")
MACHINE_SETTINGS = ("data_dir", "download", "device", "threads")
"""What ``QWD_*`` variables decide for a report; what a run is, its own folder says."""


@click.command("quantize-report")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option(
    "--scheme", "schemes", multiple=True, metavar="NAME", help="scheme (repeatable) [all]"
)
@click.option("--bits", metavar="LIST", default="8", help="widths of weight-only schemes  [8]")
@click.option("--calibration-n", metavar="N", default="512", help="calibration images  [512]")
@click.option("--key", metavar="NAME", help="which state dict of a file that holds several")
@click.option("--top", metavar="N", help="tensors shown per model; 0: all  [10]")
@click.option("--json", "json_path", metavar="PATH", help="write JSON; - for stdout")
@click.option("--csv", "csv_path", metavar="PATH", help="write a row per tensor; - for stdout")
@click.option("--md", "md_path", metavar="PATH", help="write Markdown; - for stdout")
@click.option("--html", "html_path", metavar="PATH", help="write an HTML page; - for stdout")
@setting_options(shared_only=True)
def command(
    paths: tuple[str, ...],
    schemes: tuple[str, ...],
    bits: str,
    calibration_n: str,
    key: str | None,
    top: str | None,
    json_path: str | None,
    csv_path: str | None,
    md_path: str | None,
    html_path: str | None,
    **options: Any,
) -> None:
    """Quantize to 8 bits with scale = (b-a)/255 and report.

    PATH is a run folder or a checkpoint (.pt, .pth, .th, .bin, .safetensors); without one, every
    run under runs/ is reported, side by side. A checkpoint from elsewhere needs --model and --data
    for accuracy. A run's report is also written to its folder.
    """
    from qwd.quantize.schemes import expand, parse_scheme

    read_bits = settings.checked("--bits", parsing.list_of(parsing.integer(least=2, most=8)), bits)
    read_n = settings.checked("--calibration-n", parsing.integer(least=1), calibration_n)
    read_top = settings.checked("--top", parsing.optional(parsing.integer(least=0)), top)
    expand([parse_scheme(name) for name in schemes], read_bits)
    known = {field.name: field for field in settings.fields()}
    layers = {
        **{
            name: value
            for name, value in settings.environment_settings(os.environ).items()
            if name in MACHINE_SETTINGS
        },
        **given(options),
    }
    read_settings = {name: settings.read(known[name], raw) for name, raw in layers.items()}
    targets = {"json": json_path, "csv": csv_path, "md": md_path, "html": html_path}
    targets = {name: path for name, path in targets.items() if path is not None}
    if list(targets.values()).count("-") > 1:
        raise UsageError("--json, --csv, --md, --html: only one of them can be - (stdout)")
    for name, path in targets.items():
        if not path.strip() or Path(path).is_dir():
            raise UsageError(f"--{name} {path!r}: expected a file, or - for stdout")
    found = [Path(path) for path in paths] or _runs()

    import torch

    from qwd.registry import RENDERERS
    from qwd.report.entry import report
    from qwd.report.figures import ModelReport, Report
    from qwd.report.render.json import render as render_json
    from qwd.report.render.text import render as render_text
    from qwd.train.run import REPORT, is_run

    if read_settings.get("threads"):
        torch.set_num_threads(read_settings["threads"])

    def keep(model: ModelReport) -> None:
        click.echo(f"reported {model.path}", err=True)
        if model.path is not None and is_run(Path(model.path)):
            text = render_json(Report(models=(model,)))
            try:
                write_text(Path(model.path) / REPORT, text)
            except QwdError as error:
                click.echo(f"qwd: note: {error}", err=True)

    made = report(
        found,
        schemes=schemes or None,
        bits=read_bits,
        calibration_n=read_n,
        device=read_settings.get("device", "auto"),
        key=key,
        given={n: v for n, v in read_settings.items() if n not in ("device", "threads")},
        on_model=keep,
    )
    for name, path in targets.items():
        pages = {"top": read_top} if name in ("md", "html") else {}
        text = RENDERERS.get(name)(made, **pages)
        if path == "-":
            click.echo(text, nl=not text.endswith("\n"))
        else:
            write_text(path, text)
    if "-" not in targets.values():
        click.echo(render_text(made, top=read_top), nl=False)


def _runs() -> list[Path]:
    """Every finished run under runs/; unfinished ones are named on stderr."""
    folders = sorted(p for p in RUNS.glob("*") if (p / "config.yaml").is_file())
    finished = [p for p in folders if (p / "model.safetensors").is_file()]
    for path in folders:
        if path not in finished:
            click.echo(
                f"left out: {path} is unfinished (`qwd train --resume --out {path}`)", err=True
            )
    if not finished:
        raise InputError(f"no finished run under {RUNS}/: `qwd train --wd 1e-4` makes one")
    return finished
