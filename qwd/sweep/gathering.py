"""From the cells of a sweep to its reports."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from qwd.config import DECAY_SETTINGS
from qwd.errors import UsageError
from qwd.files import write_text
from qwd.registry import RENDERERS
from qwd.report.comparison import compare_models
from qwd.report.figures import ModelReport, Report
from qwd.report.verdict import verdict
from qwd.report.verdict.figures import Verdict
from qwd.report.verdict.margins import PRIMARY
from qwd.sweep.cells import Cell
from qwd.sweep.certifying import with_certificates
from qwd.sweep.design import Design
from qwd.sweep.layout import PLACEBO, REPORT
from qwd.sweep.placebo import placebo_report


def gathered(
    design: Design,
    cells: Sequence[Cell],
    models: Mapping[str, ModelReport],
    diverged: Collection[str],
    folder: Path,
) -> tuple[Report | None, Report | None, tuple[str, ...]]:
    """Write and return the report of the grid, that of the placebo's arms, and what was not had.

    Either is None, and not written, where no cell of it is finished.
    """
    notes: list[str] = []
    of_grid = [cell.id for cell in cells if cell.role is None]
    grid = [models[name] for name in of_grid if name in models]
    report, found = None, None
    if grid:
        found = judged(grid, design, [name for name in of_grid if name in diverged], notes)
        report = Report(
            models=tuple(grid),
            comparison=compare_models(grid),
            verdict=found and with_certificates(found, grid, design, folder),
        )
        write_text(folder / REPORT, RENDERERS.get("json")(report))
    placebo = placebo_report(design, cells, models, found and found.family_size)
    if placebo:
        write_text(folder / PLACEBO, RENDERERS.get("json")(placebo))
    return report, placebo, tuple(notes)


def judged(
    models: Sequence[ModelReport],
    design: Design,
    diverged: Sequence[str],
    notes: list[str],
) -> Verdict | None:
    """The verdict on the grid; None, with one more note, where there is nothing to compare."""
    try:
        return verdict(
            models, design.reference_wd, family_size=planned_tests(design), diverged=diverged
        )
    except UsageError as error:
        notes.append(f"no verdict: {error}")
        return None


def planned_tests(design: Design) -> int:
    """m: the primary figures of every decay against the reference, whatever comes of them."""
    sizes = {name: len(values) for name, values in design.axes.items()}
    decays = math.prod(n for name, n in sizes.items() if name in DECAY_SETTINGS)
    combinations = math.prod(sizes.values())
    return len(PRIMARY) * (combinations - combinations // decays)
