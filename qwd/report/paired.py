"""Two sets of predictions on the same images: the difference of accuracies and its interval."""

import math
from dataclasses import fields
from statistics import NormalDist

from torch import Tensor

from qwd.report.function import functional_figures
from qwd.report.variants import Effect

BEYOND = 1e9
"""standard deviations: a difference that cannot be"""


def effect(reference: Tensor, outputs: Tensor, labels: Tensor) -> Effect:
    """Figures of ``outputs`` against ``reference``, the float ones: see `functional_figures`."""
    figures = functional_figures(reference, outputs, labels)
    _, low, high = difference(right(reference, labels), right(outputs, labels))
    kept = {f.name: figures[f.name] for f in fields(Effect) if f.name in figures}
    return Effect(**kept, drop_low_pp=low, drop_high_pp=high)


def right(outputs: Tensor, labels: Tensor) -> Tensor:
    """Which of the images are classified rightly, bool [n], from outputs [n, classes]."""
    return outputs.argmax(dim=1) == labels


def difference(first: Tensor, second: Tensor) -> tuple[float, float, float]:
    """100 (mean first - mean second) and its 95 % interval, in pp; bool [n], image by image."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    n = len(first)
    low, high = interval(only_first, only_second, n)
    return 100 * (only_first - only_second) / n, 100 * low, 100 * high


def interval(b: int, c: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of the difference p_b - p_c of two paired proportions.

    Of ``n`` > 0 pairs ``b`` are right in the first alone and ``c`` in the second alone. The
    interval holds every difference d that the score test does not reject:

        |b - c - n d| <= z sqrt(n (2 q + d (1 - d)))

    with q the maximum-likelihood estimate, given d, of the probability of the second alone. At
    d = 0 this is McNemar's test. It is no point where b = c = 0: then z^2 / (n + z^2) is its end,
    0.19 pp for 2,000 images.

    Source: T. Tango, Equivalence test and confidence interval for the difference in proportions
    for the paired-sample design, Statistics in Medicine 17 (1998), section 3.
    """
    from scipy.optimize import brentq  # slow to load, and reports of weights do without

    z = NormalDist().inv_cdf((1 + confidence) / 2)

    def excess(d: float) -> float:
        """b - c - n d in units of its standard deviation given d."""
        half = -b - c + (2 * n - b + c) * d
        # The root of 2 n q^2 + half q - c d (1 - d) = 0; rounding may leave the square below 0.
        q = (math.sqrt(max(half * half + 8 * n * c * d * (1 - d), 0)) - half) / (4 * n)
        variance = n * (2 * q + d * (1 - d))
        distance = b - c - n * d
        if distance == 0:
            return 0.0
        return distance / math.sqrt(variance) if variance > 0 else math.copysign(BEYOND, distance)

    found = (b - c) / n
    # Just within -1 and 1, where the variance is 0.
    most = 1 - 1e-12
    low = -1.0 if excess(-most) <= z else brentq(lambda d: excess(d) - z, -most, found)
    high = 1.0 if excess(most) >= -z else brentq(lambda d: excess(d) + z, found, most)
    return float(low), float(high)  # pyright: ignore[reportArgumentType]
