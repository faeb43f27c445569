"""The two passes over a tensor that lies on an accelerator, with torch's operations.

The same formulas as on the CPU, a chunk at a time; the order of the additions is the device's, so
that the last digits may differ.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from qwd.quantize.outliers import SIGMAS
from qwd.quantize.statistics_assembly import Found, central, constant
from qwd.quantize.statistics_passes import Codes
from qwd.quantize.statistics_source import SAMPLE

CHUNK = 2**26
"""elements: 0.5 GB in float64, which the intermediate results take a few times over"""
FAR = 4
"""standard deviations from the origin of power sums to the mean, beyond which they start again"""


def found(w: Tensor, bits: tuple[int, ...]) -> Found | None:
    """All that is read from a tensor but the order of its elements.

    None for float64 whose fourth powers are beyond it; the CPU knows what to do.
    """
    nan = inf = n = 0
    a, b = math.inf, -math.inf
    for chunk in _chunks(w):
        nan += int(chunk.isnan().sum())
        inf += int(chunk.isinf().sum())
        kept = _finite(chunk)
        if kept.numel():
            low, high = (float(end) for end in kept.aminmax())
            a, b, n = min(a, low), max(b, high), n + kept.numel()
    if not n:
        return Found(nan, inf, None, None)
    if abs(math.frexp(max(-a, b))[1]) > 200:
        return None
    a, b = a + 0.0, b + 0.0  # + 0.0 makes -0.0 the number 0
    sample = _finite(w.reshape(-1)[:: max(1, w.numel() // SAMPLE)].double())
    origin = float(sample.median()) if sample.numel() else a
    moments = central(n, a, b, origin, _sums(w, origin))
    if abs(moments.mean - origin) > FAR * moments.std:
        origin = moments.mean
        moments = central(n, a, b, origin, _sums(w, origin))
    if a == b:
        return Found(nan, inf, moments, constant(moments, len(bits)))
    zeros = 0
    outside = [0] * len(SIGMAS)
    counts = [np.zeros(2**width, np.int64) for width in bits]
    errors = [0.0] * len(bits)
    for chunk in _chunks(w):
        x = _finite(chunk).double()
        zeros += int((x == 0).sum())
        distance = (x - moments.mean).abs_()
        outside = [
            total + int((distance > k * moments.std).sum())
            for total, k in zip(outside, SIGMAS.values(), strict=True)
        ]
        for i, width in enumerate(bits):
            # A divisor on the device: CUDA divides by a number through its reciprocal.
            scale = moments.scale(width)
            position = (x - a) / torch.tensor(scale, dtype=torch.float64, device=w.device)
            codes = position.round()
            errors[i] += float((position - codes).square_().sum()) * (scale * scale)
            counts[i] += torch.bincount(codes.int(), minlength=2**width).cpu().numpy()
    return Found(nan, inf, moments, Codes(tuple(counts), tuple(errors), zeros, tuple(outside)))


def _chunks(w: Tensor) -> Iterator[Tensor]:
    for chunk in w.reshape(-1).split(CHUNK):
        yield chunk if w.element_size() > 2 else chunk.float()


def _finite(chunk: Tensor) -> Tensor:
    finite = chunk.isfinite()
    return chunk if finite.all() else chunk[finite]


def _sums(w: Tensor, origin: float) -> list[float]:
    sums = []
    for chunk in _chunks(w):
        first = _finite(chunk).double() - origin
        second = first.square()
        powers = (first, second, first * second, second.square())
        sums.append([float(power.sum()) for power in powers])
    return [math.fsum(terms) for terms in zip(*sums, strict=True)]
