"""What the weights say about themselves, in words: who carries extremes, of what sort, what helps.

Every gain is measured on the tensor: its SQNR under the remedy less that under one scale for
min and max.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from qwd.quantize.channels import FLOORS
from qwd.quantize.clipping_one import clip_and_sqnr, sample
from qwd.quantize.figures import WeightFigures
from qwd.quantize.statistics_assembly import expected_sqnr_db
from qwd.report.tensors import ChannelReport

MOST = 4
"""tensors that are spoken of"""
WIDE = 1.25
"""times the range of as many normally distributed weights, from which on a range is wide"""
WORTH = 0.5
"""dB that a remedy has to gain to be spoken of"""
FEW = 20
"""elements beyond 6 standard deviations that are single outliers, not a tail"""
SKEWED = 4.0
"""times the median factor, from which on a channel is blown up by folding"""
TAILED = 2.0
"""times the range of normally distributed channels, up to which channels are uneven without tails
of their own"""
PART = 2**20
"""elements of a copy"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A weight and what was measured of it."""

    name: str
    kind: str
    raw: WeightFigures
    deployed: WeightFigures
    """after folding, where a BatchNorm is folded into it"""
    channels: ChannelReport | None
    """of the deployed weight, without its thousands of ranges"""


def hints(
    seen: Sequence[Seen],
    tensor: Callable[[str], Tensor],
    factor: Callable[[str], Tensor | None],
    eps: float | None,
    variances: dict[str, float],
) -> Iterator[str]:
    """A sentence for each of the worst wide tensors, then what holds for the model.

    ``tensor`` gives a weight as deployed, ``factor`` gamma / sqrt(var + eps) of the norm behind it,
    ``variances`` the median running variance behind each weight.
    """
    wide = [s for s in seen if s.deployed.sqnr_db is not None and excess(s.deployed) > WIDE]
    wide.sort(key=lambda s: s.deployed.sqnr_db or 0.0)
    for each in wide[:MOST]:
        yield _sentence(each, tensor, factor(each.name))
    if len(wide) > MOST:
        yield f"{len(wide)} of {len(seen)} weights have wide ranges; the worst {MOST} are named"
    crushed = [n for n, v in variances.items() if eps is not None and v < 10 * eps]
    if crushed:
        low = min(variances[n] for n in crushed)
        yield (
            f"{_some(crushed)}: the running variance behind is down to {low:.3g} in the median "
            f"channel, near eps: these weights have shrunk so far that eps counts; less decay"
        )
    for backend, least in FLOORS.items():
        low = {s.name: s.channels.floored[backend] for s in seen if s.channels}
        found = [name for name, n in low.items() if n]
        if found:
            yield (
                f"{sum(low.values())} channels of {_some(found)} have scales below {least:.3g}, "
                f"the smallest of {backend}, which rounds them more coarsely: less decay, or "
                "another backend"
            )
    if wide:
        yield (
            "more decay alone makes all weights of a tensor smaller and changes neither its codes "
            "nor its SQNR: what helps is a narrower range for the same standard deviation"
        )


def excess(of: WeightFigures) -> float:
    """range / std, relative to what as many normally distributed weights have; 0 without one.

    The largest of n such weights is near the quantile 1 - 1 / (2 n) on either side.
    """
    expected = _normal(of.numel - of.nan - of.inf)
    return of.range_over_std / expected if of.range_over_std is not None and expected else 0.0


def _normal(n: int) -> float:
    """range / std of n normally distributed weights; 0 for less than two."""
    return -2 * NormalDist().inv_cdf(1 / (2 * n)) if n > 1 else 0.0


def _sentence(each: Seen, tensor: Callable[[str], Tensor], factor: Tensor | None) -> str:
    of = each.deployed
    w = tensor(each.name)
    end = of.a if abs(of.a or 0.0) > abs(of.b or 0.0) else of.b
    start = (
        f"{each.name}: {of.sqnr_db:.1f} dB, its range of {of.range:.4g} is {excess(of):.1f} times "
        f"that of normally distributed weights"
    )
    remedies = list(_remedies(each, w))
    helps = "; ".join(remedies) if remedies else "nothing that was tried gains half a decibel"
    return f"{start}. {_cause(each, w, factor, end)}: {helps}"


def _cause(each: Seen, w: Tensor, factor: Tensor | None, end: float | None) -> str:
    of = each.deployed
    far = of.outliers.get("sigma>6") or 0
    if factor is not None and each.channels is not None and end is not None:
        by = factor.abs().double()
        median = float(by.median())
        channel = _channel_of(w, each.channels.axis, end)
        grown = excess(of) > WIDE * excess(each.raw)
        if median and channel is not None and float(by[channel]) > SKEWED * median and grown:
            own = float(by[channel])
            return (
                f"A folding artefact: channel {channel} carries {end:.4g} because BatchNorm's "
                f"factor there is {own:.3g}, {own / median:.1f} times the median"
            )
    beyond = f"{far} element{'s' if far != 1 else ''} beyond 6 standard deviations"
    if 0 < far <= FEW and not _has_tails(of, w):
        return f"Single outliers: {beyond}, up to {end:.4g}"
    if each.channels is not None and (each.channels.spread or 0) > SKEWED and _is_uneven(each):
        return (
            f"Uneven channels: the widest has {each.channels.spread:.1f} times the median range, "
            f"and {each.channels.channels} share one scale"
        )
    return f"Heavy tails: excess kurtosis {of.kurtosis or 0.0:.2f}, {beyond}"


def _has_tails(of: WeightFigures, w: Tensor) -> bool:
    """Whether the range is wide without the elements beyond 6 standard deviations too.

    Large tensors are judged by a sample.
    """
    values = sample(w)[0].double()
    values = values[(values - (of.mean or 0.0)).abs() <= 6 * (of.std or 0.0)]
    if len(values) < 2:
        return False
    width = float(values.max() - values.min())
    return width > WIDE * _normal(len(values)) * float(values.std(correction=0))


def _is_uneven(each: Seen) -> bool:
    """Whether the channels have ranges near those of normally distributed ones, each for itself."""
    channels = each.channels
    if channels is None or channels.sqnr_expected_db is None:
        return False
    normal = _normal(each.deployed.numel // channels.channels)
    return not normal or channels.sqnr_expected_db > expected_sqnr_db(TAILED * normal, 8)


def _remedies(each: Seen, w: Tensor) -> Iterator[str]:
    channels, before = each.channels, each.deployed.sqnr_db
    if channels is not None and (channels.gain_db or 0) >= WORTH:
        yield f"a scale per channel gains {channels.gain_db:.1f} dB"
        if each.kind in ("convolution", "depthwise", "linear"):
            yield "equalization with the next layer, if at most a ReLU is between, up to that"
    if channels is not None and channels.dead:
        yield f"{channels.dead} dead channels can be cut out"
    if before is None or each.deployed.a is None or each.deployed.b is None:
        return
    lo, hi, after = clip_and_sqnr(w, each.deployed.a, each.deployed.b)
    if after is not None and after - before >= WORTH:
        yield f"clipping to [{lo:.4g}, {hi:.4g}] gains {after - before:.1f} dB"


def _channel_of(w: Tensor, axis: int, end: float) -> int | None:
    """The channel of the element nearest to ``end``."""
    rows = w.movedim(axis, 0)
    if not w.numel():
        return None
    distances = [
        (part.flatten(1).double() - end).abs().nan_to_num(nan=math.inf).amin(dim=1)
        for part in rows.split(max(1, PART * len(rows) // w.numel()))
    ]
    return int(torch.argmin(torch.cat(distances)))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
