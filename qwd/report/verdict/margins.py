"""What is compared between two decays, in which unit, and the smallest change that matters."""

from dataclasses import dataclass
from typing import Literal

from qwd.report.verdict.words import Word

Unit = Literal["%", "pp", "dB", "per million"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """How changes of one figure are counted and judged."""

    unit: Unit
    """% is relative to the reference of the pair; all others are differences"""
    margin: float
    """in that unit: changes within it are equivalent to none"""
    reason: str
    lower: Word | None = None
    """what a smaller value is called; None for an exploratory figure"""
    higher: Word | None = None

    @property
    def primary(self) -> bool:
        """Whether the figure is tested."""
        return self.lower is not None


STEP = "the quantization step is range / 255: 5 % of it is 0.42 dB of SQNR, 0.07 bits"
RATIO = "range/std sets the SQNR of uniform rounding: 5 % is 0.42 dB, 0.07 bits"
NOISE = "a twelfth of a bit: one bit is worth 6.02 dB"
TAIL = "one weight in 10,000"
CODES = "13 of 256 codes, as a widening of the range by 5 % takes"
ACCURACY = "half of the 1 % that int8 deployments are usually allowed to lose"
FLIPS = "accuracy cannot change by more than predictions do, and 0.5 pp is its margin"

_COMPACT = {"lower": Word.MORE_COMPACT, "higher": Word.LESS_COMPACT}
_BETTER = {"lower": Word.WORSE, "higher": Word.BETTER}

PRIMARY = {
    "range": Figure(unit="%", margin=5, reason=STEP, **_COMPACT),
    "folded_range": Figure(unit="%", margin=5, reason=STEP, **_COMPACT),
    "int8_accuracy": Figure(unit="pp", margin=0.5, reason=ACCURACY, **_BETTER),
}
"""The primary family: three tests per pair of decays, corrected together."""

EXPLORATORY = {
    "range_over_std": Figure(unit="%", margin=5, reason=RATIO),
    "folded_range_over_std": Figure(unit="%", margin=5, reason=RATIO),
    "outlier_rate_sigma4": Figure(unit="per million", margin=100, reason=TAIL),
    "folded_outlier_rate_sigma4": Figure(unit="per million", margin=100, reason=TAIL),
    "outlier_rate": Figure(unit="per million", margin=100, reason=TAIL),
    "folded_outlier_rate": Figure(unit="per million", margin=100, reason=TAIL),
    "sqnr_db": Figure(unit="dB", margin=0.5, reason=NOISE),
    "folded_sqnr_db": Figure(unit="dB", margin=0.5, reason=NOISE),
    "codes_used": Figure(unit="%", margin=5, reason=CODES),
    "folded_codes_used": Figure(unit="%", margin=5, reason=CODES),
    "float_accuracy": Figure(unit="pp", margin=0.5, reason=ACCURACY),
    "drop_pp": Figure(unit="pp", margin=0.5, reason=ACCURACY),
    "flip_rate": Figure(unit="pp", margin=0.5, reason=FLIPS),
}
OF_A_SCHEME = {
    "accuracy": Figure(unit="pp", margin=0.5, reason=ACCURACY),
    "drop_pp": EXPLORATORY["drop_pp"],
    "flip_rate": EXPLORATORY["flip_rate"],
}
"""Exploratory too, of each scheme by itself: ``schemes.<name>.accuracy``."""
