"""The settings of a training run: every default, its meaning and its limits, in one place.

Options of the command line, ``QWD_*`` variables and YAML files are all read through the fields of
`TrainConfig`; a setting added to one of its parts is an option everywhere.
"""

import dataclasses

from qwd.config.decay import DecaySettings
from qwd.config.quantization import QuantizationSettings
from qwd.config.train import TrainConfig, fields

__all__ = [
    "COURSE_SETTINGS",
    "DECAY_SETTINGS",
    "MACHINE_SETTINGS",
    "QUANTIZATION_SETTINGS",
    "TrainConfig",
    "fields",
]

MACHINE_SETTINGS = ("data_dir", "download", "device", "threads", "keep_every")
"""What is the machine's affair, not the run's: where data lie, what computes, what is kept."""

DECAY_SETTINGS = tuple(field.name for field in dataclasses.fields(DecaySettings))
"""What describes the decay: all that may differ between runs that are read against each other."""

QUANTIZATION_SETTINGS = tuple(field.name for field in dataclasses.fields(QuantizationSettings))
"""What is said of a quantization-aware training, and of the run it starts from."""

COURSE_SETTINGS = (
    *MACHINE_SETTINGS,
    *("epochs", "early_stop", "warmup", "lr", "lr_schedule", "lr_min", "lr_every", "lr_step"),
    *("lr_gamma", "lr_rate", "lr_power", "lr_patience", "lr_peak_at"),
    *("wd_schedule", "wd_end", "wd_at", "wd_until", "from_", "qat", "amp", "compile"),
)
"""Settings of the length and the course of a training, which another one does not take over."""
