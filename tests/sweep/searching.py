"""Searches that take seconds: trials are trained in this process, one after another."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qwd.sweep import search_worker
from qwd.sweep.search import Search, SearchWatcher, search
from qwd.sweep.search_processes import Event
from qwd.sweep.search_space import Space, begin, read_space
from qwd.sweep.search_study import SharedStudy, Trial

SMALL: dict[str, Any] = {
    "model": "mlp",
    "epochs": 1,
    "batch_size": 128,
    "lr": "1e-2..1e-1",
}


def here(folder: Path, storage: str, trials: int, processes: int, threads: int) -> Iterator[Event]:
    """In place of `qwd.sweep.search_processes.side_by_side`."""
    said: list[dict[str, Any]] = []
    if processes:
        setup = {"folder": str(folder), "storage": storage, "trials": trials}
        search_worker.work(setup, lambda **content: said.append(content))
    yield from (Event(**content) for content in said)


class Heard(SearchWatcher):
    """Keeps what a watcher hears."""

    def __init__(self) -> None:
        self.trials: list[Trial] = []
        self.notes: list[str] = []
        self.left = 0

    def begins(
        self, folder: Path, space: Space, storage: str, trials: int, left: int, jobs: int
    ) -> None:
        self.left = left

    def ended(self, trial: Trial, done: int, of: int, seconds_left: float) -> None:
        self.trials.append(trial)

    def note(self, text: str) -> None:
        self.notes.append(text)


def searched(folder: Path, trials: int, **settings: Any) -> tuple[Search, Heard]:
    """A search in ``folder``, and what was heard of it."""
    heard = Heard()
    return search({**SMALL, **settings}, trials=trials, out=folder, watcher=heard), heard


def resumed(folder: Path, trials: int, **settings: Any) -> tuple[Search, Heard]:
    """A search in ``folder``, gone on with, and what was heard of it."""
    heard = Heard()
    return search(settings, trials=trials, out=folder, resume=True, watcher=heard), heard


def study(
    folder: Path, trials: int, *, mark: str = "here", storage: Path | None = None, **settings: Any
) -> SharedStudy:
    """A study without a search around it; its file is in ``folder`` unless it is shared."""
    folder.mkdir(exist_ok=True)
    url = f"sqlite:///{storage or folder / 'search.db'}"
    space = begin(read_space({}, {}, {**SMALL, **settings}))
    return SharedStudy(url, "name", folder, mark, space, trials)


def drawn(made: SharedStudy) -> Trial:
    """The next trial, given back without a result as by a process that died."""
    with made.next() as trial:
        assert trial is not None
        return trial
