"""Every tensor of a report as a table for other programs."""

import csv
import dataclasses
import io
from collections.abc import Iterator
from typing import Any

from qwd.printable import printable
from qwd.quantize.figures import WeightFigures
from qwd.report.figures import Report

NESTED = ("outliers", "widths")
FIGURES = [f.name for f in dataclasses.fields(WeightFigures) if f.name not in NESTED]
CHANNELS = ["channels", "spread", "dead", "sqnr_db", "gain_db"]
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""what a formula begins with, in both widths"""
WIDTHS = ["sqnr_db", "rmse_over_scale", "codes_used"]


def render(report: Report) -> str:
    """The weight tensors as CSV, a row for each as raw, folded and deployed.

    Figures are in full precision, those that do not exist empty; a column for every outlier rule;
    a shape as ``64x3x3x3``, the sources of a deployed kernel joined by `` + ``; a name that begins
    as a formula does is quoted by ``'``. Then what the
    tensor is, figures at other widths (``w4_sqnr_db``) and of a scale per channel, and for
    checkpoints of a training their ``step``.
    """
    rows = list(_rows(report.to_dict()))
    rules = dict.fromkeys(rule for _, figures, _ in rows for rule in figures["outliers"])
    bits = dict.fromkeys(width["bits"] for _, figures, _ in rows for width in figures["widths"])
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    steps = {
        name: step
        for each in (report.comparison.series if report.comparison else ())
        for name, step in zip(each.models, each.steps, strict=True)
    }
    names = ["model", "wd", "seed", "tensor", "variant", "sources"]
    further = [f"w{width}_{name}" for width in bits for name in WIDTHS]
    further += ["kind", "norm", *(f"channel_{name}" for name in CHANNELS)]
    further += ["step"] if steps else []
    writer.writerow([*names, *FIGURES, *map(printable, rules), *further])
    for labels, figures, (kind, norm, channels) in rows:
        shape = "x".join(map(str, figures["shape"]))
        values = [shape if name == "shape" else figures[name] for name in FIGURES]
        outliers = [figures["outliers"].get(rule) for rule in rules]
        widths = {width["bits"]: width for width in figures["widths"]}
        other = [widths.get(width, {}).get(name) for width in bits for name in WIDTHS]
        other += [kind, norm, *((channels or {}).get(name) for name in CHANNELS)]
        other += [steps.get(labels[0])] if steps else []
        writer.writerow(map(_cell, (*labels, *values, *outliers, *other)))
    return page.getvalue()


def _cell(value: Any) -> Any:
    """A text on one line, and never a formula: a spreadsheet runs what begins as one."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA) else text


Row = tuple[list[Any], dict[str, Any], tuple[str | None, str | None, dict[str, Any] | None]]


def _rows(report: dict[str, Any]) -> Iterator[Row]:
    """Labels, figures, and kind, BatchNorm and channels of every row."""
    for model in report["models"]:
        wd = model["config"].get("wd") if model["config"] else None
        label = [model["name"], wd, model["seed"]]
        for tensor in model["tensors"]:
            kind, norm, name = tensor["kind"], tensor["norm"], tensor["name"]
            yield [*label, name, "raw", None], tensor, (kind, norm, tensor["channels"])
            if tensor["folded"]:
                what = kind, norm, tensor["folded_channels"]
                yield [*label, name, "folded", None], tensor["folded"], what
        for kernel in model["deployed"]:
            labels = [*label, kernel["name"], "deployed", " + ".join(kernel["sources"])]
            yield labels, kernel, (None, None, kernel["channels"])
