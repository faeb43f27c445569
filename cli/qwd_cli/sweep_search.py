"""`qwd sweep --search`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwd import parsing
from qwd.errors import UsageError
from qwd.setting import checked, short
from qwd_cli.options import settings_in

if TYPE_CHECKING:
    from qwd.report.figures import ModelReport
    from qwd.report.render.blocks import Block
    from qwd.sweep.search import Search
    from qwd.sweep.search_space import Space
    from qwd.sweep.search_study import Trial

SHOWN = 10
"""best trials in the table"""


def refuse_grid_options(options: dict[str, Any]) -> None:
    """UsageError where an option is given that a search has no use for."""
    for option, value in options.items():
        if value:
            shown = "" if value is True else f" {value[0] if isinstance(value, tuple) else value}"
            raise UsageError(f"{option}{shown}: belongs to a grid, not to --search")


def refuse_search_options(options: dict[str, Any]) -> None:
    """UsageError where an option is given that means something with --search alone."""
    for option, value in options.items():
        if value is not None:
            instead = "; a grid has --seeds" if option == "--seed" else ""
            raise UsageError(f"{option} {value!r}: belongs to --search{instead}")


def run_search(
    trials: str,
    storage: str | None,
    *,
    folder: Path | None,
    resume: bool,
    dry_run: bool,
    jobs: str | None,
    config_file: str | None,
    print_config: bool,
    options: dict[str, Any],
) -> None:
    """Read what is asked for, search, and print the best trials and how to train the best."""
    from qwd.sweep.search_space import MOST, begin, read_space

    n = checked("--search", parsing.integer(least=1, most=MOST), trials)
    read_jobs = checked("--jobs", parsing.optional(parsing.integer(least=1, most=4096)), jobs)
    file = settings_in(config_file)
    asked = read_space(options, os.environ, file)
    if print_config:
        import yaml

        found = begin(asked).to_dict()
        click.echo(yaml.safe_dump(found, sort_keys=False, default_flow_style=None), nl=False)
        return

    from qwd.sweep.search import search
    from qwd.sweep.search_folder import open_search

    if dry_run:
        opened = open_search(asked, folder, resume, storage)
        _show_plan(opened.path, opened.space, n, read_jobs)
        return
    done = search(
        asked,
        trials=n,
        out=folder,
        resume=resume,
        storage=storage,
        jobs=read_jobs,
        watcher=_progress(),
    )
    _show(done)
    done.check()


def _progress() -> Any:
    from qwd.report.render import numbers
    from qwd.sweep.search import SearchWatcher
    from qwd_cli.sweep_progress import duration

    class Progress(SearchWatcher):
        """Writes progress to stderr."""

        def begins(
            self, folder: Path, space: "Space", storage: str, trials: int, left: int, jobs: int
        ) -> None:
            self._figure = _figure(space)
            done = f", {trials - left} of them ended or begun elsewhere" if left < trials else ""
            at_once = f"; {jobs} at once" if left else ""
            click.echo(f"{folder}: {trials} trials{done}{at_once}; study in {storage}", err=True)

        def ended(self, trial: "Trial", done: int, of: int, seconds_left: float) -> None:
            if trial.diverged is None:
                what = f"{self._figure} {numbers.percent(trial.int8_accuracy)} in validation"
            else:
                what = f"diverged: {trial.diverged}"
            left = f"; about {duration(seconds_left)} left" if done < of else ""
            click.echo(f"[{done}/{of}] {trial.id}: {_values(trial)}: {what}{left}", err=True)

        def note(self, text: str) -> None:
            click.echo(f"qwd: note: {text}", err=True)

    return Progress()


def _figure(space: "Space") -> str:
    """What the accuracy of a trial is called: ``int8``, or the width that is trained for."""
    config = space.config(space.lowest)
    return f"w{config.bits} qat" if config.qat else "int8"


def _values(trial: "Trial") -> str:
    return ", ".join(f"{name} {_digits(value)}" for name, value in trial.values.items())


def _digits(value: float) -> str:
    return short(float(f"{value:.3g}"))


def _show_plan(folder: Path, space: "Space", trials: int, jobs: int | None) -> None:
    """Print what is drawn from where, the doses at both ends, and how long it takes."""
    from qwd.report.render import numbers
    from qwd.report.render.blocks import Heading, Note, Table
    from qwd.report.render.text import show
    from qwd.sweep.cells import Cell
    from qwd.sweep.executor import cores
    from qwd.sweep.trials import Trials
    from qwd_cli.sweep_progress import duration

    ends = (space.lowest, {name: found.high for name, found in space.drawn.items()})
    cells = [Cell(id="t0", values=values, config=space.config(values)) for values in ends]
    made = Trials()
    for cell in cells:
        made.check([cell])
    doses = [next(iter(made.doses([cell]).values())) for cell in cells]
    at_once = max(1, min(jobs or cores() // (cells[0].config.threads or 1), trials))
    seconds = made.estimate(cells[:1]).seconds * trials / at_once
    rows = [(name, *map(_digits, (f.low, f.high))) for name, f in space.drawn.items()]
    rows.append(("dose", *(numbers.digits(dose, 3) for dose in doses)))
    page = [
        Heading(str(folder)),
        Table(header=("drawn", "from", "to"), rows=tuple(rows)),
        Note(
            f"{trials} trials by the {space.sampler} sampler, about {duration(seconds)}: steps "
            f"measured here, {at_once} at once that do not slow each other down."
        ),
    ]
    click.echo(show(page), nl=False)


def _show(done: "Search") -> None:
    """Print the best trials, the best on the test split, and last the command that trains it."""
    from qwd.report.render import numbers
    from qwd.report.render.blocks import Heading, Note, Table
    from qwd.report.render.text import show

    ranked = sorted(
        (trial for trial in done.trials if trial.int8_accuracy is not None),
        key=lambda trial: (-(trial.int8_accuracy or 0), trial.number),
    )
    names = list(done.space.drawn)
    table = Table(
        header=("trial", *names, f"{_figure(done.space)}, validation", "float, validation"),
        rows=tuple(
            (
                trial.id,
                *(_digits(trial.values[name]) for name in names),
                numbers.percent(trial.int8_accuracy),
                numbers.percent(trial.float_accuracy),
            )
            for trial in ranked[:SHOWN]
        ),
    )
    page: list[Block] = [Heading("Best trials"), table, Note(_counts(done, len(ranked)))]
    if done.report:
        page.append(Note(_on_the_test_split(done.report.models[0])))
    if done.command:
        page.append(Note("The best trial again, to the same weights:"))
    click.echo(show(page), nl=False)
    if done.command:
        click.echo(done.command)


def _counts(done: "Search", known: int) -> str:
    diverged = sum(trial.diverged is not None for trial in done.trials)
    counts = {
        f"{known} trials": True,
        f"{diverged} more diverged": diverged,
        f"{done.running} are trained by other processes": done.running,
        f"{done.left} are left: --resume": done.left,
    }
    return "; ".join(text for text, holds in counts.items() if holds) + "."


def _on_the_test_split(model: "ModelReport") -> str:
    from qwd.report.render import numbers

    found = [
        f"{name} {numbers.percent(scheme.accuracy)}"
        for name, scheme in model.schemes.items()
        if scheme.qat or name == "ao-static"
    ]
    return (
        f"{model.name} on the test split, which is read for this trial alone: float "
        f"{', '.join([numbers.percent(model.float_accuracy), *found])}."
    )
