"""Choosing a weight decay by stratified k-fold cross-validation."""

import csv
import io
import json
import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from qwd.config import TrainConfig
from qwd.errors import DivergedError, InputError
from qwd.train import seeding
from qwd.train.data import Data
from qwd.train.data.stratify import RANDOM_STATE
from qwd.train.devices import device_called, enough_memory
from qwd.train.planning import planned_dose
from qwd.train.prepare import data_for
from qwd.train.progress import Watcher
from qwd.train.session import Session

Metric = Literal["accuracy", "loss"]


@dataclass(frozen=True)
class Cell:
    """One training: a decay, and the fold that was held out; without figures where it diverged."""

    wd: float
    fold: int
    """from 1"""
    seed: int
    accuracy: float | None
    """on the held-out fold after the last epoch, a fraction"""
    loss: float | None
    """likewise, mean cross-entropy in nats"""

    @property
    def diverged(self) -> bool:
        """Whether the loss became infinite or NaN."""
        return self.loss is None


@dataclass(frozen=True)
class Estimate:
    """Mean, standard deviation (ddof 1) and standard error, deviation / sqrt(k), of k values."""

    mean: float
    std: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """That of at least two values."""
        std = statistics.stdev(values)
        return cls(statistics.mean(values), std, std / math.sqrt(len(values)))


@dataclass(frozen=True)
class Arm:
    """One decay over all folds; without means where a training diverged."""

    wd: float
    dose: float | None
    """of one training; None where the form has none under the optimizer"""
    cells: tuple[Cell, ...]

    @property
    def diverged(self) -> int:
        """How many trainings did."""
        return sum(cell.diverged for cell in self.cells)

    @property
    def accuracy(self) -> Estimate | None:
        """Over the folds."""
        return self._estimate([cell.accuracy for cell in self.cells])

    @property
    def loss(self) -> Estimate | None:
        """Over the folds."""
        return self._estimate([cell.loss for cell in self.cells])

    def _estimate(self, values: Sequence[float | None]) -> Estimate | None:
        known = [value for value in values if value is not None]
        return Estimate.of(known) if len(known) == len(values) else None


@dataclass(frozen=True)
class CrossValidation:
    """Every decay on every fold, the best of them and the one to choose."""

    config: TrainConfig
    folds: int
    metric: Metric
    arms: tuple[Arm, ...]
    best: Arm
    """the best mean of the metric"""
    chosen: Arm
    """the largest decay within one standard error of the best"""
    notes: tuple[str, ...]

    @property
    def at_the_end(self) -> bool:
        """Whether the choice is the largest decay of several that were tried."""
        return len(self.arms) > 1 and self.chosen.wd == max(arm.wd for arm in self.arms)

    def to_json(self) -> str:
        """Everything as JSON."""
        content: dict[str, Any] = {
            "metric": self.metric,
            "folds": self.folds,
            "best": self.best.wd,
            "chosen": self.chosen.wd,
            "notes": self.notes,
            "config": {k: v for k, v in self.config.to_dict().items() if k not in ("wd", "seed")},
            "arms": [
                {
                    "wd": arm.wd,
                    "dose": arm.dose,
                    "accuracy": arm.accuracy and asdict(arm.accuracy),
                    "loss": arm.loss and asdict(arm.loss),
                    "diverged": arm.diverged,
                    "cells": [asdict(cell) for cell in arm.cells],
                }
                for arm in self.arms
            ],
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """A row for each decay and fold; figures are empty where the training diverged."""
        page = io.StringIO()
        writer = csv.writer(page, lineterminator="\n")
        writer.writerow(["wd", "dose", "fold", "seed", "accuracy", "loss"])
        for arm in self.arms:
            for c in arm.cells:
                writer.writerow([arm.wd, arm.dose, c.fold, c.seed, c.accuracy, c.loss])
        return page.getvalue()


def cross_validate(
    config: TrainConfig,
    wds: Sequence[float],
    folds: int = 5,
    *,
    metric: Metric = "accuracy",
    on_begin: Callable[[], None] = lambda: None,
    on_cell: Callable[[Cell], None] | None = None,
) -> CrossValidation:
    """Train with every decay on all but one fold of the training split, for every fold.

    Folds are stratified and the same for every decay and seed. A training of fold i = 1 ... k has
    the seed config.seed + i - 1 whatever its decay, so that decays are compared in pairs; its
    figures are those of the last epoch. The fixed validation split and the test split are not
    touched, and nothing is written. ``config.wd`` and early stopping, which would select on the
    fold that judges, play no part.

    The choice is by the one-standard-error rule, see `choose`. ``on_begin`` hears that training
    begins, ``on_cell`` of each one.
    Raises InputError where no class has an image for every fold, DivergedError where a training
    diverged under every decay.
    """
    device = device_called(config.device)
    data = data_for(config)
    parts, notes = stratified(data.train.labels.numpy(), folds)
    if config.early_stop is not None:
        config = replace(config, early_stop=None)
        notes.append("early stopping is left out: it would select on the fold that judges")
    if config.lr_schedule == "plateau":
        notes.append("the plateau schedule reads the loss of the fold that judges")
    arms = []
    on_begin()
    with seeding.reproducible(device, config.threads), enough_memory(config, device):
        for wd in wds:
            cells = []
            for fold, (kept, held) in enumerate(parts, start=1):
                train, validation = (
                    data.train.subset(torch.from_numpy(rows)) for rows in (kept, held)
                )
                cell_config = replace(config, wd=wd, seed=config.seed + fold - 1)
                inputs = replace(data, train=train, validation=validation)
                cells.append(_cell(cell_config, inputs, device, fold, notes))
                if on_cell:
                    on_cell(cells[-1])
            dose = planned_dose(replace(config, wd=wd), len(parts[0][0]))
            arms.append(Arm(wd, dose, tuple(cells)))
    best, chosen = choose(arms, metric)
    said = tuple(dict.fromkeys(notes))
    return CrossValidation(config, folds, metric, tuple(arms), best, chosen, said)


def _cell(
    config: TrainConfig, data: Data, device: torch.device, fold: int, notes: list[str]
) -> Cell:
    session = Session(config, data, device)
    notes += session.compile()
    try:
        while not session.ended:
            session.run_epoch(len(session.history), Watcher())
    except DivergedError:
        return Cell(config.wd, fold, config.seed, None, None)
    last = session.history[-1]
    return Cell(config.wd, fold, config.seed, last["validation_accuracy"], last["validation_loss"])


def stratified(
    labels: np.ndarray, folds: int
) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[str]]:
    """Positions (kept, held out) of each fold, int64 and ascending, and notes about them.

    The held-out parts are disjoint and together all of ``labels``, int64 [n]; in each the classes
    are in their proportions, to within an image. They depend on labels and ``folds`` alone.
    Classes of fewer images than folds are missing in some of them, which a note says; InputError
    where that is every class.
    """
    from sklearn.model_selection import StratifiedKFold  # slow to import

    sizes = np.bincount(labels)
    if sizes.max(initial=0) < folds:
        raise InputError(
            f"--folds {folds}: the largest class has {sizes.max(initial=0)} training images; "
            "expected a class with at least one for each fold"
        )
    short = np.flatnonzero((sizes > 0) & (sizes < folds))
    notes = []
    if len(short):
        notes.append(
            f"{len(short)} classes have fewer training images than the {folds} folds, and are "
            "missing from some"
        )
    splitter = StratifiedKFold(folds, shuffle=True, random_state=RANDOM_STATE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says what the note does
        return list(splitter.split(labels, labels)), notes


def choose(arms: Sequence[Arm], metric: Metric) -> tuple[Arm, Arm]:
    """The arm with the best mean, and the largest decay whose mean is hardly worse.

    Best: highest mean accuracy, the lower mean loss where equal; under ``loss`` the other way
    round. Hardly worse: by no more than the standard error of the best, its deviation over folds
    / sqrt(k) (the one-standard-error rule; Breiman, Friedman, Olshen & Stone 1984).
    Arms in which a training diverged do not count; DivergedError where no other is left.
    """
    scores: list[tuple[Arm, float, float, float]] = []
    for arm in arms:
        if arm.accuracy and arm.loss:
            pair = (arm.accuracy.mean, -arm.loss.mean)
            first, second = pair if metric == "accuracy" else pair[::-1]
            error = (arm.accuracy if metric == "accuracy" else arm.loss).error
            scores.append((arm, first, second, error))
    if not scores:
        raise DivergedError("a training diverged under every decay; try a lower --lr")
    best, score, _, error = max(scores, key=lambda entry: entry[1:3])
    close = [arm for arm, mean, _, _ in scores if mean >= score - error]
    return best, max(close, key=lambda arm: arm.wd)
