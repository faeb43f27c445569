"""What a comparison says, in sentences: does a compact raw range mean a compact int8 model?"""

from collections.abc import Iterator, Sequence

from qwd.decay.dose import VISIBLE
from qwd.report.figures import Group, Interval, ModelReport
from qwd.report.intervals import FLOAT32, interval, one_image

NOTICEABLE = 0.01
"""Relative changes below 1 % are not called smaller or larger where no interval exists."""

Groups = Sequence[tuple[Group, Sequence[ModelReport]]]
Pairs = Sequence[tuple[ModelReport, ModelReport]]


def direction(found: Interval) -> int:
    """-1, 0 or 1: the sign that the interval, or failing that the size, supports."""
    if found.low is None or found.high is None:
        return 0 if abs(found.mean) < NOTICEABLE else (1 if found.mean > 0 else -1)
    return -1 if found.high < 0 else 1 if found.low > 0 else 0


def readings(groups: Groups) -> Iterator[str]:
    """One sentence per group against the first."""
    (base, base_models), *others = groups
    for head, head_models in others:
        yield reading(base, head, paired(base_models, head_models))


def paired(base: Sequence[ModelReport], head: Sequence[ModelReport]) -> Pairs:
    """The models of two groups that share a seed; none where a group has a seed twice."""
    sides = [{m.seed: m for m in models} for models in (base, head)]
    if len(sides[0]) < len(base) or len(sides[1]) < len(head):
        return []
    return [(model, sides[1][seed]) for seed, model in sides[0].items() if seed in sides[1]]


def reading(base: Group, head: Group, pairs: Pairs) -> str:
    """Raw range, range after folding and int8 accuracy of ``head`` against ``base``, in words."""
    start = f"{head.name} against {base.name}"
    if not pairs:
        return f"{start}: no seed in common, or one twice, so that nothing can be paired."
    raw = change(pairs, "range", relative=True)
    if raw is None:
        return f"{start}: no weights to compare."
    folded = change(pairs, "folded_range", relative=True)
    shape = change(pairs, "folded_range_over_std", relative=True)
    if folded is not None and shape is not None:
        others = [folded, shape]
        link = ", but" if direction(folded) == direction(raw) != direction(shape) else " and"
        words = (
            f"what int8 sees, the range after folding, is {_relative(folded)}"
            f"{link} its ratio to the spread is {_relative(shape)}"
        )
    else:
        ratio = change(pairs, "range_over_std", relative=True)
        others = [ratio] if ratio is not None else []
        words = f"relative to the spread of the weights it is {_relative(ratio)}" if ratio else ""
    agree = all(direction(other) == direction(raw) for other in others)
    parts = [f"{start}: the raw range is {_relative(raw)}"]
    if words:
        parts.append(f", {'and' if direction(others[0]) == direction(raw) else 'but'} {words}")
    if not agree and direction(raw):
        parts.append("; the two disagree: rounding ignores the common factor in the raw range")
    elif not agree:
        parts.append("; the raw range does not show it")
    parts.append(_accuracy(pairs))
    if len(pairs) == 1:
        parts.append("; one pair, so no interval")
    if all(group.dose is not None and group.dose < VISIBLE for group in (base, head)):
        parts.append(f"; both doses are below {VISIBLE:g}, too small for decay to show")
    return "".join(parts) + "."


def change(pairs: Pairs, metric: str, *, relative: bool) -> Interval | None:
    """Mean change of a summary metric over pairs, with the paired t interval (95 %).

    Relative changes are taken per pair, head / base - 1. None where a figure is missing.
    """
    values = [(getattr(b.summary, metric), getattr(h.summary, metric)) for b, h in pairs]
    if not values or any(x is None or y is None or (relative and not x) for x, y in values):
        return None
    if relative:
        return interval([y / x - 1 for x, y in values], FLOAT32)
    return interval(
        [y - x for x, y in values], one_image([model for pair in pairs for model in pair])
    )


def _relative(found: Interval) -> str:
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f", 95 % interval {100 * found.low:+z.2f} to {100 * found.high:+z.2f} %"
    word = {-1: "smaller", 0: "not clearly different", 1: "larger"}[direction(found)]
    return f"{word} ({100 * found.mean:+z.2f} %{interval})"


def _accuracy(pairs: Pairs) -> str:
    found = change(pairs, "int8_accuracy", relative=False)
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"; int8 accuracy changes by {100 * found.mean:+z.2f} pp"
    word = {-1: "falls", 0: "does not clearly change", 1: "rises"}[direction(found)]
    return (
        f"; int8 accuracy {word} ({100 * found.mean:+z.2f} pp, 95 % interval "
        f"{100 * found.low:+z.2f} to {100 * found.high:+z.2f} pp over {found.pairs} seeds)"
    )
