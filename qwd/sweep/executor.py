"""What trains cells: the interface of executors, and the choice among them.

An executor is registered in `qwd.registry.EXECUTORS` (entry-point group ``qwd.executors``) and
gets the contract tests of ``tests/sweep/test_executors.py``.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from qwd import layers
from qwd.config import TrainConfig
from qwd.registry import EXECUTORS
from qwd.sweep.design import Reporting

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A cell to be trained and reported."""

    cell: str
    folder: Path
    """its run folder"""
    claim: Path
    """held by whoever computes it, see `qwd.files.sole_user`"""
    config: TrainConfig
    reporting: Reporting
    anew: bool = False
    """whether what is there is thrown away first"""

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "cell": self.cell,
            "folder": str(self.folder),
            "claim": str(self.claim),
            "config": self.config.to_dict(),
            "reporting": asdict(self.reporting),
            "anew": self.anew,
        }

    @classmethod
    def of_dict(cls, content: dict[str, Any]) -> "Task":
        """Back from `to_dict`."""
        reporting: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content["reporting"].items()
        }
        return cls(
            cell=content["cell"],
            folder=Path(content["folder"]),
            claim=Path(content["claim"]),
            config=layers.from_layers({}, {}, content["config"]),
            reporting=Reporting(**reporting),
            anew=content["anew"],
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a task."""

    cell: str
    status: Literal["done", "diverged", "failed", "busy"]
    """``busy``: another process computes the cell"""
    error: str | None = None
    exit_code: int = 0
    """of the error"""
    float_accuracy: float | None = None
    int8_accuracy: float | None = None
    notes: tuple[str, ...] = ()
    """what was unreadable and has been computed again"""


Unit = Sequence[Task]
"""tasks that one process is given at once"""
Note = Callable[[str], None]


def unheard(text: str) -> None:
    """Where nobody listens."""


class Executor(Protocol):
    """Trains and reports cells; see `qwd.sweep.work` for what becomes of one."""

    summary: str
    """a line for `qwd list executors`"""
    tolerance: float
    """how far weights may be from those of `qwd.train.train` after a short training, relative to
    the largest weight of their tensor; 0 is bitwise. With ``amp``, where that is not 0: no further
    than twice as far as bfloat16 takes them from float32"""
    why: str | None
    """why it was chosen, a line; None where it was asked for"""
    note: Note
    """hears what a user should know; whoever runs the executor sets it"""

    def jobs(self, tasks: Sequence[Task], asked: int | None) -> int:
        """How many processes there are, where ``asked`` are wished for."""
        ...

    def units(self, tasks: Sequence[Task], asked: int | None) -> list[Unit]:
        """What each process is given at once: a task, or several for one program."""
        ...

    def run(self, tasks: Sequence[Task], asked: int | None = None) -> Iterator[Outcome]:
        """Compute the tasks, each once, and yield outcomes as they come, in any order.

        One that fails does not stop the others. Closing the iterator stops all work at once; what
        is half done can be resumed.
        """
        ...


def executor_called(name: str, tasks: Sequence[Task]) -> tuple[str, Executor]:
    """The executor of that name, or of ``auto`` the one for these tasks, with its name.

    Of ``auto`` a few steps are measured, see `qwd.sweep.calibration`; its ``why`` is the reason.
    """
    if name != AUTO or not tasks:
        name = "processes" if name == AUTO else name
        return name, EXECUTORS.get(name)()
    from qwd.sweep.calibration import choose

    choice = choose(tasks)
    choice.executor.why = choice.why
    return choice.name, choice.executor


def listen(executor: Executor, note: Note) -> None:
    """Let ``note`` hear why an executor was chosen, and whatever it has to say later."""
    executor.note = note
    if why := getattr(executor, "why", None):
        note(why)


def manner(executor: Executor, tasks: Sequence[Task], asked: int | None) -> str:
    """How the tasks are computed: ``2 at once``, ``16 cells in 2 programs, 2 at once``."""
    units = executor.units(tasks, asked)
    jobs = min(executor.jobs(tasks, asked), len(units))
    at_once = f"{jobs} at once" if jobs > 1 else "one after another"
    programs = [len(unit) for unit in units if len(unit) > 1]
    if not programs:
        return at_once
    alone = len(tasks) - sum(programs)
    rest = f", {alone} alone" if alone else ""
    plural = "s" if len(programs) > 1 else ""
    order = f", {at_once}" if len(units) > 1 else ""
    return f"{sum(programs)} cells in {len(programs)} program{plural}{rest}{order}"


def at_work(executor: Executor, tasks: Sequence[Task], asked: int | None) -> int:
    """How many of the tasks are computed at the same time in the beginning."""
    jobs = executor.jobs(tasks, asked)
    return sum(len(unit) for unit in executor.units(tasks, asked)[:jobs])


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
