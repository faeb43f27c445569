"""What a training tells of itself while it runs."""

from dataclasses import dataclass
from pathlib import Path

import torch

from qwd.config import TrainConfig
from qwd.decay import Audit


@dataclass(frozen=True)
class Plan:
    """What is about to be trained, known before the first step."""

    config: TrainConfig
    folder: Path
    device: torch.device
    parameters: int
    audit: Audit
    """who is decayed by how much"""
    steps_per_epoch: int
    dose: float | None
    advice: str | None
    """what to do about a dose that is too small to show"""
    notes: tuple[str, ...]


class Watcher:
    """Hears of a run's progress; override what is of interest."""

    def compiles(self) -> None:
        """Before the step is compiled, which may take minutes."""

    def begins(self, plan: Plan, epochs_done: int) -> None:
        """Before the first step; ``epochs_done`` is positive for a resumed run."""

    def stepped(self, epoch: int, step: int, steps: int) -> None:
        """After each step, both counted from 1."""

    def epoch_ended(self, row: dict[str, float | None]) -> None:
        """After each epoch, with its row of ``metrics.csv``."""

    def stopped(self, epoch: int, best: int, kept: bool) -> None:
        """Where training ends early: its last epoch, the best one, and whether that is kept."""
