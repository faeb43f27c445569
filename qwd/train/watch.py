"""Figures of the weights in training: what one step of each epoch does to them.

Of every weight, before a step u with gradient g and after it v, the device computes eleven numbers
(`Raw`); one transfer an epoch brings them to the host, where all figures follow, for each weight
and for all of them taken together.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from qwd.decay.attach import attached_to
from qwd.quantize.arithmetic import arithmetic_dtype
from qwd.quantize.folding import weight_names
from qwd.train.dead_channels import DeadChannels

T = TypeVar("T")

OUTLIER_SIGMAS = 4
NO_GRADIENT = -1.0

FIGURES = (
    "weight_norm",
    "update_ratio",
    "angle",
    "gradient_norm",
    "zeros",
    "range",
    "range_over_std",
    "outlier_rate",
)
"""The columns of each weight, ``<figure>:<parameter>``; in total, ``<figure>``"""


class Raw(NamedTuple, Generic[T]):
    """What is measured of a weight: tensors on the device, then numbers on the host."""

    before: T
    """|u|"""
    update: T
    """|v - u|"""
    along: T
    """(v - u).u / |u|^2, 0 where u = 0"""
    across: T
    """length of the part of v - u that is perpendicular to u"""
    norm: T
    """|v|"""
    gradient: T
    """|g|, `NO_GRADIENT` without one"""
    low: T
    high: T
    std: T
    zeros: T
    outliers: T


class Watch:
    """Looks at one step an epoch and at the validation pass; made after the optimizer.

    The model, its outputs, its statistics and the random numbers stay as they are. ``penalty`` is
    what the decay adds to the loss: ``l2`` wd/2 |w|^2, ``l1`` wd |w|_1, ``none``.

        loss.backward()
        watch.before_step()
        optimizer.step()
        watch.after_step()
        with watch.validating():
            ...
        row = watch.row()
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, penalty: str = "l2"):
        if penalty not in ("l2", "l1", "none"):
            raise ValueError(f"penalty {penalty!r}: expected l2, l1 or none")
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self.weights = {name: parameters[name] for name in weight_names(model)}
        self.optimizer = optimizer
        self.penalty = penalty
        self.dead = DeadChannels(model)
        # An empty tensor has no extremes; its figures stay None.
        self.filled = {n: w for n, w in self.weights.items() if w.numel()}
        self._before: list[tuple[Tensor, Tensor]] = []
        self._coefficients: list[float] = []
        self.measured: Tensor | NDArray[np.float64] | None = None
        """float64 [penalty, then `Raw` of each weight], of the last step that was watched"""

    @torch.no_grad()
    def before_step(self) -> None:
        """Between ``backward`` and ``optimizer.step``: keep weights, measure gradients.

        The gradient is that of the data loss: decay joins it within the step.
        """
        self._before = [
            (w.to(arithmetic_dtype(w.dtype), copy=True), _gradient_norm(w))
            for w in self.filled.values()
        ]
        attached = attached_to(self.optimizer)
        self._coefficients = [
            attached.coefficient(group) if attached else float(group.get("decay") or 0.0)
            for group in self.optimizer.param_groups
        ]

    @torch.no_grad()
    def after_step(self) -> None:
        """Right after ``optimizer.step``: measure what became of the weights."""
        numbers = [self._penalty()] if self.penalty != "none" else []
        for w, (before, gradient) in zip(self.filled.values(), self._before, strict=True):
            after = w.to(before.dtype)
            found = raw_of(before.unsqueeze(0), after.unsqueeze(0), gradient.unsqueeze(0))
            numbers += [number.squeeze(0) for number in found]
        self._before = []
        self.measured = torch.stack(numbers).double() if numbers else None

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Within it, the model's forward passes show which ReLU channels are dead."""
        with self.dead.watching():
            yield

    def row(self) -> dict[str, float | None]:
        """The figures since the last row: in total, then of each weight and each ReLU.

        ``weight_norm``: |v| after the step; in total of all weights as one vector, as the next
        three. ``update_ratio``: |v - u| / |u|. ``angle``: between u and v, in degrees.
        ``gradient_norm``: |g|, of the weights that have one. ``penalty`` (in total alone): the sum
        over decayed parameters, biases included, after the step, with the coefficients that the
        schedule gave the step. ``zeros``: share of exact zeros. ``range``: b - a, and
        ``range_over_std``: (b - a) / std; in total the means weighted by elements.
        ``outlier_rate``: weights beyond 4 sigma of their own
        tensor, per million. ``dead_channels``: share of the ReLU channels that were zero for every
        validation image and position.

        A figure that does not exist or is not finite is None; the columns are always the same.
        """
        numbers = self.measured.tolist() if self.measured is not None else []
        self.measured = None
        penalty = numbers.pop(0) if numbers and self.penalty != "none" else None
        width = len(Raw._fields)
        rows = [Raw(*numbers[i : i + width]) for i in range(0, len(numbers), width)]
        # No rows where no step was watched.
        found = {
            name: _figures([raw], [w.numel()])
            for (name, w), raw in zip(self.filled.items(), rows, strict=False)
        }
        total = _figures(rows, [w.numel() for w in self.filled.values()])
        dead = self.dead.counts()
        row = {figure: total.get(figure) for figure in FIGURES}
        row |= {"penalty": _finite(penalty), "dead_channels": _share(*dead.values())}
        for figure in FIGURES:
            row |= {f"{figure}:{name}": found.get(name, {}).get(figure) for name in self.weights}
        shares = {name: _share(*([dead[name]] if name in dead else [])) for name in self.dead.relus}
        return row | {f"dead_channels:{name}": share for name, share in shares.items()}

    def _penalty(self) -> Tensor:
        """Sum over decayed parameters of wd/2 |w|^2, or of wd |w|_1."""
        terms = []
        for group, wd in zip(self.optimizer.param_groups, self._coefficients, strict=True):
            for w in group["params"] if wd else []:
                dtype = arithmetic_dtype(w.dtype)
                if self.penalty == "l1":
                    terms.append(wd * torch.linalg.vector_norm(w, 1, dtype=dtype))
                else:
                    terms.append(wd / 2 * torch.linalg.vector_norm(w, dtype=dtype).square())
        if terms:
            return torch.stack(terms).sum()
        device = next(w.device for group in self.optimizer.param_groups for w in group["params"])
        return torch.zeros((), device=device)


def _gradient_norm(w: Tensor) -> Tensor:
    g = w.grad
    if g is None:
        return torch.full((), NO_GRADIENT, device=w.device)
    values = g.coalesce().values() if g.is_sparse else g
    return torch.linalg.vector_norm(values, dtype=arithmetic_dtype(g.dtype))


def raw_of(u: Tensor, v: Tensor, gradient: Tensor) -> Raw[Tensor]:
    """What is measured of a weight of R networks, each [R].

    ``u`` before a step and ``v`` after it, [R, ...], and the norms of the gradients, [R].
    """
    u, v = (each.reshape(len(gradient), -1) for each in (u, v))
    norm = functools.partial(torch.linalg.vector_norm, dim=1)
    change = v - u
    before = norm(u)
    along = ((change * u).sum(dim=1) / before.square()).nan_to_num(nan=0.0)
    deviation = v - v.mean(dim=1, keepdim=True)
    std = norm(deviation) / math.sqrt(v.shape[1])
    beyond = deviation.abs() - OUTLIER_SIGMAS * std.unsqueeze(1)
    return Raw(
        before=before,
        update=norm(change),
        along=along,
        # Not by Pythagoras: of a step that only shrinks the weight nothing would remain but noise.
        across=norm(torch.addcmul(change, u, along.unsqueeze(1), value=-1)),
        norm=norm(v),
        gradient=gradient,
        low=v.amin(dim=1),
        high=v.amax(dim=1),
        std=std,
        # On a CPU comparisons, and sums of what they give, take longer than signs.
        zeros=(1 - v.sign().abs()).sum(dim=1),
        outliers=beyond.sign().relu().sum(dim=1),
    )


def _figures(rows: Sequence[Raw[float]], sizes: Sequence[int]) -> dict[str, float | None]:
    """The figures of some weights taken together; none without weights."""
    if not rows:
        return {}
    n = sum(sizes)
    before, norm = math.hypot(*[r.before for r in rows]), math.hypot(*[r.norm for r in rows])
    ranges = [r.high - r.low for r in rows]
    spread = [(k, b_a, r.std) for k, b_a, r in zip(sizes, ranges, rows, strict=True) if b_a > 0]
    spread = [(k, b_a, std) for k, b_a, std in spread if std > 0]
    known = all(math.isfinite(r.std) for r in rows)
    gradients = [r.gradient for r in rows if r.gradient != NO_GRADIENT]
    figures = {
        "weight_norm": norm,
        "update_ratio": _ratio(math.hypot(*[r.update for r in rows]), before),
        "angle": _angle(rows, before) if norm else None,
        "gradient_norm": math.hypot(*gradients) if gradients else None,
        "zeros": sum(r.zeros for r in rows) / n,
        "range": sum(k * b_a for k, b_a in zip(sizes, ranges, strict=True)) / n,
        "range_over_std": _ratio(
            sum(k * b_a / std for k, b_a, std in spread), sum(k for k, _, _ in spread)
        ),
        "outlier_rate": 1e6 * sum(r.outliers for r in rows) / n if known else None,
    }
    return {name: _finite(figure) for name, figure in figures.items()}


def _angle(rows: Sequence[Raw[float]], before: float) -> float | None:
    """Degrees between all u and all v, each as one vector: atan2(|v across u|, v along u).

    Exact for small angles, where arccos has lost all digits. Of the parts of one vector, each with
    its own ratio ``along``, what differs from the common ratio is across the whole.
    """
    if not before:
        return None
    along = sum(r.along * (r.before / before) ** 2 for r in rows)
    across = math.hypot(*[x for r in rows for x in (r.across, (r.along - along) * r.before)])
    return math.degrees(math.atan2(across / before, 1 + along))


def _share(*counts: tuple[int, int]) -> float | None:
    return _ratio(sum(dead for dead, _ in counts), sum(of for _, of in counts))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _finite(figure: float | None) -> float | None:
    return figure if figure is not None and math.isfinite(figure) else None
