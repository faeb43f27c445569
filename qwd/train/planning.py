"""What follows from the settings and the number of images alone, before any step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qwd import decay
from qwd.config import TrainConfig
from qwd.decay import Form, Schedule
from qwd.train import optimizers
from qwd.train.decaying import form_of, schedule_of
from qwd.train.schedules import peak_rate, planned_rates


def batch_geometry(config: TrainConfig, images: int) -> tuple[int, int]:
    """Images per step, and steps per epoch.

    Only whole batches are used: a last batch of one image would have no variance for BatchNorm.
    """
    size = min(config.batch_size, images)
    return size, images // size


@dataclass(frozen=True)
class Course:
    """All steps of one training, as its decay sees them; made by `course`."""

    form: Form
    rates: Sequence[float]
    """learning rate of every step, of parameters without a factor of their own"""
    peak: float
    gain: float | None
    schedule: Schedule
    lr_corrected: bool
    steps_per_epoch: int

    def dose(self, wd: float) -> float | None:
        """D of a coefficient; see `qwd.decay.dose`."""
        return decay.dose(self.form, wd, self.rates, self.gain, **self._options)

    def wd_for(self, target: float) -> float | None:
        """The coefficient of a dose; see `qwd.decay.wd_for`."""
        return decay.wd_for(target, self.form, self.rates, self.gain, **self._options)

    def unfelt(self, wd: float, dtype: torch.dtype = torch.float32) -> float:
        """Share of the steps too small to change a weight; see `qwd.decay.unfelt`."""
        return decay.unfelt(self.form, wd, self.rates, self.gain, dtype, **self._options)

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "schedule": self.schedule,
            "lr_corrected": self.lr_corrected,
            "peak": self.peak,
        }


def course(config: TrainConfig, images: int) -> Course:
    """The steps of ``config`` on that many training images.

    With --lr-corrected it is that of the corrected weights. Under the plateau schedule the rate
    is taken never to fall, and the dose is an upper bound.
    """
    steps_per_epoch = batch_geometry(config, images)[1]
    return Course(
        form=form_of(config),
        rates=planned_rates(config, steps_per_epoch),
        peak=peak_rate(config),
        gain=optimizers.gain(config),
        schedule=schedule_of(config, steps_per_epoch),
        lr_corrected=config.lr_corrected is not None,
        steps_per_epoch=steps_per_epoch,
    )


def planned_dose(config: TrainConfig, images: int) -> float | None:
    """The dose of a run on that many training images; see `qwd.decay.dose`."""
    return course(config, images).dose(config.coefficient)
