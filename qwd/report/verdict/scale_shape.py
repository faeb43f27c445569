"""How much of a smaller range is a common factor, which int8 ignores, and how much is shape."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from qwd.quantize.figures import WeightFigures
from qwd.report.figures import ModelReport
from qwd.report.verdict.figures import ScaleShape
from qwd.report.verdict.paired import interval
from qwd.report.verdict.values import FLOAT32, as_deployed

Pairs = Sequence[tuple[ModelReport, ModelReport]]
Tensors = Callable[[ModelReport], Mapping[str, WeightFigures]]


def raw(pairs: Pairs) -> ScaleShape | None:
    """`scale_shape` of the weights as stored."""
    return scale_shape(pairs, lambda model: {t.name: t.figures for t in model.tensors})


def folded(pairs: Pairs) -> ScaleShape | None:
    """`scale_shape` of the weights as int8 sees them."""
    return scale_shape(pairs, as_deployed)


def scale_shape(pairs: Pairs, tensors: Tensors) -> ScaleShape | None:
    """The logarithm of the ratio of ranges of (reference, other), in its two parts.

        log(range_b / range_a) = log(std_b / std_a) + log((range/std)_b / (range/std)_a)

    for each tensor, averaged with its number of elements as weight; intervals are over the pairs.
    Multiplying a tensor by a factor changes the first part alone, and rounding with
    scale = (b-a)/255 not at all. None where no tensor of all the models has a range.
    """
    found = [(tensors(a), tensors(b)) for a, b in pairs]
    every = dict.fromkeys(name for pair in found for side in pair for name in side)
    sides = [side for pair in found for side in pair]
    used = [name for name in every if all(_spread_out(side.get(name)) for side in sides)]
    if not used:
        return None
    parts = np.array([_mean_parts(a, b, used) for a, b in found])
    scale, shape = parts.T
    return ScaleShape(
        total=interval(scale + shape, FLOAT32),
        scale=interval(scale, FLOAT32),
        shape=interval(shape, FLOAT32),
        pairs=len(found),
        tensors=len(used),
        left_out=tuple(name for name in every if name not in used),
    )


def _spread_out(figures: WeightFigures | None) -> bool:
    return bool(figures and figures.numel and figures.range and figures.std)


def _mean_parts(
    a: Mapping[str, WeightFigures], b: Mapping[str, WeightFigures], names: Sequence[str]
) -> tuple[float, float]:
    """Means over tensors of the logarithms of both ratios."""
    weights = [a[name].numel for name in names]
    scale = [_log_ratio(a[name].std, b[name].std) for name in names]
    total = [_log_ratio(a[name].range, b[name].range) for name in names]
    mean_scale, mean_total = (float(np.average(x, weights=weights)) for x in (scale, total))
    return mean_scale, mean_total - mean_scale


def _log_ratio(a: float | None, b: float | None) -> float:
    assert a and b  # noqa: PT018
    # The quotient of two ranges may overflow, their logarithms do not.
    return math.log(b) - math.log(a)
