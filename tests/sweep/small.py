"""Sweeps that take seconds: an MLP on digits, one epoch, cells computed in this process."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from qwd.sweep import Given, Outcome, Task, begin, cells_of, read
from qwd.sweep.executor import Unit
from qwd.sweep.layout import cell_folder, claim_folder
from qwd.sweep.session import Sweep, Watcher, sweep
from qwd.sweep.work import compute

SMALL: dict[str, Any] = {
    "model": "mlp",
    "epochs": 1,
    "batch_size": 128,
    "scheme": ["affine-tensor"],
    "wd": [0.0, 1e-2],
    "seeds": 2,
}
CELLS = ["wd0-s0", "wd0.01-s0", "wd0-s1", "wd0.01-s1"]
"""its cells in order"""


class Here:
    """One cell after another, where the tests are; what is under test is not the executor."""

    summary = "in this process"
    tolerance = 0.0

    def __init__(self) -> None:
        self.computed: list[str] = []

    def jobs(self, tasks: Sequence[Task], asked: int | None) -> int:
        return 1

    def units(self, tasks: Sequence[Task], asked: int | None) -> list[Unit]:
        return [(task,) for task in tasks]

    def run(self, tasks: Sequence[Task], asked: int | None = None) -> Iterator[Outcome]:
        for task in tasks:
            self.computed.append(task.cell)
            yield compute(task)


class Heard(Watcher):
    """Keeps what a watcher hears."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.outcomes: list[Outcome] = []

    def ended(self, outcome: Outcome, done: int, of: int, seconds_left: float | None) -> None:
        self.outcomes.append(outcome)

    def note(self, text: str) -> None:
        self.notes.append(text)


def resumed(folder: Path, **settings: Any) -> tuple[Sweep, Heard]:
    """The sweep in a folder, gone on with, and what was heard of it."""
    heard = Heard()
    return sweep(settings, out=folder, resume=True, watcher=heard), heard


def asked(**settings: Any) -> Given:
    """`SMALL` with other settings; None leaves one out."""
    wanted = {**SMALL, **settings}
    return read({}, {}, {name: value for name, value in wanted.items() if value is not None})


def tasks(sweep: Path, **settings: Any) -> list[Task]:
    """The cells of the sweep that is `asked` for, in the folder ``sweep``, to be computed."""
    design = begin(asked(**settings))
    return [
        Task(
            cell=cell.id,
            folder=cell_folder(sweep, cell.id),
            claim=claim_folder(sweep, cell.id),
            config=cell.config,
            reporting=design.reporting,
        )
        for cell in cells_of(design)
    ]


def weights(cell: Path) -> dict[str, torch.Tensor]:
    """The trained weights of a cell."""
    return load_file(cell / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are bitwise the same."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
