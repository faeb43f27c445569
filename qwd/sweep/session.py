"""One sweep, from what is asked for to its report."""

import contextlib
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qwd.errors import (
    DivergedError,
    InputError,
    QwdError,
    StorageError,
    UsageError,
    VerificationError,
)
from qwd.files import write_text
from qwd.registry import suggestion
from qwd.report.figures import ModelReport, Report
from qwd.sweep.cells import Cell, cells_of
from qwd.sweep.claims import alone, claimed
from qwd.sweep.design import Design
from qwd.sweep.executor import AUTO, Outcome, Task, at_work, executor_called, listen, manner
from qwd.sweep.found import Found, find
from qwd.sweep.layout import SWEEP, cell_folder, claim_folder, is_sweep
from qwd.sweep.opening import Opened, found_of, open_sweep, tasks_of
from qwd.sweep.reading import Given, read, read_design

BY_CODE = {
    error.exit_code: error for error in (UsageError, InputError, StorageError, VerificationError)
}


class Watcher:
    """Hears of a sweep's progress; override what is of interest."""

    def planned(self, tasks: Sequence[Task]) -> None:
        """What is left to do."""

    def begins(self, folder: Path, cells: int, left: int, manner: str) -> None:
        """Before the first cell; ``manner`` is how they are computed."""

    def ended(self, outcome: Outcome, done: int, of: int, seconds_left: float | None) -> None:
        """After each cell, ``done`` of those that were left to do; None: not known yet."""

    def note(self, text: str) -> None:
        """What a user should know."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep on disk, and what has come of it."""

    path: Path
    design: Design
    cells: tuple[Cell, ...]
    models: Mapping[str, ModelReport]
    """by cell"""
    diverged: Mapping[str, str]
    """the errors, by cell"""
    failed: tuple[Outcome, ...]
    elsewhere: tuple[str, ...]
    """cells that another process computes, which writes the report then"""
    report: Report | None
    placebo: Report | None

    def check(self) -> None:
        """Raise DivergedError where every cell diverged, and the first error of failed ones."""
        if self.failed:
            first = self.failed[0]
            raise BY_CODE.get(first.exit_code, QwdError)(
                f"{len(self.failed)} of {len(self.cells)} cells failed, the first {first.cell}: "
                f"{first.error}; --resume tries them again"
            )
        if len(self.diverged) == len(self.cells):
            cell, error = next(iter(self.diverged.items()))
            raise DivergedError(f"every cell diverged, the first {cell}: {error}")


def sweep(
    given: Mapping[str, Any],
    *,
    out: str | Path | None = None,
    resume: bool = False,
    executor: str = AUTO,
    jobs: int | None = None,
    only: Sequence[str] = (),
    watcher: Watcher | None = None,
) -> Sweep:
    """Train and report every cell of a grid, and compare them.

    ``given`` holds settings as a file does, those of a sweep and of `qwd.TrainConfig`, with lists
    where they vary: ``{"wd": [1e-5, 1e-4], "seeds": 8, "epochs": 5}``. ``out`` is the folder
    (default ``sweeps/<model>-<data>``). A folder that exists is refused unless ``resume``, which
    computes what is missing and adds the values and seeds that are new. ``only`` names cells to
    train again, and no others. Cells that diverge are results; those that fail otherwise are in
    ``failed``, and do not stop the rest.

    Raises UsageError, InputError and StorageError before anything is trained.
    """
    given = given if isinstance(given, Given) else read({}, {}, given)
    watcher = watcher or Watcher()
    if only and not resume:
        raise UsageError(f"--cell {only[0]}: trains a cell of a sweep again, and needs --resume")
    opened = open_sweep(given, out, resume, watcher.note)
    folder, cells, found = opened.folder, opened.cells, found_of(opened)
    for each in found.values():
        if each.problem:
            watcher.note(f"{each.problem}: computed again")
    for name in only:
        if name not in found:
            raise UsageError(f"--cell {name}: unknown cell, {suggestion(name, found)}")
    left = tuple(c for c in cells if (c.id in only if only else not found[c.id].ended))
    if left:
        from qwd.sweep.trials import Trials

        trials = Trials()
        trials.check(left)
        if faint := trials.warning(cells):
            watcher.note(faint)
    _write_design(opened)
    tasks = tasks_of(opened, left, tuple(only))
    outcomes = _run(tasks, folder, len(cells), executor, jobs, watcher)
    return _finished(opened, found, outcomes, watcher)


def _write_design(opened: Opened) -> None:
    folder, stored = opened.folder, opened.stored
    if opened.design == stored:
        return
    with alone(folder):
        now = read_design(folder) if is_sweep(folder) else None
        if now != stored:
            raise StorageError(f"{folder} was changed by another process: go on with --resume")
        write_text(folder / SWEEP, opened.design.to_yaml())


def _run(
    tasks: Sequence[Task],
    folder: Path,
    cells: int,
    executor: str,
    jobs: int | None,
    watcher: Watcher,
) -> list[Outcome]:
    name, chosen = executor_called(executor, tasks)
    watcher.planned(tasks)
    watcher.begins(folder, cells, len(tasks), f"{name}, {manner(chosen, tasks, jobs)}")
    listen(chosen, watcher.note)
    if why := _uncompiled(tasks):
        watcher.note(why)
    by_cell = {task.cell: task for task in tasks}
    together = max(at_work(chosen, tasks, jobs), 1)
    outcomes: list[Outcome] = []
    started, trained = time.monotonic(), 0
    while tasks:
        with contextlib.closing(_closing(chosen.run(tasks, jobs))) as running:
            for outcome in running:
                outcomes.append(outcome)
                trained += outcome.status != "busy"
                left = None
                if trained >= together:  # before, most of the time went to others as well
                    per_cell = (time.monotonic() - started) / trained
                    left = per_cell * (len(by_cell) - len(outcomes))
                shown = _by_its_scheme(outcome, by_cell[outcome.cell])
                watcher.ended(shown, len(outcomes), len(by_cell), left)
                for text in outcome.notes:
                    watcher.note(f"{outcome.cell} was computed again: {text}")
        tasks = [by_cell[outcome.cell] for outcome in outcomes if _abandoned(outcome, by_cell)]
        again = {task.cell for task in tasks}
        outcomes = [outcome for outcome in outcomes if outcome.cell not in again]
    return outcomes


def _uncompiled(tasks: Sequence[Task]) -> str | None:
    """What a user should know where steps are to be compiled and cannot be."""
    if not any(task.config.compile for task in tasks):
        return None
    from qwd.train.compiler import obstacle_to_compiling
    from qwd.train.devices import device_called
    from qwd.train.forward import uncompiled

    devices = {device_called(task.config.device) for task in tasks if task.config.compile}
    reasons = [why for device in devices if (why := obstacle_to_compiling(device))]
    return uncompiled(reasons[0]) if reasons else None


def _abandoned(outcome: Outcome, tasks: Mapping[str, Task]) -> bool:
    """Whether a cell was in the hands of another process, which has not finished it."""
    task = tasks[outcome.cell]
    return (
        outcome.status == "busy"
        and not find(task.folder, task.config).ended
        and not claimed(task.claim)
    )


def _by_its_scheme(outcome: Outcome, task: Task) -> Outcome:
    """With the accuracy under the scheme that a quantization-aware training is for."""
    if outcome.status != "done" or not task.config.qat:
        return outcome
    model = find(task.folder, task.config).model
    trained = [found.accuracy for found in model.schemes.values() if found.qat] if model else []
    return replace(outcome, int8_accuracy=trained[0] if trained else None)


def _closing(outcomes: Iterator[Outcome]) -> Generator[Outcome, None, None]:
    """The same, to be closed even where an executor's own iterator cannot."""
    yield from outcomes


def _finished(
    opened: Opened,
    found: Mapping[str, Found],
    outcomes: Sequence[Outcome],
    watcher: Watcher,
) -> Sweep:
    """Gather what there is; with the last cell of the last process that is everything."""
    from qwd.sweep.certifying import prepare
    from qwd.sweep.gathering import gathered

    folder = opened.folder
    failed = tuple(outcome for outcome in outcomes if outcome.status == "failed")
    tried = {outcome.cell for outcome in outcomes}
    known = {n: each for n, each in found.items() if n not in tried}
    now = _looked_at(folder, opened.cells, known)
    # Networks take their time, for which nobody need wait.
    grid = [model for c in opened.cells if c.role is None and (model := now[c.id].model)]
    prepare(grid, opened.design, folder)
    with alone(folder):
        # Another process may have added cells and ended before this one.
        design = read_design(folder)
        cells = opened.cells if design == opened.design else cells_of(design)
        now = _looked_at(folder, cells, now)
        models = {name: each.model for name, each in now.items() if each.model is not None}
        unended = [n for n, each in now.items() if not each.ended and n not in _names(failed)]
        elsewhere = tuple(name for name in unended if claimed(claim_folder(folder, name)))
        diverged = {n: each.diverged for n, each in now.items() if each.diverged is not None}
        report, placebo, notes = None, None, ()
        if not elsewhere:
            report, placebo, notes = gathered(design, cells, models, diverged, folder)
    for text in notes:
        watcher.note(text)
    return Sweep(
        path=folder,
        design=design,
        cells=cells,
        models=models,
        diverged=diverged,
        failed=failed,
        elsewhere=elsewhere,
        report=report,
        placebo=placebo,
    )


def _looked_at(folder: Path, cells: Sequence[Cell], known: Mapping[str, Found]) -> dict[str, Found]:
    """What there is of every cell; those known to have ended are not read again."""
    return {
        cell.id: known[cell.id]
        if cell.id in known and known[cell.id].ended
        else find(cell_folder(folder, cell.id), cell.config)
        for cell in cells
    }


def _names(outcomes: Iterable[Outcome]) -> set[str]:
    return {outcome.cell for outcome in outcomes}
