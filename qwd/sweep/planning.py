"""What a sweep would do, and how long it would take: nothing is trained or written."""

import heapq
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwd.sweep.cells import Cell
from qwd.sweep.executor import AUTO, Executor, Task, Unit, executor_called, manner
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
    manner: str
    """how the cells are computed"""
    why: str | None
    """why this executor was chosen; None where it was asked for"""
    warning: str | None
    """that these decays cannot differ visibly"""
    estimate: Estimate | None
    """None where nothing is left to do"""
    seconds: float
    """of all that is left, by processes that do not slow each other down"""


def planned(opened: Opened, executor: str = AUTO, jobs: int | None = None) -> Plan:
    """Check every kind of cell and measure some of its steps; raises as `qwd.sweep` does."""
    folder, cells = opened.folder, opened.cells
    found = found_of(opened)
    left = tuple(cell for cell in cells if not found[cell.id].ended)
    trials = Trials()
    trials.check(left)
    tasks = tasks_of(opened, left)
    name, chosen = executor_called(executor, tasks)
    estimate = trials.estimate(left) if left else None
    return Plan(
        folder=folder,
        cells=cells,
        found=found,
        doses=trials.doses(cells),
        left=left,
        executor=name,
        manner=manner(chosen, tasks, jobs),
        why=getattr(chosen, "why", None),
        warning=trials.warning(cells),
        estimate=estimate,
        seconds=seconds(chosen, tasks, jobs, estimate) if estimate else 0.0,
    )


def seconds(
    executor: Executor, tasks: Sequence[Task], jobs: int | None, estimate: Estimate
) -> float:
    """How long the executor takes, each unit being given to the process that is free first."""
    known: dict[Hashable, float] = dict(getattr(executor, "factors", {}))
    free = [0.0] * executor.jobs(tasks, jobs)
    for unit in executor.units(tasks, jobs):
        factor = _factor(unit, known) if len(unit) > 1 else 1.0
        alone = [estimate.cells[task.cell] for task in unit]
        taken = sum(factor * steps + rest for steps, rest in alone)
        heapq.heapreplace(free, free[0] + taken)
    return max(free)


def _factor(unit: Unit, known: dict[Hashable, float]) -> float:
    """Time of a step in one program, of its time alone; measured where that is not ``known``."""
    from qwd.sweep.calibration import factor
    from qwd.train.fused.fitting import kind

    of = kind(unit[0].config)
    if of not in known:
        known[of] = factor(unit)
    return known[of]
