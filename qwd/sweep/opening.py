"""Which sweep it is: a new folder, or one to go on with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from qwd.errors import UsageError
from qwd.sweep.cells import Cell, cells_of
from qwd.sweep.design import Design
from qwd.sweep.executor import Task
from qwd.sweep.extending import extended
from qwd.sweep.found import Found, find
from qwd.sweep.layout import SWEEPS, cell_folder, claim_folder, is_sweep, safe
from qwd.sweep.reading import Given, begin, read_design


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A sweep that is about to be computed; nothing is written yet."""

    folder: Path
    design: Design
    stored: Design | None
    """what the folder holds already"""
    cells: tuple[Cell, ...]


def open_sweep(
    given: Given,
    out: str | Path | None,
    resume: bool,
    note: Callable[[str], None] = lambda text: None,
) -> Opened:
    """The sweep that is asked for, its cells checked as far as their settings go.

    ``out`` is the folder (default ``sweeps/<model>-<data>``). Raises UsageError where it exists
    and is not resumed, is no sweep and is, or has other settings, and for schemes and backends
    that nothing can run. ``note`` hears what a user should know.
    """
    folder = Path(out) if out is not None else default_folder(begin(given))
    stored = None
    if resume:
        if not is_sweep(folder):
            raise UsageError(
                f"--resume: {folder} is no sweep folder; leave --resume out to start it"
            )
        stored = read_design(folder)
        design = extended(stored, given, folder)
    else:
        refuse_existing(folder)
        design = begin(given)
    cells = cells_of(design)
    if design != stored:
        from qwd.report.asked import asked_schemes  # imports torch, which a list of cells need not

        reporting = design.reporting
        asked_schemes(reporting.scheme, reporting.backend, reporting.bits)
    if design.placebo and (not design.arms or design != stored):
        from qwd.sweep.placebo import with_arms

        design, notes = with_arms(design)
        cells = cells_of(design)
        for text in notes:
            note(text)
    return Opened(folder=folder, design=design, stored=stored, cells=cells)


def refuse_existing(folder: Path) -> None:
    """UsageError where a new sweep would come on top of something."""
    if not folder.exists():
        return
    # A lock alone is what a sweep leaves that was refused later.
    if not folder.is_dir() or any(path.name != ".lock" for path in folder.iterdir()):
        raise UsageError(
            f"{folder} exists: continue it with --resume, or choose another --name or --out"
        )


def default_folder(design: Design) -> Path:
    """``sweeps/<model>-<data>``, with ``-qat`` where it is that."""
    one = replace(design, axes={n: v[:1] for n, v in design.axes.items()}, seeds=design.seeds[:1])
    first = cells_of(one)[0].config
    model = "models" if "model" in design.axes else first.model
    data = "images" if first.data.startswith("imagefolder:") else first.data
    return SWEEPS / safe("-".join([model, data, *(["qat"] if first.qat else [])]))


def found_of(opened: Opened) -> dict[str, Found]:
    """What there is of every cell."""
    return {c.id: find(cell_folder(opened.folder, c.id), c.config) for c in opened.cells}


def tasks_of(opened: Opened, left: tuple[Cell, ...], anew: tuple[str, ...] = ()) -> list[Task]:
    """What an executor is handed; the cells in ``anew`` from the start."""
    return [
        Task(
            cell=cell.id,
            folder=cell_folder(opened.folder, cell.id),
            claim=claim_folder(opened.folder, cell.id),
            config=cell.config,
            reporting=opened.design.reporting,
            anew=cell.id in anew,
        )
        for cell in left
    ]
