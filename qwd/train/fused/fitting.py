"""Which trainings can be one program, from their settings alone; free of torch."""

from collections.abc import Hashable
from typing import Any

from qwd.config import DECAY_SETTINGS, TrainConfig
from qwd.registry import FORMS, SCHEDULES

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")

RATE_SETTINGS = (
    *("lr", "base_batch_size", "bias_lr", "depth_lr", "lr_schedule", "warmup", "lr_min"),
    *("lr_every", "lr_step", "lr_gamma", "lr_rate", "lr_power", "lr_patience", "lr_peak_at"),
)
VECTORS = ("seed", "from_", "momentum", *RATE_SETTINGS, *DECAY_SETTINGS)
"""Settings that are numbers of each replica, or come down to such: start, rates, coefficients."""


def obstacle(config: TrainConfig) -> str | None:
    """Why a training cannot be one of several in one program; None where it can.

    What only the model can tell, `qwd.train.fused.program` finds out.
    """
    found = {
        "--qat": config.qat,
        "--compile": config.compile,
        "--early-stop": config.early_stop is not None,
        f"--lr-schedule {config.lr_schedule}": config.lr_schedule == "plateau"
        or not SCHEDULES.ships(config.lr_schedule),
        f"--optimizer {config.optimizer}": config.optimizer not in OPTIMIZERS,
        "--optimizer-option": bool(config.optimizer_option),
        f"--form {config.form}": not FORMS.ships(config.form),
        "--cautious": config.cautious,
        "--proximal": config.proximal,
    }
    return next((f"{option} is not carried" for option, is_so in found.items() if is_so), None)


def kind(config: TrainConfig) -> Hashable:
    """Equal for trainings that differ in nothing but `VECTORS`.

    Without momentum there is no momentum buffer, which is another program.
    """
    values: list[Any] = [v for name, v in vars(config).items() if name not in VECTORS]
    return (*values, bool(config.momentum))
