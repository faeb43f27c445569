"""What follows from the settings and the number of images alone, before any step."""

from qwd import decay
from qwd.config import TrainConfig
from qwd.registry import FORMS, OPTIMIZERS
from qwd.train.schedules import rate_factor


def batch_geometry(config: TrainConfig, images: int) -> tuple[int, int]:
    """Images per step, and steps per epoch.

    Only whole batches are used: a last batch of one image would have no variance for BatchNorm.
    """
    size = min(config.batch_size, images)
    return size, images // size


def planned_dose(config: TrainConfig, images: int) -> float | None:
    """The dose of a run on that many training images; see `qwd.decay.dose`."""
    steps = batch_geometry(config, images)[1]
    factor = rate_factor(config, steps)
    rates = (config.lr * factor(t) for t in range(config.epochs * steps))
    gain = OPTIMIZERS.get(config.optimizer).gain(config.momentum)
    return decay.dose(FORMS.get(config.form), config.wd, rates, gain)
