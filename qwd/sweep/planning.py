"""What a sweep would do, and how long it would take: nothing is trained or written."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qwd.sweep.cells import Cell
from qwd.sweep.executor import AUTO, executor_called
from qwd.sweep.found import Found
from qwd.sweep.opening import Opened, found_of, tasks_of
from qwd.sweep.trials import Estimate, Trials


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cells of a sweep before it is run."""

    folder: Path
    cells: tuple[Cell, ...]
    found: Mapping[str, Found]
    """what there is of each cell already"""
    doses: Mapping[str, float | None]
    """of each cell; None where its form has none"""
    left: tuple[Cell, ...]
    """cells to be computed"""
    executor: str
    jobs: int
    why: str | None
    """why this executor was chosen; None where it was asked for"""
    warning: str | None
    """that these decays cannot differ visibly"""
    estimate: Estimate | None
    """None where nothing is left to do"""

    @property
    def seconds(self) -> float:
        """Of all that is left, with ``jobs`` cells at once that do not slow each other down.

        What one program saves is left out.
        """
        return self.estimate.seconds / self.jobs if self.estimate else 0.0


def planned(opened: Opened, executor: str = AUTO, jobs: int | None = None) -> Plan:
    """Check every kind of cell and measure some of its steps; raises as `qwd.sweep` does."""
    folder, cells = opened.folder, opened.cells
    found = found_of(opened)
    left = tuple(cell for cell in cells if not found[cell.id].ended)
    trials = Trials()
    trials.check(left)
    tasks = tasks_of(opened, left)
    name, chosen = executor_called(executor, tasks)
    return Plan(
        folder=folder,
        cells=cells,
        found=found,
        doses=trials.doses(cells),
        left=left,
        executor=name,
        jobs=chosen.jobs(tasks, jobs),
        why=getattr(chosen, "why", None),
        warning=trials.warning(cells),
        estimate=trials.estimate(left) if left else None,
    )
