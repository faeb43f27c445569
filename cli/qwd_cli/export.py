"""`qwd export`."""

import os
from typing import TYPE_CHECKING, Any

import click

from qwd import parsing
from qwd.errors import UsageError
from qwd.export.formats import FORMATS, format_called, scheme_for
from qwd.files import write_text
from qwd.setting import checked
from qwd_cli.options import Command, read_given, setting_options
from qwd_cli.outputs import check_outputs

if TYPE_CHECKING:
    from qwd.export.figures import Exported
    from qwd.report.render.blocks import Block


@click.command("export", cls=Command)
@click.argument("run", metavar="RUN")
@click.option(
    "--format",
    "format_name",
    metavar="|".join(FORMATS),
    default="onnx",
    help="ONNX with QuantizeLinear and DequantizeLinear, torch.export's, or weights alone  [onnx]",
)
@click.option(
    "--scheme",
    metavar="NAME",
    help="scheme; default: the format's usual one in 8 bits, in ONNX that of a run with --qat",
)
@click.option(
    "--out",
    metavar="FILE",
    help="the file; default: model-SCHEME.FORMAT in RUN. One that is there is replaced if "
    "`qwd export` wrote it, and refused otherwise",
)
@click.option("--calibration-n", metavar="N", default="512", help="calibration images  [512]")
@click.option("--key", metavar="NAME", help="which state dict of a file that holds several")
@click.option("--json", "json_path", metavar="PATH", help="write the facts as JSON; - for stdout")
@click.option("--benchmark", is_flag=True, help="time float against the file on this machine")
@click.option("--batch-size", metavar="LIST", help="--benchmark: batches to time  [1,32]")
@click.option("--repetitions", metavar="N", help="--benchmark: of each timing  [20]")
@setting_options(shared_only=True)
def command(
    run: str,
    format_name: str,
    scheme: str | None,
    out: str | None,
    calibration_n: str,
    key: str | None,
    json_path: str | None,
    benchmark: bool,
    batch_size: str | None,
    repetitions: str | None,
    **options: Any,
) -> None:
    """Write a quantized model for deployment, checked against the report.

    RUN is a run folder, or a checkpoint (.pt, .pth, .th, .bin, .safetensors) with --model and
    --data. What is written is read back and run on the test images first: an accuracy more than
    0.1 pp from the report's is exit code 5, and no file. The last line of stdout is the file.
    """
    scheme_for(format_called(format_name), scheme)
    checked("--key", parsing.optional(parsing.text), key)
    read_n = checked("--calibration-n", parsing.integer(least=1), calibration_n)
    several = parsing.list_of(parsing.integer(least=1, most=65_536), unique=True)
    sizes = checked("--batch-size", several, "1,32" if batch_size is None else batch_size)
    most = parsing.integer(least=1, most=100_000)
    times = checked("--repetitions", most, 20 if repetitions is None else repetitions)
    for option, value in (("--batch-size", batch_size), ("--repetitions", repetitions)):
        if value is not None and not benchmark:
            raise UsageError(f"{option} {value!r}: belongs to --benchmark")
    check_outputs({"--out": out, "--json": json_path}, [run])
    chosen = read_given(options, of_runs=os.path.isdir(run))

    import torch

    from qwd.export.entry import export

    if chosen.get("threads"):
        torch.set_num_threads(chosen["threads"])
    made = export(
        run,
        format=format_name,
        scheme=scheme,
        out=out,
        calibration_n=read_n,
        device=chosen.get("device", "auto"),
        key=key,
        given=chosen,
        batch_sizes=sizes if benchmark else (),
        repetitions=times,
        on_step=lambda step: click.echo(step, err=True),
    )
    if json_path == "-":
        click.echo(made.to_json(), nl=False)
        return
    if json_path is not None:
        write_text(json_path, made.to_json())
    _show(made)
    click.echo(made.path)


def _show(made: "Exported") -> None:
    from qwd.report.render.blocks import Heading, Note, Table
    from qwd.report.render.numbers import count, percent
    from qwd.report.render.text import show

    n = count(made.n)
    rows = [
        ("float accuracy", percent(made.float_accuracy)),
        (f"{made.report.scheme}, {made.report.source}", percent(made.report.accuracy)),
        ("the file", percent(made.accuracy)),
        ("difference from the report", f"{made.difference_pp:+z.2f} pp"),
        ("same class as the quantized network", f"{count(made.agree_n)} of {n}"),
    ]
    if made.ao is not None:
        rows.append((f"same class as {made.ao.scheme}", f"{count(made.ao.n)} of {n}"))
    ratio = f"{made.float_bytes / made.bytes:.2f}x"
    rows.append(("bytes", count(made.bytes)))
    rows.append((f"bytes in float32, {ratio}", count(made.float_bytes)))
    blocks: list[Block] = [
        Heading(f"{made.model} on {made.data}, {n} {made.split} images"),
        Table(header=(made.scheme, made.format), rows=tuple(rows)),
        *(Note(text, "warning") for text in made.warnings),
    ]
    click.echo(show([*blocks, *_times(made)]), nl=False)


def _times(made: "Exported") -> "list[Block]":
    from qwd.report.render.blocks import Note, Table
    from qwd.report.render.numbers import digits

    measured = made.benchmark
    if measured is None:
        return []
    rows = [
        (
            "-" if latency.batch_size is None else str(latency.batch_size),
            timed.name,
            digits(1e3 * timed.seconds.median),
            f"{digits(1e3 * timed.seconds.low)} to {digits(1e3 * timed.seconds.high)}",
            f"{timed.ratio.median:.2f}x",
            f"{timed.ratio.low:.2f} to {timed.ratio.high:.2f}",
        )
        for latency in measured.latencies
        for timed in latency.timed
    ]
    header = ("batch", "what runs", "median, ms", "quartiles", "ratio", "its quartiles")
    said = (
        f"{measured.repetitions} interleaved repetitions, threads: {measured.threads}. "
        "The ratio is to the time of the file in the same repetition."
    )
    return [
        Table(header=header, rows=tuple(rows), keys=2),
        Note(f"{said} {measured.note}".strip()),
    ]
