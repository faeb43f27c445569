"""What a comparison says, in sentences: does a compact raw range mean a compact int8 model?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from qwd.decay.dose import VISIBLE
from qwd.report.figures import Group, ModelReport

NOTICEABLE = 0.01
"""Relative changes below 1 % are not called smaller or larger where no interval exists."""

Groups = Sequence[tuple[Group, Sequence[ModelReport]]]


@dataclass(frozen=True)
class Change:
    """A change from one group to another, with its 95 % interval where seeds give one."""

    mean: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def direction(self) -> int:
        """-1, 0 or 1: the sign that the interval, or failing that the size, supports."""
        if self.low is None or self.high is None:
            return 0 if abs(self.mean) < NOTICEABLE else (1 if self.mean > 0 else -1)
        return -1 if self.high < 0 else 1 if self.low > 0 else 0


def readings(groups: Groups) -> Iterator[str]:
    """One sentence per group against the first, the one with the least decay."""
    (reference, reference_models), *others = groups
    for group, models in others:
        yield reading(reference, reference_models, group, models)


def reading(
    base: Group, base_models: Sequence[ModelReport], head: Group, head_models: Sequence[ModelReport]
) -> str:
    """Raw range, range after folding and int8 accuracy of ``head`` against ``base``, in words."""
    raw = change(base_models, head_models, "range", relative=True)
    folded = change(base_models, head_models, "folded_range", relative=True)
    shape = change(base_models, head_models, "folded_range_over_std", relative=True)
    raw_shape = change(base_models, head_models, "range_over_std", relative=True)
    parts = [f"{head.name} against {base.name}"]
    if raw is None:
        return f"{parts[0]}: no weights to compare."
    parts.append(f": the raw range is {_relative(raw)}")
    relative = shape or raw_shape
    others = [c for c in (folded, relative) if c is not None]
    agree = all(c.direction == raw.direction for c in others)
    if others:
        parts.append(", and " if agree else ", but ")
    if folded is not None and shape is not None:
        parts.append(f"what int8 sees, the range after folding, is {_relative(folded)}")
        parts.append(f" and its ratio to the spread is {_relative(shape)}")
    elif raw_shape is not None:
        parts.append(f"relative to the spread of the weights it is {_relative(raw_shape)}")
    if others and not agree:
        parts.append("; the two disagree: rounding ignores the common factor in the raw range")
    parts.append(_accuracy(base_models, head_models))
    doses = [g.dose for g in (base, head)]
    if all(dose is not None and dose < VISIBLE for dose in doses):
        parts.append(f"; both doses are below {VISIBLE:g}, too small for decay to show")
    return "".join(parts) + "."


def change(
    base: Sequence[ModelReport], head: Sequence[ModelReport], metric: str, *, relative: bool
) -> Change | None:
    """Mean change of a summary metric, with a paired t interval over the seeds both groups have.

    Relative changes are taken per pair, head / base - 1. None where a figure is missing.
    """
    values = [{m.seed: getattr(m.summary, metric) for m in models} for models in (base, head)]
    common = [seed for seed in values[0] if seed in values[1]]
    pairs = [(values[0][s], values[1][s]) for s in common] if len(common) > 1 else []
    if not pairs and len(base) == len(head) == 1:
        pairs = [(next(iter(values[0].values())), next(iter(values[1].values())))]
    if not pairs or any(x is None or y is None or (relative and not x) for x, y in pairs):
        return None
    changes = np.array([y / x - 1 if relative else y - x for x, y in pairs])
    if len(changes) < 2:
        return Change(float(changes[0]), None, None, 1)
    half = stats.sem(changes) * stats.t.ppf(0.975, len(changes) - 1)
    mean = float(changes.mean())
    return Change(mean, float(mean - half), float(mean + half), len(changes))


def _relative(found: Change) -> str:
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f", 95 % interval {100 * found.low:+z.1f} to {100 * found.high:+z.1f} %"
    word = {-1: "smaller", 0: "not clearly different", 1: "larger"}[found.direction]
    return f"{word} ({100 * found.mean:+z.1f} %{interval})"


def _accuracy(base: Sequence[ModelReport], head: Sequence[ModelReport]) -> str:
    found = change(base, head, "int8_accuracy", relative=False)
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"; int8 accuracy changes by {100 * found.mean:+z.2f} pp (one pair: no interval)"
    word = {-1: "falls", 0: "does not clearly change", 1: "rises"}[found.direction]
    return (
        f"; int8 accuracy {word} ({100 * found.mean:+z.2f} pp, 95 % interval "
        f"{100 * found.low:+z.2f} to {100 * found.high:+z.2f} pp over {found.pairs} seeds)"
    )
