"""Two reports against each other: what changed, and which stated limits the change exceeds."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwd.errors import InputError, UsageError
from qwd.printable import printable
from qwd.registry import suggestion
from qwd.report import metrics
from qwd.report.figures import ModelReport, Report
from qwd.report.limits import Limit, parse_limit
from qwd.report.load import load_report

IDENTITY = (
    "scheme",
    "granularity",
    "weight_bits",
    "activation_bits",
    "backend",
    "engine",
    "observer",
)
"""What makes figures of two scheme results comparable."""

SHOWN = ("accuracy", "drop_pp", "flip_rate", "quantized_ops")
"""figures of every scheme that are shown without being asked for"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric in both reports, None where a report holds none."""

    metric: str
    base: float | None
    head: float | None
    limit: Limit | None = None

    @property
    def change(self) -> float | None:
        """head - base, in the metric's own unit."""
        return None if self.base is None or self.head is None else self.head - self.base

    @property
    def exceeded(self) -> bool:
        """Whether the change is over the row's limit."""
        if self.limit is None or self.base is None or self.head is None:
            return False
        return self.limit.exceeded_by(self.base, self.head)


@dataclass(frozen=True, kw_only=True)
class ModelComparison:
    """Two models that were matched, by their names in base and head."""

    base: str
    head: str
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        """What to call the pair."""
        return self.base if self.base == self.head else f"{self.base} -> {self.head}"


@dataclass(frozen=True, kw_only=True)
class ReportComparison:
    """Every matched pair of models; prints as tables."""

    models: tuple[ModelComparison, ...]

    @property
    def exceeded(self) -> tuple[str, ...]:
        """A line for every limit that is exceeded: model, metric, both values, change, limit."""
        from qwd.report.render.changes import failure

        return tuple(failure(m.name, row) for m in self.models for row in m.rows if row.exceeded)

    @property
    def exit_code(self) -> int:
        """1 where a limit is exceeded, else 0."""
        return int(any(row.exceeded for model in self.models for row in model.rows))

    def __str__(self) -> str:
        from qwd.report.render import changes, text

        return text.show(changes.blocks(self)).rstrip("\n")

    def to_markdown(self) -> str:
        """The same tables in GitHub-flavoured Markdown."""
        from qwd.report.render import changes, markdown

        return markdown.show(changes.blocks(self)).rstrip("\n")

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


def compare_files(
    base: Report | str | Path, head: Report | str | Path, *, fail_on: Iterable[str] = ()
) -> ReportComparison:
    """Compare two reports, each in memory, a report file, or a folder that holds one.

    ``fail_on`` are limits as ``--fail-on`` takes them. Raises what `parse_limit`, `load_report`
    and `compare` raise.
    """
    limits = [parse_limit(text) for text in fail_on]
    ours, theirs = (s if isinstance(s, Report) else load_report(s) for s in (base, head))
    return compare(ours, theirs, limits)


def compare(base: Report, head: Report, limits: Iterable[Limit] = ()) -> ReportComparison:
    """What changed from ``base`` to ``head``, model by model.

    Models are matched by name; two reports of one model each are matched whatever the names.
    Raises InputError where a model has no counterpart, was measured on other data or under
    another scheme of the same name, or lacks a figure that a limit is set on, and UsageError for
    two limits on the same metric in the same direction.
    """
    limits = tuple(limits)
    _check_unique(limits)
    pairs = _matched(base.models, head.models)
    for pair in pairs:
        _check_data(*pair)
        _check_schemes(*pair)
    return ReportComparison(
        models=tuple(
            ModelComparison(base=b.name, head=h.name, rows=tuple(_rows(b, h, limits)))
            for b, h in pairs
        )
    )


Pair = tuple[ModelReport, ModelReport]


def _check_unique(limits: Sequence[Limit]) -> None:
    texts: dict[tuple[str, int], list[str]] = {}
    for limit in limits:
        texts.setdefault((limit.metric, limit.direction), []).append(limit.text)
    for (metric, _), several in texts.items():
        if len(several) > 1:
            given = " and ".join(several)
            raise UsageError(f"--fail-on {metric!r}: {given} given, expected one of them")


def _matched(base: Sequence[ModelReport], head: Sequence[ModelReport]) -> list[Pair]:
    for side, models in (("base", base), ("head", head)):
        if not models:
            raise InputError(f"the {side} report holds no models, expected at least one")
    if len(base) == len(head) == 1:
        return [(base[0], head[0])]
    ours, theirs = _by_name(base, "base"), _by_name(head, "head")
    for side, models, other, others in (
        ("base", ours, "head", theirs),
        ("head", theirs, "base", ours),
    ):
        for name in models:
            if name not in others:
                near = printable(suggestion(name, others))
                raise InputError(f"model {name!r} of {side} has no counterpart in {other}: {near}")
    return [(model, theirs[name]) for name, model in ours.items()]


def _by_name(models: Sequence[ModelReport], side: str) -> dict[str, ModelReport]:
    found = {model.name: model for model in models}
    if len(found) < len(models):
        ((name, n),) = Counter(model.name for model in models).most_common(1)
        raise InputError(f"{side} holds {n} models called {name!r}, expected different names")
    return found


def _check_data(base: ModelReport, head: ModelReport) -> None:
    theirs = (head.data.sha256, head.data.n) if head.data else None
    if base.data and head.data and (base.data.sha256, base.data.n) != theirs:
        ours, theirs = (
            f"{printable(d.name)} {printable(d.split)} (n {d.n}, sha256 {d.sha256[:12]})"
            for d in (base.data, head.data)
        )
        raise InputError(
            f"model {base.name!r} was measured on other data: {ours} in base, {theirs} in head; "
            "expected the same images, labels and normalisation"
        )


def _check_schemes(base: ModelReport, head: ModelReport) -> None:
    for name, ours in base.schemes.items():
        theirs = head.schemes.get(name, ours)
        different = [
            f"{field} {getattr(ours, field)!r} in base and {getattr(theirs, field)!r} in head"
            for field in IDENTITY
            if getattr(ours, field) != getattr(theirs, field)
        ]
        if different:
            raise InputError(
                f"{printable(name)} of model {base.name!r} is not the same scheme in both reports: "
                f"{', '.join(different)}; expected accuracies under one scheme"
            )


def _rows(base: ModelReport, head: ModelReport, limits: Sequence[Limit]) -> Iterable[Row]:
    schemes = dict.fromkeys((*base.schemes, *head.schemes))
    names = [*metrics.SUMMARY, *metrics.MODEL]
    for scheme in schemes:
        # The summary holds the first three of int8.
        shown = SHOWN[3:] if scheme == metrics.INT8 else SHOWN
        names += [f"schemes.{scheme}.{field}" for field in shown]
    for metric in dict.fromkeys((*names, *(limit.metric for limit in limits))):
        values = metrics.figure(base, metric), metrics.figure(head, metric)
        set_on_it = [limit for limit in limits if limit.metric == metric]
        for limit in set_on_it:
            _check_present(limit, base, head)
        if set_on_it or values != (None, None):
            for limit in set_on_it or [None]:
                yield Row(metric=metric, base=values[0], head=values[1], limit=limit)


def _check_present(limit: Limit, base: ModelReport, head: ModelReport) -> None:
    for side, model in (("base", base), ("head", head)):
        if metrics.figure(model, limit.metric) is None:
            schemes = ", ".join(map(printable, model.schemes)) or "none"
            data = f"data: {printable(model.data.name) if model.data else 'none'}"
            raise InputError(
                f"the limit {limit} on {printable(limit.metric)} needs the figure in both "
                f"reports; {side} holds none for model {model.name!r} ({data}; schemes: {schemes})"
            )
