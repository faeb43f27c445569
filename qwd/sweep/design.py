"""What a sweep is: the settings of all cells, those that vary, the seeds, and how to report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from qwd.setting import plain_name

Role = Literal["none", "placebo", "other"]
"""Arms without an effect: no decay, a decay too small to matter, and other seeds."""

WDS = (1e-5, 1e-4)
SEEDS = tuple(range(8))
OTHER_SEEDS = 1000
"""what is added to the seeds of the arm with other ones"""


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """How every cell is reported; see `qwd.report`."""

    scheme: tuple[str, ...] = ()
    """all of the design where empty"""
    backend: tuple[str, ...] = ()
    bits: tuple[int, ...] = (8,)
    calibration_n: int = 512


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Cells of one decay beside the grid, one per seed, of which the verdict should claim none."""

    role: Role
    values: Mapping[str, Any]
    """of every setting that varies"""


@dataclass(frozen=True, kw_only=True)
class Design:
    """A grid: the product of all values of the settings that vary, and the seeds."""

    settings: Mapping[str, Any]
    """those that are given and the same in all cells, by field of `TrainConfig`"""
    axes: Mapping[str, tuple[Any, ...]]
    """those that vary, in the order of their declaration"""
    seeds: tuple[int, ...]
    unnamed: Mapping[str, Any] = field(default_factory=dict)
    """of a setting that varies since the sweep was extended, the value it had before: cells of
    that value are named without it"""
    reporting: Reporting = Reporting()
    reference: float | None = None
    """the wd that others are compared with"""
    placebo: bool = False
    arms: tuple[Arm, ...] = ()
    """of the placebo, once their decays are known"""

    @property
    def reference_wd(self) -> float:
        """The wd that others are compared with: the smallest above 0 where none is given."""
        wds = self.axes["wd"]
        if self.reference is not None:
            return self.reference
        return min((wd for wd in wds if wd > 0), default=wds[0])

    def to_dict(self) -> dict[str, Any]:
        """As a file holds it, which ``--config`` reads back."""
        reporting = self.reporting
        bits = {} if "bits" in {**self.axes, **self.settings} else {"bits": list(reporting.bits)}
        content: dict[str, Any] = {
            **{plain_name(name): list(values) for name, values in self.axes.items()},
            "seeds": list(self.seeds),
            **{
                plain_name(name): list(value) if isinstance(value, tuple) else value
                for name, value in self.settings.items()
            },
            "scheme": list(reporting.scheme),
            "backend": list(reporting.backend),
            **bits,
            "calibration_n": reporting.calibration_n,
            "reference": self.reference,
            "placebo": self.placebo,
        }
        if self.unnamed:
            content["unnamed"] = dict(self.unnamed)
        if self.arms:
            content["arms"] = [{"role": arm.role, **arm.values} for arm in self.arms]
        return content

    def to_yaml(self) -> str:
        """The same as YAML, a setting in a line."""
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=100)
