"""A comparison of two reports as a page of blocks."""

from collections.abc import Iterator

from qwd.printable import printable
from qwd.report.compare import ModelComparison, ReportComparison, Row
from qwd.report.metrics import unit
from qwd.report.render import numbers
from qwd.report.render.blocks import Block, Heading, Note, Table


def blocks(compared: ReportComparison) -> list[Block]:
    """Every pair of models with all that changed, then the limits that are exceeded."""
    page: list[Block] = []
    for model in compared.models:
        page += [Heading(model.name), _table(model)]
    limits = sum(row.limit is not None for model in compared.models for row in model.rows)
    page += [Note(line, "failure") for line in compared.exceeded]
    exceeded = len(compared.exceeded)
    verdict = f"{exceeded or 'None'} of {limits} limits exceeded." if limits else "No limit given."
    page.append(Note(verdict))
    return page


def _table(model: ModelComparison) -> Table:
    return Table(
        header=("metric", "base", "head", "change", "limit", ""),
        words=("",),
        rows=tuple(tuple(_cells(row)) for row in model.rows),
        failures=tuple(i for i, row in enumerate(model.rows) if row.exceeded),
    )


def _cells(row: Row) -> Iterator[str]:
    yield row.metric
    yield numbers.figure(row.base, unit(row.metric))
    yield numbers.figure(row.head, unit(row.metric))
    yield _change(row)
    yield str(row.limit or "")
    yield "" if row.limit is None else "EXCEEDED" if row.exceeded else "within"


def _change(row: Row) -> str:
    if row.base is None or row.head is None:
        return numbers.NONE
    return numbers.change(row.base, row.head, unit(row.metric))


def failure(name: str, row: Row) -> str:
    """What exceeds a limit, in one line."""
    base, head = (numbers.figure(value, unit(row.metric)) for value in (row.base, row.head))
    what = f"{name}: {row.metric} {base} -> {head}"
    return printable(f"{what}, {_change(row)}, limit {row.limit}")
