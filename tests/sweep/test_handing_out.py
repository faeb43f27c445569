"""Which tasks a process is given again, and what of theirs is thrown away."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qwd.sweep import Outcome, Task, processes
from tests.sweep.small import tasks


@pytest.mark.parametrize("why", [None, "vmap fails", "the process dies"])
def test_cells_trained_anew_together_are_not_trained_again_and_others_are(
    why: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[Task] = []

    class Pretender:
        def __init__(self, threads: int): ...

        def train_together(self, unit: object, note: Callable[[str], None]) -> str | None:
            note("slower than it could be")
            if why == "the process dies":
                raise OSError
            return why

        def compute(self, task: Task) -> Outcome:
            computed.append(task)
            return Outcome(cell=task.cell, status="done")

        def last_words(self) -> str:
            return ""

        def end(self) -> None: ...

    monkeypatch.setattr(processes, "Worker", Pretender)
    first, second = tasks(tmp_path)[:2]
    unit = (replace(first, anew=True), second)
    notes: list[str] = []
    assert len(list(processes.handed_out([unit], 1, notes.append))) == 2
    assert [task.anew for task in computed] == [why is not None, False]
    assert notes[0] == "--model mlp: slower than it could be"
    assert len(notes) == 1 + (why is not None)
