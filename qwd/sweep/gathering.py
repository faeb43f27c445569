"""From the cells of a sweep to its reports."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from qwd.errors import UsageError
from qwd.files import write_text
from qwd.registry import RENDERERS
from qwd.report.comparison import compare_models
from qwd.report.figures import ModelReport, Report
from qwd.report.verdict import verdict
from qwd.report.verdict.figures import Verdict
from qwd.sweep.cells import Cell
from qwd.sweep.certifying import with_certificates
from qwd.sweep.design import Design
from qwd.sweep.layout import PLACEBO, REPORT
from qwd.sweep.placebo import placebo_report


def gathered(
    design: Design, cells: Sequence[Cell], models: Mapping[str, ModelReport], folder: Path
) -> tuple[Report | None, Report | None, tuple[str, ...]]:
    """Write and return the report of the grid, that of the placebo's arms, and what was not had.

    Either is None, and not written, where no cell of it is finished.
    """
    notes: list[str] = []
    grid = [models[cell.id] for cell in cells if cell.role is None and cell.id in models]
    report, found = None, None
    if grid:
        found = judged(grid, design, notes)
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
    models: Sequence[ModelReport], design: Design, notes: list[str] | None = None
) -> Verdict | None:
    """The verdict on the grid; None, with a note, where there is nothing to compare."""
    try:
        return verdict(models, reference=design.reference_wd)
    except UsageError as error:
        if notes is not None:
            notes.append(f"no verdict: {error}")
        return None
