"""Trainings of each kind in a sweep, made but not run: whether they can be, and how long they take.

Cells that differ in numbers which contradict nothing, such as the seed, are of one kind.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qwd.config import DECAY_SETTINGS, TrainConfig
from qwd.decay import VISIBLE
from qwd.errors import InputError, QwdError
from qwd.sweep.cells import Cell
from qwd.train import seeding
from qwd.train.data import Data
from qwd.train.devices import device_called, enough_memory
from qwd.train.evaluation import loss_and_accuracy
from qwd.train.layout import is_finished
from qwd.train.models import channels_needed
from qwd.train.planning import planned_dose
from qwd.train.prepare import data_for
from qwd.train.session import Session

WARM, LEAST, MOST = 3, 20, 500
"""steps before the measurement, and in it"""
SOON, ENOUGH = 0.5, 2.0
"""seconds of measurement after which no further step is taken, where `LEAST` were and at all"""
SAME_TIME = (*DECAY_SETTINGS, "seed", "from_", "lr", "epochs", "momentum", "bits")
"""Settings that do not change how long a step takes, or nearly so."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How long trainings take on this machine, from some steps of each kind."""

    cells: dict[str, tuple[float, float]]
    """of each cell alone, the seconds of its steps, and of its passes over the validation split"""
    steps: dict[str, float]
    """seconds of a step by model"""

    @property
    def seconds(self) -> float:
        """Of all cells one after another, without their reports."""
        return sum(steps + rest for steps, rest in self.cells.values())


class Trials:
    """Sessions of cells; the data that several of them share are loaded once."""

    def __init__(self) -> None:
        self._data: dict[Any, Data] = {}

    def check(self, cells: Sequence[Cell]) -> None:
        """Make one training of each kind: model, optimizer, decay and its audit.

        Raises the error of the first that cannot be made, with the name of its cell.
        """
        for cell in cells:
            if cell.config.from_ is not None and not is_finished(Path(cell.config.from_)):
                raise InputError(f"cell {cell.id}: --from {cell.config.from_} is unfinished")
        for cell in _one_of_each(cells, ("seed", "from_", "wd", "lr")):
            try:
                self._session(cell.config)
            except QwdError as error:
                raise type(error)(f"cell {cell.id}: {error}") from error

    def doses(self, cells: Sequence[Cell]) -> dict[str, float | None]:
        """The planned dose of each cell by its name; see `qwd.decay.dose`."""
        known: dict[Any, float | None] = {}
        for cell in cells:
            key = _key(cell.config, ("seed", "from_"))
            if key not in known:
                known[key] = planned_dose(cell.config, self.images(cell.config))
        return {cell.id: known[_key(cell.config, ("seed", "from_"))] for cell in cells}

    def warning(self, cells: Sequence[Cell]) -> str | None:
        """That the decays cannot differ visibly, where all doses are too small to show."""
        decaying = [c for c in cells if c.role is None and c.config.coefficient > 0]
        most = sorted(decaying, key=lambda cell: -cell.config.coefficient)
        # The largest decay of each kind is enough, and the first that shows ends the search.
        for cell in _one_of_each(most, ("seed", "from_", "wd")):
            dose = planned_dose(cell.config, self.images(cell.config))
            if dose is None or dose >= VISIBLE:
                return None
        if not decaying:
            return None
        return f"doses below {VISIBLE:g}: these trainings cannot differ through decay (`qwd dose`)"

    def estimate(self, cells: Sequence[Cell]) -> Estimate:
        """Measure real steps, and one pass over the validation split, of each kind of cell."""
        epoch: dict[Any, tuple[float, float]] = {}
        steps: dict[str, float] = {}
        for cell in _one_of_each(cells, SAME_TIME):
            session = self._session(cell.config)
            with enough_memory(cell.config, session.device):
                session.compile()
                step, rest = _measured(session)
            steps[cell.config.model] = max(step, steps.get(cell.config.model, 0.0))
            epoch[_key(cell.config, SAME_TIME)] = session.steps_per_epoch * step, rest
        found = {}
        for cell in cells:
            training, rest = epoch[_key(cell.config, SAME_TIME)]
            found[cell.id] = cell.config.epochs * training, cell.config.epochs * rest
        return Estimate(cells=found, steps=steps)

    def images(self, config: TrainConfig) -> int:
        """How many a training of ``config`` sees in an epoch."""
        return len(self._of(config).train)

    def _session(self, config: TrainConfig) -> Session:
        device = device_called(config.device)
        with seeding.reproducible(device, config.threads):
            return Session(config, self._of(config), device)

    def _of(self, config: TrainConfig) -> Data:
        inputs = (config.data, config.data_dir, config.mean, config.std, config.image_size)
        key = (*inputs, channels_needed(config.model))
        if key not in self._data:
            self._data[key] = data_for(config)
        return self._data[key]


def _one_of_each(cells: Sequence[Cell], apart_from: tuple[str, ...]) -> Iterator[Cell]:
    seen = set()
    for cell in cells:
        # Whether there is a decay at all is another kind of training than how much.
        key = (cell.config.coefficient > 0, _key(cell.config, apart_from))
        if key not in seen:
            seen.add(key)
            yield cell


def _key(config: TrainConfig, apart_from: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(value for name, value in vars(config).items() if name not in apart_from)


def _measured(session: Session) -> tuple[float, float]:
    """Seconds of a training step, and of what an epoch takes beside its steps."""
    config, device = session.config, session.device
    with seeding.reproducible(device, config.threads):
        session.model.train()
        session.awareness.epoch_begins(0)
        taken = 0.0
        counted = 0
        batches = (batch for epoch in range(WARM + LEAST) for batch in session.batches(epoch))
        for number, (images, labels) in enumerate(batches, start=1 - WARM):
            started = time.perf_counter()
            session.step(images, labels)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number > 0:
                taken, counted = taken + time.perf_counter() - started, number
            if number == MOST or taken > (SOON if number >= LEAST else ENOUGH):
                break
        started = time.perf_counter()
        with session.awareness.resting():
            loss_and_accuracy(session.model, session.data.validation, device)
        session.awareness.row(session.data)
        return taken / max(counted, 1), time.perf_counter() - started
