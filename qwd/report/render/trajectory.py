"""A training run's checkpoints: how the weights move, in total and tensor by tensor."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from qwd.report.figures import ModelReport, Series, Summary
from qwd.report.metrics import unit
from qwd.report.render import numbers
from qwd.report.render.blocks import Block, Heading, Note, Table
from qwd.report.render.by_tensor import tensor_table

T = TypeVar("T")

COLUMNS = {
    "range": "range, raw",
    "folded_range": "folded",
    "range_over_std": "range/std, raw",
    "folded_range_over_std": "folded",
    "sqnr_db": "SQNR, raw",
    "folded_sqnr_db": "folded",
    "float_accuracy": "float accuracy",
    "int8_accuracy": "int8 accuracy",
}
"""Figures of a checkpoint; a folded one stands beside its raw one."""
STEPS = 20
"""checkpoints in the table of means"""
STEPS_BY_TENSOR = 5


def trajectory(
    series: Series, models: Mapping[str, ModelReport], top: int | None
) -> Iterator[Block]:
    """Means over the weights, a row per step; then the tensors that move most."""
    yield Heading(f"Trajectory of {series.name}")
    figures = [models[name].summary for name in series.models]
    shown = [f for f in COLUMNS if any(_says(s, f) for s in figures)]
    rows = [
        (str(step), *(numbers.figure(getattr(summary, f), unit(f)) for f in shown))
        for step, summary in zip(series.steps, figures, strict=True)
    ]
    yield Note("means over the weights, by parameters")
    yield Table(header=("step", *(COLUMNS[f] for f in shown)), rows=tuple(spaced(rows, STEPS)))
    if len(rows) > STEPS:
        yield Note(f"{STEPS} of {len(rows)} checkpoints are shown; --csv and --json have all.")
    every = list(zip(series.steps, series.models, strict=True))
    columns = spaced(every, STEPS_BY_TENSOR)
    titles = [f"step {step}" for step, _ in columns]
    yield from tensor_table([models[name] for _, name in columns], titles, top)


def _says(summary: Summary, figure: str) -> bool:
    """Whether a figure is there, and not the raw one again, as where nothing is folded."""
    value = getattr(summary, figure)
    raw = figure.removeprefix("folded_")
    return value is not None and (raw == figure or value != getattr(summary, raw))


def spaced(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
