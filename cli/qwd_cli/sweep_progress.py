"""How a sweep looks in a terminal: a line per finished cell, then tables and the verdict."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qwd.registry import RENDERERS
from qwd.report.render import html, markdown, numbers, tables
from qwd.report.render.blocks import Block, Heading, Note, Table
from qwd.report.render.side_by_side import LABELS
from qwd.report.render.text import show
from qwd.report.verdict.figures import Verdict
from qwd.report.verdict.words import with_interval
from qwd.setting import short
from qwd.sweep.executor import Outcome, Task
from qwd.sweep.session import Sweep, Watcher
from qwd_cli.outputs import PAGES, write_outputs

if TYPE_CHECKING:
    from qwd.sweep.planning import Plan

SHOW = dict(zip(PAGES, (markdown.show, html.show), strict=True))


class SweepProgress(Watcher):
    """Writes progress to stderr."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}

    def planned(self, tasks: Sequence[Task]) -> None:
        # A quantization-aware training is shown under its own scheme.
        self._labels = {task.cell: f"w{task.config.bits} qat" for task in tasks if task.config.qat}

    def begins(self, folder: Path, cells: int, left: int, manner: str) -> None:
        done = f", {cells - left} of them finished" if left < cells else ""
        how = f"; {manner}" if left else ""
        click.echo(f"{folder}: {cells} {'cell' if cells == 1 else 'cells'}{done}{how}", err=True)

    def ended(self, outcome: Outcome, done: int, of: int, seconds_left: float | None) -> None:
        if outcome.status == "done":
            text = (
                f"float {numbers.percent(outcome.float_accuracy)}, "
                f"{self._labels.get(outcome.cell, 'int8')} "
                f"{numbers.percent(outcome.int8_accuracy)}"
            )
        else:
            text = {
                "busy": "computed by another process",
                "diverged": f"diverged: {outcome.error}",
            }.get(outcome.status, f"failed: {outcome.error}")
        left = f"; about {duration(seconds_left)} left" if done < of and seconds_left else ""
        click.echo(f"[{done}/{of}] {outcome.cell}: {text}{left}", err=True)

    def note(self, text: str) -> None:
        click.echo(f"qwd: note: {text}", err=True)


def show_plan(plan: "Plan") -> None:
    """Print the cells, their doses and how long they take."""
    rows = []
    for cell in plan.cells:
        found = plan.found[cell.id]
        state = "diverged" if found.diverged else "finished" if found.model else "to do"
        if state == "to do" and found.begun:
            state = "begun"
        dose = numbers.digits(plan.doses[cell.id], 3)
        rows.append((cell.id, numbers.decay(cell.config.coefficient), dose, cell.role or "", state))
    columns = ["cell", "wd", "dose", "arm", "state"]
    if all(not cell.role for cell in plan.cells):
        columns.remove("arm")
        rows = [(*row[:3], row[4]) for row in rows]
    blocks: list[Block] = [
        Heading(str(plan.folder)),
        Table(header=tuple(columns), words=("arm", "state"), rows=tuple(rows)),
    ]
    if plan.estimate is None:
        blocks.append(Note("Nothing is left to do."))
    if plan.warning:
        blocks.append(Note(plan.warning, "warning"))
    if plan.why:
        blocks.append(Note(plan.why))
    if plan.estimate is not None:
        steps = ", ".join(f"{m} {1000 * s:.3g} ms" for m, s in plan.estimate.steps.items())
        blocks.append(
            Note(
                f"{len(plan.left)} trainings, about {duration(plan.seconds)}: steps measured here "
                f"({steps} alone), {plan.executor}, {plan.manner}, as if none slowed another down; "
                "without reports and starting."
            )
        )
    click.echo(show(blocks), nl=False)


def show_sweep(done: Sweep, targets: Mapping[str, str]) -> None:
    """Print the page of a sweep, and write it to ``targets``, paths by renderer.

    What is data, not a page, holds the report alone.
    """
    if done.elsewhere:
        click.echo(
            f"{len(done.elsewhere)} cells are left to another process, which reports at its end: "
            f"{numbers.listed(done.elsewhere)}",
            err=True,
        )
    page = _page(done)

    def text(name: str) -> str:
        return SHOW[name](page) if name in PAGES else RENDERERS.get(name)(done.report)

    if targets and done.report is None:
        click.echo(f"qwd: note: there is no report for --{next(iter(targets))}", err=True)
        targets = {}
    if write_outputs(targets, text):
        click.echo(show(page, colour=sys.stdout.isatty()), nl=False)


def _page(done: Sweep) -> list[Block]:
    """What failed, the placebo, and the report with its verdict, which stands last."""
    page: list[Block] = []
    errors = {**done.diverged, **{o.cell: o.error or "" for o in done.failed}}
    if errors:
        kinds = [("diverged" if cell in done.diverged else "failed") for cell in errors]
        rows = zip(errors, kinds, errors.values(), strict=True)
        page += [
            Heading("Cells without a result"),
            Table(header=("cell", "", "error"), words=("", "error"), rows=tuple(rows)),
        ]
    if done.placebo and done.placebo.verdict:
        page += _placebo(done.placebo.verdict)
    if done.report:
        page += tables.blocks(done.report)
    return page


def _placebo(verdict: Verdict) -> list[Block]:
    """What the verdict says of arms that differ by chance alone."""
    from qwd.sweep.placebo import alarms

    claimed, looked_at = alarms(verdict)
    named = [
        (setting.name, change)
        for setting in verdict.settings
        for contrast in setting.contrasts
        for change in contrast.changes
        if change.primary
    ]
    rows = [
        (
            name,
            LABELS.get(change.metric, change.metric),
            change.phrase or numbers.NONE,
            with_interval(change.mean, change.low, change.high, change.unit),
        )
        for name, change in named
    ]
    return [
        Heading("Placebo"),
        Table(
            header=("arm", "figure", "verdict", "change, 95 % interval"),
            keys=2,
            words=("figure", "verdict"),
            rows=tuple(rows),
        ),
        Note(
            f"{claimed} of {looked_at} differences claimed where there is none but chance."
            if any(change.p is not None for _, change in named)
            else f"No test is claimed: fewer than {verdict.seeds_for_a_test} seeds cannot reject."
        ),
    ]


def duration(seconds: float) -> str:
    """``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{short(round(seconds / 3600, 1))} h"
