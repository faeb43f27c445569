"""Every tensor of a report as a table for other programs."""

import csv
import dataclasses
import io
from collections.abc import Iterator
from typing import Any

from qwd.quantize.figures import WeightFigures
from qwd.report.figures import Report
from qwd.report.printable import printable

FIGURES = [f.name for f in dataclasses.fields(WeightFigures) if f.name != "outliers"]


def render(report: Report) -> str:
    """The weight tensors as CSV, a row for each as raw, folded and deployed.

    Figures are in full precision, those that do not exist empty; a column for every outlier rule;
    a shape as ``64x3x3x3``, the sources of a deployed kernel joined by `` + ``.
    """
    rows = list(_rows(report.to_dict()))
    rules = dict.fromkeys(rule for _, figures in rows for rule in figures["outliers"])
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    names = ["model", "wd", "seed", "tensor", "variant", "sources"]
    writer.writerow([*names, *FIGURES, *map(printable, rules)])
    for labels, figures in rows:
        shape = "x".join(map(str, figures["shape"]))
        values = [shape if name == "shape" else figures[name] for name in FIGURES]
        outliers = [figures["outliers"].get(rule) for rule in rules]
        writer.writerow(
            printable(cell) if isinstance(cell, str) else cell
            for cell in (*labels, *values, *outliers)
        )
    return page.getvalue()


def _rows(report: dict[str, Any]) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    for model in report["models"]:
        wd = model["config"].get("wd") if model["config"] else None
        label = [model["name"], wd, model["seed"]]
        for tensor in model["tensors"]:
            yield [*label, tensor["name"], "raw", None], tensor
            if tensor["folded"]:
                yield [*label, tensor["name"], "folded", None], tensor["folded"]
        for kernel in model["deployed"]:
            yield [*label, kernel["name"], "deployed", " + ".join(kernel["sources"])], kernel
