"""The tables of weights: tensor by tensor, kernel by kernel, kind by kind."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from qwd.quantize.figures import WeightFigures
from qwd.report.figures import ChannelReport, DeployedReport, ModelReport, TensorReport
from qwd.report.render import numbers
from qwd.report.render.blocks import Block, Note, Table

RULE = "sigma>6"
SORTS: dict[str, tuple[Callable[[TensorReport], float | str | None], bool]] = {
    "sqnr": (lambda t: (t.folded or t.figures).sqnr_db, False),
    "range": (lambda t: (t.folded or t.figures).range, True),
    "range_over_std": (lambda t: (t.folded or t.figures).range_over_std, True),
    "kurtosis": (lambda t: (t.folded or t.figures).kurtosis, True),
    "outliers": (lambda t: (t.folded or t.figures).outliers.get(RULE), True),
    "crowding": (lambda t: (t.folded or t.figures).crowding, True),
    "gain": (lambda t: c.gain_db if (c := _channels(t)) else None, True),
    "spread": (lambda t: c.spread if (c := _channels(t)) else None, True),
    "dead": (lambda t: c.dead if (c := _channels(t)) else None, True),
    "numel": (lambda t: t.figures.numel, True),
    "name": (lambda t: t.name, False),
}
"""What tensors can be sorted by, as deployed where that is known; True: the largest first"""


def tensors(
    every: Sequence[TensorReport], top: int | None, sort: str | None = None
) -> Iterator[Block]:
    """A row per tensor as stored, and one as folded, the worst ``top`` of them."""
    found = [figures for t in every for figures in (t.figures, t.folded) if figures]
    extra = _Extra(found, [c for t in every for c in (t.channels, t.folded_channels) if c])
    rules = _rules(found)
    rows: list[tuple[str, ...]] = []
    for tensor in _sorted(every, sort or "sqnr")[:top]:
        own = extra.cells(tensor.figures, tensor.channels)
        rows.append((tensor.name, "raw", *_cells(tensor.figures, rules), *own))
        if tensor.folded:
            own = extra.cells(tensor.folded, tensor.folded_channels)
            first = f"  {tensor.norm}" if tensor.norm else ""
            rows.append((first, "folded", *_cells(tensor.folded, rules), *own))
    header = ("tensor", "as", *_columns(rules), *extra.columns)
    yield Table(header=header, rows=tuple(rows), keys=2)
    yield from _cut(top, len(every), "tensors", sort)


def deployed(kernels: Sequence[DeployedReport], top: int | None) -> Iterator[Block]:
    """A row per kernel that several tensors become."""
    every = [kernel.figures for kernel in kernels]
    extra = _Extra(every, [k.channels for k in kernels if k.channels])
    rules = _rules(every)
    worst = sorted(kernels, key=lambda kernel: _badness(kernel.figures))[:top]
    yield Table(
        header=("deployed kernel", "made of", *_columns(rules), *extra.columns),
        words=("made of",),
        rows=tuple(
            (
                k.name,
                " + ".join(k.sources),
                *_cells(k.figures, rules),
                *extra.cells(k.figures, k.channels),
            )
            for k in worst
        ),
    )
    yield from _cut(top, len(kernels), "deployed kernels", None)


def kinds(model: ModelReport) -> Iterator[Block]:
    """What the tensors are, where that is known: weights by kind, then what is not counted."""
    groups: dict[str, list[TensorReport]] = {}
    for tensor in model.tensors:
        if tensor.kind:
            groups.setdefault(tensor.kind, []).append(tensor)
    if not groups:
        return
    rows = [
        (
            kind,
            numbers.count(len(found)),
            numbers.count(sum(t.figures.numel for t in found)),
            numbers.decibel(
                min(_existing((t.folded or t.figures).sqnr_db for t in found), default=None)
            ),
            numbers.decibel(
                max(_existing(c.gain_db for t in found if (c := _channels(t))), default=None)
            ),
        )
        for kind, found in groups.items()
    ]
    rows += [
        (v.kind, numbers.count(v.tensors), numbers.count(v.elements), numbers.NONE, numbers.NONE)
        for v in model.vectors
    ]
    yield Table(
        header=("kind", "tensors", "elements", "worst SQNR dB", "most per-channel gain dB"),
        rows=tuple(rows),
    )


class _Extra:
    """Columns that only some reports have: other widths, and channels."""

    def __init__(self, figures: Sequence[WeightFigures], channels: Sequence[ChannelReport]):
        self.bits = sorted({each.bits for f in figures for each in f.widths}, reverse=True)
        self.channels = bool(channels)
        widths = tuple(f"SQNR dB, {bits} bits" for bits in self.bits)
        self.columns = widths + (("gain dB", "spread", "dead") if self.channels else ())

    def cells(self, figures: WeightFigures, channels: ChannelReport | None) -> tuple[str, ...]:
        """Of one row; gain, spread and dead channels are those of a scale per channel."""
        at = {each.bits: each.sqnr_db for each in figures.widths}
        found = tuple(numbers.decibel(at.get(bits)) for bits in self.bits)
        if not self.channels:
            return found
        if channels is None:
            return (*found, *[numbers.NONE] * 3)
        spread, dead = numbers.digits(channels.spread, 3), numbers.count(channels.dead)
        return (*found, numbers.decibel(channels.gain_db), spread, dead)


def _channels(tensor: TensorReport) -> ChannelReport | None:
    return tensor.folded_channels or tensor.channels


def _existing(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _sorted(every: Sequence[TensorReport], sort: str) -> list[TensorReport]:
    """Those without the figure stand last."""
    key, descending = SORTS[sort]
    having = [tensor for tensor in every if key(tensor) is not None]
    having.sort(key=lambda t: key(t), reverse=descending)  # type: ignore[arg-type, return-value]
    return having + [tensor for tensor in every if key(tensor) is None]


def _badness(figures: WeightFigures) -> float:
    """Ascending from the worst: lowest SQNR first, those without one last."""
    return figures.sqnr_db if figures.sqnr_db is not None else float("inf")


def _cut(top: int | None, n: int, what: str, sort: str | None) -> Iterator[Note]:
    if top is not None and n > top:
        first = f"worst {top} of {n} {what} by SQNR"
        if sort is not None:
            first = f"first {top} of {n} {what} by {sort}"
        yield Note(f"The {first}; --top N shows more.")


def _rules(every: Iterable[WeightFigures]) -> list[str]:
    """The outlier rules in use, the one of the summary first."""
    rules = dict.fromkeys(rule for figures in every for rule in figures.outliers)
    return sorted(rules, key=lambda rule: rule != RULE)


def _columns(rules: list[str]) -> tuple[str, ...]:
    figures = ("SQNR dB", "expected", "kurtosis", "codes", "crowding")
    return ("range", "range/std", *rules[:1], *figures, *rules[1:])


def _cells(figures: WeightFigures, rules: list[str]) -> tuple[str, ...]:
    outliers = [numbers.count(figures.outliers.get(rule)) for rule in rules]
    return (
        numbers.digits(figures.range),
        numbers.digits(figures.range_over_std),
        *outliers[:1],
        numbers.decibel(figures.sqnr_db),
        numbers.decibel(figures.sqnr_expected_db),
        numbers.digits(figures.kurtosis),
        numbers.count(figures.codes_used),
        numbers.digits(figures.crowding),
        *outliers[1:],
    )
