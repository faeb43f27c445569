"""What follows from the settings and the number of images alone, before any step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    is_bound: bool = False
    """doses are the most that can be taken, not what will be"""

    def dose(self, wd: float) -> float | None:
        """D of a coefficient; see `qwd.decay.dose`."""
        return decay.dose(self.form, wd, self.rates, self.gain, **self._options)

    def other_dose(self, wd: float) -> float | None:
        """D of the weights that --lr-corrected leaves out; None without it."""
        return replace(self, lr_corrected=False).dose(wd) if self.lr_corrected else None

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
    """The steps of ``config`` on that many training images."""
    return course_of(config, batch_geometry(config, images)[1])


def course_of(config: TrainConfig, steps_per_epoch: int) -> Course:
    """The steps of ``config`` in epochs of so many.

    With --lr-corrected it is that of the corrected weights. Doses are upper bounds under cautious
    decay, where training may stop early, and under the plateau schedule, whose rate is taken never
    to fall.
    """
    form = form_of(config)
    may_fall = config.lr_schedule == "plateau" or config.early_stop is not None
    return Course(
        form=form,
        rates=planned_rates(config, steps_per_epoch),
        peak=peak_rate(config),
        gain=optimizers.gain(config),
        schedule=schedule_of(config, steps_per_epoch),
        lr_corrected=config.lr_corrected is not None,
        steps_per_epoch=steps_per_epoch,
        is_bound=form.dose_is_bound or may_fall,
    )


class GivenDose:
    """The dose of a training so far, step by step, at the rates that it really had.

    Like the planned one it is that of a weight without factors of its own, ``corrected`` where that
    is asked for, and under cautious decay an upper bound. ``taken`` is None where the form has no
    dose.
    """

    def __init__(self, planned: Course, wd: float, *, steps: int = 0, taken: float | None = 0.0):
        """``steps`` and ``taken`` are where a resumed training stands."""
        self._planned, self._wd, self._steps = planned, wd, steps
        self.taken = taken if planned.dose(wd) is not None else None

    def step(self, rate: float) -> None:
        """Another step, at a rate as `qwd.train.schedules.RateSchedule.rate` gives it."""
        planned = self._planned
        share = rate / planned.peak
        wd = self._wd * planned.schedule(self._steps, share)
        wd *= share if planned.lr_corrected else 1.0
        amount = planned.form.dose(wd, rate, planned.gain)
        self._steps += 1
        if self.taken is not None and amount is not None:
            self.taken += amount


def planned_dose(config: TrainConfig, images: int) -> float | None:
    """The dose of a run on that many training images; see `qwd.decay.dose`."""
    return course(config, images).dose(config.coefficient)
