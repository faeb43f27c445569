"""What a verdict holds, as plain data: part of a report, and of `report.json`."""

from dataclasses import dataclass

from qwd.report.verdict.words import Word


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over pairs of runs, with its 95 % interval; no bounds for one pair."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Change:
    """What becomes of one figure from the reference to the other decay, seed by seed."""

    metric: str
    """as in `qwd.report.metrics`, or ``codes_used``, ``folded_codes_used``"""
    unit: str
    """of the four figures below: %, pp, dB or per million"""
    mean: float
    """mean over pairs; under % of 100 (other / reference - 1), else of other - reference"""
    low: float | None
    """ends of its 95 % t interval; None for one pair"""
    high: float | None
    margin: float
    """the smallest change that matters"""
    reference: float
    """mean of the figure itself over the pairs' references, in the figure's own unit"""
    other: float
    pairs: int
    primary: bool
    """whether the figure is tested; all others are exploratory"""
    p: float | None
    """of the sign-flip test; None where no test is claimed"""
    p_holm: float | None
    """p for the whole grid"""
    p_equivalence: float | None
    """of the two one-sided t tests against the margin"""
    p_equivalence_holm: float | None
    word: Word | None
    """None for an exploratory figure"""
    phrase: str | None
    """the word with its margin or number of seeds"""
    more_seeds: int | None
    """to decide; None where it is decided, or takes more than 1,000"""
    note: str | None
    """what is doubtful about the interval"""


@dataclass(frozen=True, kw_only=True)
class ScaleShape:
    """log(range_other / range_reference), a mean over tensors by parameters, and its two parts.

    ``total`` = ``scale`` + ``shape``, in natural logarithms.
    """

    total: Estimate
    scale: Estimate
    """log of the ratio of standard deviations: a common factor, which rounding ignores"""
    shape: Estimate
    """log of the ratio of range/std: what rounding sees"""
    pairs: int
    tensors: int
    left_out: tuple[str, ...]
    """tensors without a range, or that only some of the models have"""


@dataclass(frozen=True, kw_only=True)
class SkippedLayer:
    """A layer that was not rescaled."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """int8 predictions of a network, and of the same with each layer before BatchNorm rescaled."""

    scheme: str
    seed: int | None
    images: int
    changed: int
    """predictions that changed"""
    rescaled: int
    """layers multiplied by another power of two than 1"""
    unchanged: int
    """layers whose nearest power of two is 1"""
    skipped: tuple[SkippedLayer, ...]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One decay: models of one setting that differ in nothing but the seed."""

    name: str
    wd: float
    dose: float | None
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One decay against the reference, paired by seed."""

    arm: Arm
    more_decay: bool | None
    """whether this arm decays more than the reference, by dose or else by wd; None: the same"""
    seeds: tuple[int, ...]
    """of the pairs"""
    changes: tuple[Change, ...]
    raw: ScaleShape | None
    folded: ScaleShape | None
    certificates: tuple[Certificate, ...] = ()
    uncertified: str | None = None
    """why there is no certificate"""


@dataclass(frozen=True, kw_only=True)
class SettingVerdict:
    """All decays of one setting: the model, the data, and all of the training but the decay."""

    name: str
    reference: Arm
    contrasts: tuple[Contrast, ...]
    answer: str
    """the question of the project, answered in words, a line for each thought"""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a grid of decays and seeds says, with its uncertainty."""

    family_size: int
    """m, the tests that Holm's correction counts: three per pair of decays"""
    seeds_for_a_test: int
    """the fewest pairs with which a test of that many can reject at all"""
    settings: tuple[SettingVerdict, ...]
    left_out: tuple[str, ...]
    """models that are compared with none: of no known seed or decay, or alone in their setting"""
    diverged: tuple[str, ...] = ()
    """trainings of the grid that came to no model"""
