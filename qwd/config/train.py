"""All settings of a training run, checked against each other."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from qwd.config.data import DataSettings
from qwd.config.decay import DecaySettings
from qwd.config.length import LengthSettings
from qwd.config.optimization import OptimizationSettings
from qwd.config.quantization import QuantizationSettings
from qwd.errors import UsageError
from qwd.registry import OPTIMIZERS
from qwd.setting import applied, plain_name, read

FREEZE_AFTER_FROM = {"observer_epochs": 4, "norm_epochs": 3}
"""torchvision's references/classification/train_quantization.py"""


# Bases from the last to the first: so their fields stand in the order of a reader.
@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    QuantizationSettings, LengthSettings, OptimizationSettings, DecaySettings, DataSettings
):
    """Everything that decides what a training run computes.

    Raises UsageError, naming the option, where a value is not acceptable.
    """

    def __post_init__(self) -> None:
        for field in fields():
            object.__setattr__(self, field.name, read(field, getattr(self, field.name)))
        name = self.optimizer.rpartition(":")[2].lower()
        rate = 0.1 if name == "sgd" else 1e-3
        self._fill(
            form="decoupled" if name == "adamw" else "l2",
            lr=rate / 10 if self.from_ else rate,
            momentum=0.9 if OPTIMIZERS.ships(self.optimizer) else None,
            epochs=10 if self.from_ else 60,
        )
        for field in fields():
            object.__setattr__(self, field.name, applied(field, self))
        if self.qat:
            freeze = dict.fromkeys(FREEZE_AFTER_FROM, -(-3 * self.epochs // 4))
            self._fill(**(FREEZE_AFTER_FROM if self.from_ else freeze))
        if self.wd_schedule == "piecewise" and not self.wd_at:
            raise UsageError("--wd-schedule piecewise: needs --wd-at EPOCH=FACTOR,...")
        if self.warmup >= self.epochs:
            raise UsageError(f"--warmup {self.warmup:g}: must be less than --epochs {self.epochs}")
        if self.qat and self.amp:
            raise UsageError(
                "--amp: torch's fake quantization is float32; leave out --amp or --qat"
            )
        if self.qat and self.compile:
            raise UsageError("--compile: compiles trainings in float; leave out --compile or --qat")
        if (self.mean is None) != (self.std is None):
            raise UsageError("--mean and --std go together: give both or neither")
        if self.mean and self.std and len(self.mean) != len(self.std):
            raise UsageError(
                f"--mean has {len(self.mean)} values, --std {len(self.std)}: one per channel each"
            )

    def _fill(self, **defaults: Any) -> None:
        """Set what is not given."""
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    @property
    def coefficient(self) -> float:
        """The decay of this training: ``wd``, or what ``qat_wd`` makes of it."""
        if self.qat_wd is None:
            return self.wd
        factor = self.qat_wd.removeprefix("x")
        return float(factor) if factor == self.qat_wd else self.wd * float(factor)

    def to_dict(self) -> dict[str, Any]:
        """The settings as YAML and JSON hold them: tuples as lists."""
        values = dataclasses.asdict(self)
        return {plain_name(k): list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def to_yaml(self) -> str:
        """The settings as a file that ``--config`` reads back to the same ones."""
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def fields(*, shared_only: bool = False) -> list[dataclasses.Field[Any]]:
    """The settings in the order of their declaration."""
    every = dataclasses.fields(TrainConfig)
    return [f for f in every if f.metadata["shared"] or not shared_only]
