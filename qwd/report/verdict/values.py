"""The value of every compared figure in one model, and the step in which it is measured."""

from collections.abc import Iterable, Sequence

from qwd.quantize.figures import WeightFigures
from qwd.report.figures import ModelReport
from qwd.report.intervals import FLOAT32, one_image
from qwd.report.metrics import figure
from qwd.report.verdict.margins import EXPLORATORY, OF_A_SCHEME, PRIMARY, Figure


def compared(models: Sequence[ModelReport]) -> dict[str, Figure]:
    """The figures to compare: the primary ones first, those of each scheme last."""
    schemes = dict.fromkeys(name for model in models for name in model.schemes)
    of_schemes = {
        f"schemes.{scheme}.{name}": kind for scheme in schemes for name, kind in OF_A_SCHEME.items()
    }
    return {**PRIMARY, **EXPLORATORY, **of_schemes}


def value(model: ModelReport, metric: str) -> float | None:
    """A figure of a model in its own unit; None where the report holds none."""
    if metric == "codes_used":
        return _mean_codes(tensor.figures for tensor in model.tensors)
    if metric == "folded_codes_used":
        return _mean_codes(as_deployed(model).values())
    return figure(model, metric)


def step(model: ModelReport, metric: str, kind: Figure) -> float:
    """The smallest change that the measurement shows, in the unit of changes; above 0.

    One image of the test split, one weight of the model, or the rounding of float32.
    """
    if kind.unit == "pp":
        return 100 * one_image([model])
    if kind.unit == "per million":
        weights = as_deployed(model) if metric.startswith("folded") else _as_stored(model)
        return 1e6 / max(sum(f.numel for f in weights.values()), 1)
    return 100.0 * FLOAT32


def as_deployed(model: ModelReport) -> dict[str, WeightFigures]:
    """Figures of the weights as int8 sees them, by name: folded, fused, or as they are.

    Empty where the structure of the model is not known. The parts that a kernel is made of stand
    below the module that the kernel takes the place of.
    """
    if model.summary.folded_range is None:
        return {}
    parts = {
        source
        for kernel in model.deployed
        for source in kernel.sources
        if source.startswith(kernel.name.rpartition(".")[0])
    }
    kept = {t.name: t.folded or t.figures for t in model.tensors if t.name not in parts}
    return {**kept, **{kernel.name: kernel.figures for kernel in model.deployed}}


def _as_stored(model: ModelReport) -> dict[str, WeightFigures]:
    return {tensor.name: tensor.figures for tensor in model.tensors}


def _mean_codes(figures: Iterable[WeightFigures]) -> float | None:
    """Mean number of distinct codes, weighted by parameters; None without any."""
    found = [(f.codes_used, f.numel) for f in figures if f.codes_used]
    total = sum(n for _, n in found)
    return sum(codes * n for codes, n in found) / total if total else None
