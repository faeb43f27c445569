"""A report for the terminal."""

import io
import shutil
from collections.abc import Iterable, Iterator

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from qwd.printable import printable
from qwd.report.figures import Report
from qwd.report.render import tables
from qwd.report.render.blocks import Block, Heading, Note, Table

NARROWEST = 40
WIDTH = 100
GAP = 2
# A dashed line under the header, in plain characters for consoles and logs of any encoding.
RULED = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
STYLES = {"plain": "", "warning": "yellow", "failure": "bold red"}


def render(
    report: Report,
    *,
    width: int | None = None,
    top: int | None = None,
    colour: bool = False,
    sort: str | None = None,
) -> str:
    """The report as tables for a terminal ``width`` columns wide (default: this one, else 100).

    ``top`` is the number of tensors shown of each model, worst first (default 10; 0: all),
    ``sort`` what orders them in place of the SQNR; ``colour`` adds ANSI codes.
    """
    return show(tables.blocks(report, top, sort), width=width, colour=colour)


def show(blocks: Iterable[Block], *, width: int | None = None, colour: bool = False) -> str:
    """A page of blocks as text; see `render`."""
    if width is None:
        width = shutil.get_terminal_size(fallback=(WIDTH, 24)).columns
    width = max(width, NARROWEST)
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        force_jupyter=False,
        color_system="standard" if colour else None,
        legacy_windows=False,
    )
    before: Block | None = None
    for block in blocks:
        if before and not (isinstance(before, Note) and isinstance(block, Note)):
            console.print()
        for i, part in enumerate(_parts(block, width)):
            if i:
                console.print()
            console.print(part)
        before = block
    text = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    return "".join(f"{line.rstrip()}\n" for line in text.split("\n")[:-1])


def _parts(block: Block, width: int) -> Iterator[Text | RichTable]:
    match block:
        case Heading(text):
            yield Text(printable(text), style="bold")
        case Note(text, kind):
            prefix = "warning: " if kind == "warning" else ""
            yield Text(prefix + printable(text), style=STYLES[kind])
        case Table():
            yield from _pieces(block, width)


def _pieces(table: Table, width: int) -> Iterator[RichTable]:
    """The table, or where it is too wide several below each other, its keys repeated.

    Folding is for names: a number on two lines would be read as two numbers.
    """
    cells = zip(table.header, *table.rows, strict=True)
    columns = [[printable(cell) for cell in column] for column in cells]
    longest = [width // 2, *[max(width // 3, 14)] * (len(columns) - 1)]
    widths = [min(max(map(cell_len, c)), most) for c, most in zip(columns, longest, strict=True)]
    piece = keys = list(range(table.keys))
    for column in range(table.keys, len(columns)):
        wider = [*piece, column]
        if piece != keys and sum(widths[i] + GAP for i in wider) - GAP > width:
            yield _rich(table, columns, piece, widths)
            wider = [*keys, column]
        piece = wider
    yield _rich(table, columns, piece, widths)


def _rich(table: Table, columns: list[list[str]], shown: list[int], widths: list[int]) -> RichTable:
    rich = RichTable(box=RULED, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for i in shown:
        rich.add_column(
            Text(columns[i][0]),
            justify="left" if table.is_text(i) else "right",
            overflow="fold",
            max_width=widths[i],
        )
    for number, row in enumerate(zip(*(columns[i][1:] for i in shown), strict=True)):
        style = STYLES["failure"] if number in table.failures else None
        rich.add_row(*map(Text, row), style=style)
    return rich
