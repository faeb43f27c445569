"""What a report holds, as plain data: the one thing builders fill and renderers read.

`Report.to_dict` is the content of `report.json`; its schema is `report.schema.json` beside this
file.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from qwd.report.tensors import ChannelReport, DeployedReport, TensorReport, VectorGroup
from qwd.report.variants import Remedies, Sensitivity
from qwd.report.verdict.figures import Verdict

__all__ = [
    "SCHEMA_VERSION",
    "ChannelReport",
    "Comparison",
    "DataInfo",
    "DecayAudit",
    "DecayedParameter",
    "DeployedReport",
    "Group",
    "Interval",
    "ModelReport",
    "QuantizedRow",
    "Report",
    "SchemeResult",
    "Series",
    "Spread",
    "Summary",
    "TensorReport",
    "VectorGroup",
]

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """The images a model's accuracies were measured on."""

    name: str
    split: str
    n: int
    sha256: str
    """digest of images, labels and normalisation"""


@dataclass(frozen=True, kw_only=True)
class SchemeResult:
    """Accuracy under one quantization scheme, against the same network in float."""

    scheme: str
    """minmax, affine, symmetric or pow2"""
    granularity: str
    """tensor or channel"""
    weight_bits: int
    activation_bits: int | None
    """None: weights alone are quantized"""
    backend: str
    engine: str | None
    observer: str | None
    quantized_ops: int
    left_float: tuple[str, ...]
    """convolutions and linear layers, or other weights, that stayed in float"""
    accuracy: float
    drop_pp: float
    """100 (float accuracy - accuracy)"""
    flip_n: int
    flip_rate: float
    """share of inputs whose predicted class changes"""
    kl: float
    """mean KL(float || quantized) of the softmax outputs, in nats"""
    mcnemar_p: float
    """exact two-sided McNemar test of the two accuracies"""
    clip: str = "none"
    """what of the range is cut off: none, percentile or mse"""
    qat: bool = False
    """whether the grids are those of a quantization-aware training"""
    weights_sqnr_db: float | None = None
    """10 log10(sum w^2 / sum (w' - w)^2) over all weights, where they alone are quantized"""
    training_sqnr_db: float | None = None
    """of the weights that a quantization-aware training computed with; None without one"""
    converted_sqnr_db: float | None = None
    """of the weights that its int8 kernels compute with"""


@dataclass(frozen=True, kw_only=True)
class DecayedParameter:
    """What is decayed by how much; see `qwd.decay.AuditedParameter`."""

    name: str
    kind: str
    numel: int
    form: str | None
    """None: not decayed"""
    coefficient: float
    lr: float | None
    lost: float | None
    """share of the weight that a step without gradient takes"""
    ulps: float | None
    """distance of that step from the form's formula, in units in the last place"""


@dataclass(frozen=True, kw_only=True)
class DecayAudit:
    """The decay of a run, verified by a step without gradient before the training."""

    optimizer: str
    decayed: int
    """elements under decay"""
    share: float
    """of all elements"""
    ulps: float
    """the largest distance from a formula"""
    parameters: tuple[DecayedParameter, ...]
    failures: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A model in short; means over tensors are weighted by parameters.

    `folded_*` figures are of the weights as int8 sees them: BatchNorm folded, branches fused,
    weights without either as they are. None where the structure of the model is not known.
    """

    float_accuracy: float | None
    int8_accuracy: float | None
    """under ao-static"""
    drop_pp: float | None
    flip_rate: float | None
    range: float | None
    folded_range: float | None
    range_over_std: float | None
    folded_range_over_std: float | None
    sqnr_db: float | None
    folded_sqnr_db: float | None
    outlier_rate: float | None
    """sigma>6, per million weights"""
    folded_outlier_rate: float | None
    outlier_rate_sigma4: float | None
    """sigma>4, per million weights"""
    folded_outlier_rate_sigma4: float | None


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """Everything about one run or checkpoint."""

    name: str
    path: str | None
    seed: int | None
    config: dict[str, Any] | None
    dose: float | None
    decay: DecayAudit | None = None
    data: DataInfo | None
    parameters: int
    float_accuracy: float | None
    summary: Summary
    schemes: dict[str, SchemeResult]
    tensors: tuple[TensorReport, ...]
    deployed: tuple[DeployedReport, ...] = ()
    vectors: tuple[VectorGroup, ...] = ()
    """what is not among the weights"""
    hints: tuple[str, ...] = ()
    """what the weights say about themselves, and what would help"""
    sensitivity: Sensitivity | None = None
    """None where it was not asked for"""
    remedies: Remedies | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and sample standard deviation over the seeds of a group; std None for one seed."""

    mean: float
    std: float | None


@dataclass(frozen=True, kw_only=True)
class Group:
    """Models that differ in nothing but the seed."""

    name: str
    models: tuple[str, ...]
    wd: float | None
    dose: float | None
    metrics: dict[str, Spread | None]
    """by field of `Summary`"""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over pairs of runs, with its 95 % interval; no bounds for one pair."""

    mean: float
    low: float | None
    high: float | None
    pairs: int


@dataclass(frozen=True, kw_only=True)
class QuantizedRow:
    """Accuracies of one decay at one width of the weights, over seeds."""

    setting: str
    """model and data"""
    wd: float
    scheme: str
    """kind and granularity, as ``affine-tensor``; activations have 8 bits unless a report says"""
    bits: int
    float_accuracy: Spread | None
    post_training: Spread | None
    qat: Spread | None
    gain_pp: Interval | None
    """quantization-aware less post-training, paired by seed"""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Checkpoints of one training run."""

    name: str
    """the models' names, with a star for the numbers in which they differ"""
    steps: tuple[int, ...]
    """epoch or step of each checkpoint, ascending"""
    models: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, str]:
        """The first model and the last."""
        return self.models[0], self.models[-1]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several models side by side, and what that says in words."""

    groups: tuple[Group, ...]
    quantized: tuple[QuantizedRow, ...] = ()
    series: tuple[Series, ...] = ()
    readings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """A list of models, compared where there is more than one."""

    models: tuple[ModelReport, ...]
    comparison: Comparison | None = None
    verdict: Verdict | None = None
    """of a grid of decays and seeds; see `qwd.report.verdict`"""
    schema_version: int = field(default=SCHEMA_VERSION)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it; figures that are not finite become None."""
        return _plain(self)

    def __str__(self) -> str:
        from qwd.report.render.text import render

        return render(self)

    def _repr_markdown_(self) -> str:
        from qwd.report.render.markdown import render

        return render(self)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, TensorReport | DeployedReport):
        # The figures stand in the entry itself, beside its name.
        entry = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        figures = entry.pop("figures")
        return {"name": entry.pop("name"), **figures, **entry}
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
