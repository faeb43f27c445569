"""Groups of models side by side: a column per group, a row per figure, then the readings."""

from collections.abc import Iterator

from qwd.report.figures import Comparison, Group, Interval, QuantizedRow
from qwd.report.metrics import unit
from qwd.report.render import numbers
from qwd.report.render.blocks import Block, Heading, Note, Table

LABELS = {
    "range": "range, raw",
    "folded_range": "range, folded",
    "range_over_std": "range/std, raw",
    "folded_range_over_std": "range/std, folded",
    "outlier_rate_sigma4": "sigma>4 per million, raw",
    "folded_outlier_rate_sigma4": "sigma>4 per million, folded",
    "outlier_rate": "sigma>6 per million, raw",
    "folded_outlier_rate": "sigma>6 per million, folded",
    "sqnr_db": "SQNR, raw",
    "folded_sqnr_db": "SQNR, folded",
    "float_accuracy": "float accuracy",
    "int8_accuracy": "int8 accuracy",
    "drop_pp": "drop",
    "flip_rate": "flip rate",
}


def comparison(compared: Comparison, answered: bool) -> Iterator[Block]:
    """The table, in which the last of a series stands for it, then the sentences.

    Those are left out where a verdict with its corrected tests says the same.
    """
    passed = {name for each in compared.series for name in each.models[:-1]}
    groups = tuple(group for group in compared.groups if passed.isdisjoint(group.models))
    table = len(groups) > 1 or (groups and not passed)
    alone = passed and not table and not compared.quantized
    yield Heading("From the first to the last" if alone else "Side by side")
    if table:
        if any(group.wd is not None for group in groups):
            yield Note("mean ± standard deviation over seeds")
        yield Table(
            header=("", *(group.name for group in groups)),
            rows=tuple(
                (label, *cells)
                for label, cells in _rows(groups)
                if any(cell != numbers.NONE for cell in cells)
            ),
        )
    if compared.quantized:
        yield Note("float, post-training quantization (PTQ) and quantization-aware training (QAT)")
        yield _quantized(compared.quantized)
    if not answered:
        yield from (Note(reading) for reading in compared.readings)


def _quantized(rows: tuple[QuantizedRow, ...]) -> Table:
    """A row per decay and width; the setting is said where there are several."""
    several = len({row.setting for row in rows}) > 1
    setting = ("setting",) if several else ()
    accuracy = unit("float_accuracy")
    return Table(
        header=(*setting, "wd", "scheme", "bits", "float", "PTQ", "QAT", "QAT - PTQ, 95 %"),
        keys=len(setting) + 3,
        rows=tuple(
            (
                *((row.setting,) if several else ()),
                numbers.decay(row.wd),
                row.scheme,
                numbers.count(row.bits),
                *(
                    numbers.spread(found, accuracy)
                    for found in (row.float_accuracy, row.post_training, row.qat)
                ),
                _gain(row.gain_pp),
            )
            for row in rows
        ),
    )


def _gain(found: Interval | None) -> str:
    if found is None:
        return numbers.NONE
    if found.low is None or found.high is None:
        return f"{found.mean:+z.2f} pp (one pair)"
    return f"{found.mean:+z.2f} pp ({found.low:+z.2f} to {found.high:+z.2f}, n {found.pairs})"


def _rows(groups: tuple[Group, ...]) -> Iterator[tuple[str, list[str]]]:
    if any(group.wd is not None for group in groups):
        yield "seeds", [numbers.count(len(group.models)) for group in groups]
    yield "weight decay", [numbers.decay(group.wd) for group in groups]
    yield "dose", [numbers.digits(group.dose, 3) for group in groups]
    others = dict.fromkeys(name for group in groups for name in group.metrics)
    for metric in (*LABELS, *(name for name in others if name not in LABELS)):
        cells = [numbers.spread(group.metrics.get(metric), unit(metric)) for group in groups]
        yield LABELS.get(metric, metric), cells
