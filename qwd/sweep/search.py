"""A search from what is asked for to its best trial: learning rate, decay and momentum."""

import contextlib
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwd import config, parsing
from qwd.errors import DivergedError, InputError, QwdError, StorageError
from qwd.files import sole_user, write_text
from qwd.registry import RENDERERS
from qwd.report.figures import Report
from qwd.report.load import parse, read_as
from qwd.setting import checked, option_name, plain
from qwd.sweep.axes import exact
from qwd.sweep.cells import Cell
from qwd.sweep.claims import is_busy
from qwd.sweep.executor import cores
from qwd.sweep.layout import REPORT, cell_folder, claim_folder
from qwd.sweep.search_folder import SearchFolder, open_search
from qwd.sweep.search_processes import Event, side_by_side
from qwd.sweep.search_space import MOST, Asked, Space, read_space
from qwd.sweep.session import BY_CODE

if TYPE_CHECKING:
    from qwd.sweep.search_study import SharedStudy, Trial

TRIALS = 40


class SearchWatcher:
    """Hears of a search's progress; override what is of interest."""

    def begins(
        self, folder: Path, space: Space, storage: str, trials: int, left: int, jobs: int
    ) -> None:
        """Before the first trial; ``jobs`` are trained at once, ``storage`` is for a dashboard."""

    def ended(self, trial: "Trial", done: int, of: int, seconds_left: float) -> None:
        """After each trial of this process; ``done`` of all, those of other processes included."""

    def note(self, text: str) -> None:
        """What a user should know."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search on disk, and what has come of it."""

    path: Path
    space: Space
    trials: "tuple[Trial, ...]"
    """that count: failed ones do not"""
    left: int
    """trials that were asked for and that nobody trains"""
    failed: tuple[Event, ...]
    report: Report | None
    """of the best trial on the test split, once all have ended and where it was trained here"""

    @property
    def best(self) -> "Trial | None":
        """The best int8 accuracy on the validation split, the first of several; None: no trial."""
        known = [trial for trial in self.trials if trial.int8_accuracy is not None]
        return max(known, key=lambda t: (t.int8_accuracy, -t.number), default=None)

    @property
    def running(self) -> int:
        """Trials that other processes train."""
        return sum(trial.running for trial in self.trials)

    @property
    def command(self) -> str | None:
        """What trains the best trial again, to the same weights; None where there is none."""
        return self.best and command_of(self.space, self.best.values)

    def check(self) -> None:
        """Raise the first error that ended a process, and DivergedError where all diverged."""
        if self.failed:
            first = self.failed[0]
            where = "" if first.in_trial is None else f"trial t{first.in_trial} failed: "
            raise BY_CODE.get(first.exit_code, QwdError)(f"{where}{first.failed}; --resume goes on")
        if self.trials and all(trial.diverged is not None for trial in self.trials):
            first = self.trials[0]
            raise DivergedError(f"every trial diverged, the first {first.id}: {first.diverged}")


def search(
    given: Mapping[str, Any],
    *,
    trials: int = TRIALS,
    out: str | Path | None = None,
    resume: bool = False,
    storage: str | None = None,
    jobs: int | None = None,
    watcher: SearchWatcher | None = None,
) -> Search:
    """Train ``trials`` draws of learning rate, decay and momentum, and find the best in int8.

    ``given`` holds settings as a file does, those of `qwd.TrainConfig`, ``sampler`` (``random`` or
    ``tpe``) and ``calibration_n``. ``lr``, ``wd`` and ``momentum`` are a value, or a range to draw
    from, ``"1e-4..1e-1"``; left out they are 10^U(-5, -1), 10^U(-7, -1) and 1 - 10^U(-3, -1). The
    objective is the int8 accuracy on the validation split; the test split is read for the best
    trial alone, once all have ended. A trial that diverges is a result.

    ``out`` is the folder (default ``sweeps/<model>-<data>-search``); one that exists is refused
    unless ``resume``, which completes what was begun, up to ``trials`` in all. ``storage`` is the
    URL of a database in which other machines share the Optuna study, called as the folder is.

    Raises UsageError, InputError and StorageError before anything is trained.
    """
    asked = given if isinstance(given, Asked) else read_space({}, {}, given)
    trials = checked("--search", parsing.integer(least=1, most=MOST), trials)
    watcher = watcher or SearchWatcher()
    from qwd.sweep import search_study  # an extra that is missing is said before the work begins

    folder = open_search(asked, out, resume, storage)
    url = folder.storage(storage)
    if not resume:
        _check(folder.space)
        if not folder.shared:
            folder.write()
    study = folder.study(url, trials)
    if folder.shared and not resume:
        folder.write()
    left = study.left()
    threads = folder.space.config(folder.space.lowest).threads or 1
    at_once = max(1, min(jobs or cores() // threads, left))
    shown = search_study.shown(url)
    watcher.begins(folder.path, folder.space, shown, trials, left, at_once)
    failed = _run(folder, study, url, left and at_once, threads, watcher)
    return _finished(folder, study, failed, watcher)


def _check(space: Space) -> None:
    """Make the trainings at both ends of the ranges, which raises what speaks against them."""
    from qwd.sweep.trials import Trials

    ends = (space.lowest, {name: found.high for name, found in space.drawn.items()})
    trials = Trials()
    for values in ends:
        trials.check([Cell(id="t0", values=values, config=space.config(values))])


def _run(
    folder: SearchFolder,
    study: "SharedStudy",
    storage: str,
    processes: int,
    threads: int,
    watcher: SearchWatcher,
) -> tuple[Event, ...]:
    failed: list[Event] = []
    began, ended = time.monotonic(), 0
    events = side_by_side(folder.path, storage, study.trials, processes, threads)
    with contextlib.closing(events):
        for event in events:
            if event.failed is not None:
                failed.append(event)
            if event.ended is None:
                continue
            ended += 1
            if not event.kept:
                watcher.note(f"t{event.ended} had been given up by others: it does not count")
                continue
            found = {trial.number: trial for trial in study.all()}
            done = sum(trial.ended for trial in found.values())
            left = (time.monotonic() - began) / ended * max(study.trials - done, 0)
            watcher.ended(found[event.ended], done, study.trials, left)
    return tuple(failed)


def _finished(
    folder: SearchFolder,
    study: "SharedStudy",
    failed: Sequence[Event],
    watcher: SearchWatcher,
) -> Search:
    made = Search(
        path=folder.path,
        space=folder.space,
        trials=study.all(),
        left=study.left(),
        failed=tuple(failed),
        report=None,
    )
    unfinished = made.left or made.running or failed
    if made.best is None or unfinished:
        return made
    if not made.best.mine:
        watcher.note(
            f"the best trial, {made.best.id}, was trained in another folder, which reports it on "
            "the test split"
        )
        return made
    try:
        with sole_user(claim_folder(folder.path, "report")):
            return _reported(made)
    except StorageError as error:
        if not is_busy(error):
            raise
        watcher.note("another process reports the best trial on the test split")
        return made


def _reported(made: Search) -> Search:
    """With the report of the best trial, which is the one look at the test split."""
    from qwd.report.entry import report

    assert made.best is not None
    path = made.path / REPORT
    with contextlib.suppress(OSError, InputError, KeyError, TypeError, ValueError, AttributeError):
        stored: Report = read_as(Report, parse(path.read_bytes()))
        if stored.models[0].name == made.best.id:
            return replace(made, report=stored)
    run = cell_folder(made.path, made.best.id)
    device = made.space.config(made.best.values).device
    found = report([run], calibration_n=made.space.calibration_n, device=device)
    content = RENDERERS.get("json")(found)
    write_text(run / REPORT, content)
    write_text(path, content)
    return replace(made, report=found)


def command_of(space: Space, values: Mapping[str, float]) -> str:
    """The `qwd train` of one trial, as a shell takes it; its weights are those of the trial."""
    words = ["qwd", "train"]
    given = {**space.settings, **values}
    for field in config.fields():
        if field.name not in given and field.name not in ("seed", "threads"):
            continue
        name, value = option_name(field.name), given.get(field.name)
        if field.name == "seed":
            value = space.seed
        if field.name == "threads":
            value = value or 1
        if isinstance(value, bool):
            words.append(name if value else f"--no-{name[2:]}")
        elif field.metadata["repeatable"]:
            words += [word for one in given[field.name] for word in (name, one)]
        elif value is not None:
            words += [name, exact(value) if isinstance(value, float) else plain(value)]
    return shlex.join(words)
