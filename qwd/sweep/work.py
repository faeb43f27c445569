"""One cell, from its settings to its report, or to what kept it from one."""

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from qwd.errors import DivergedError, InputError, QwdError, StorageError, reason
from qwd.files import sole_user, write_text
from qwd.registry import RENDERERS
from qwd.report.entry import report
from qwd.report.figures import ModelReport, Report
from qwd.sweep.claims import is_busy
from qwd.sweep.executor import Outcome, Task
from qwd.sweep.found import check_weights, find, write_divergence
from qwd.sweep.layout import DIVERGED
from qwd.train.layout import REPORT, WEIGHTS, is_run
from qwd.train.session import train

FAULT = 70
"""the exit code of what is no `QwdError`"""


def compute(task: Task) -> Outcome:
    """Train and report the cell of ``task`` where that is left to do; nothing is raised.

    Half a training is gone on with; what cannot be read is computed again, and a note says so.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(sole_user(task.claim))
        except StorageError as error:
            return _ended(task, error, "busy" if is_busy(error) else "failed")
        notes: list[str] = []
        try:
            return replace(_computed(task, notes), notes=tuple(notes))
        except DivergedError as error:
            write_divergence(task.folder, task.config, str(error))
            return replace(_ended(task, error, "diverged"), notes=tuple(notes))
        except QwdError as error:
            return replace(_ended(task, error, "failed"), notes=tuple(notes))
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            storage = StorageError(f"{error.strerror or reason(error)}{where}")
            return replace(_ended(task, storage, "failed"), notes=tuple(notes))
        except Exception as error:  # of a model or data set that anyone may have written
            what = f"{type(error).__name__}: {reason(error)}"
            return Outcome(
                cell=task.cell, status="failed", error=what, exit_code=FAULT, notes=tuple(notes)
            )


def _ended(task: Task, error: QwdError, status: str) -> Outcome:
    return Outcome(
        cell=task.cell,
        status=status,  # type: ignore[arg-type]
        error=str(error),
        exit_code=error.exit_code,
    )


def _computed(task: Task, notes: list[str]) -> Outcome:
    if task.anew:
        throw_away(task.folder)
    found = find(task.folder, task.config)
    if found.diverged is not None:  # by another process, since the task was made
        return _ended(task, DivergedError(found.diverged), "diverged")
    model = found.model
    if model is None:
        if found.problem:
            notes.append(found.problem)
        (task.folder / DIVERGED).unlink(missing_ok=True)
        model = _trained_and_reported(task, notes)
    return Outcome(
        cell=task.cell,
        status="done",
        float_accuracy=model.summary.float_accuracy,
        int8_accuracy=model.summary.int8_accuracy,
    )


def _trained_and_reported(task: Task, notes: list[str]) -> ModelReport:
    if is_run(task.folder):
        try:
            return _continued(task)
        except InputError as error:
            # Its own files, or what it is trained on?
            if str(task.folder) not in str(error):
                raise
            notes.append(str(error))
    throw_away(task.folder)
    return _continued(task)


def _continued(task: Task) -> ModelReport:
    """Train, from the last epoch that is stored, and report."""
    folder = task.folder
    try:
        check_weights(folder)
    except InputError:
        (folder / WEIGHTS).unlink()  # its checkpoint gives them again
    train(task.config, out=folder, resume=is_run(folder))
    # Reports take what threads there are; cells side by side share the cores.
    before = torch.get_num_threads()
    torch.set_num_threads(task.config.threads or 1)
    try:
        made = report(
            [folder],
            schemes=task.reporting.scheme or None,
            backends=task.reporting.backend,
            bits=task.reporting.bits,
            calibration_n=task.reporting.calibration_n,
            device=task.config.device,
        )
    finally:
        torch.set_num_threads(before)
    (model,) = made.models
    write_text(folder / REPORT, RENDERERS.get("json")(Report(models=(model,))))
    return model


def throw_away(folder: Path) -> None:
    """Remove a run folder; StorageError while someone trains in it."""
    if folder.exists():
        with sole_user(folder):  # nobody trains in it by hand
            pass
        shutil.rmtree(folder)
