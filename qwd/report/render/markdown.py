"""A report for pull requests and notebooks."""

import re
from collections.abc import Iterable, Iterator

from qwd.printable import printable
from qwd.report.figures import Report
from qwd.report.render import tables
from qwd.report.render.blocks import Block, Heading, Note, Table

# An underscore within a word is no emphasis, and names are full of them.
SPECIAL = re.compile(r"[\\`*\[\]|~#$!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def render(report: Report, *, top: int | None = None, sort: str | None = None) -> str:
    """The report as GitHub-flavoured Markdown; ``top`` and ``sort`` as in the text."""
    return show(tables.blocks(report, top, sort))


def show(blocks: Iterable[Block]) -> str:
    """A page of blocks as Markdown."""
    return "\n".join("\n".join(_lines(block)) + "\n" for block in blocks)


def escape(text: str) -> str:
    """``text`` as Markdown that reads as the same text: no markup, no HTML, one line."""
    return SPECIAL.sub(r"\\\g<0>", re.sub("[&<>]", lambda m: HTML[m[0]], printable(text)))


def _lines(block: Block) -> Iterator[str]:
    match block:
        case Heading(text):
            yield f"## {escape(text)}"
        case Note(text, "plain"):
            # What would start a list or a line of code at the beginning of a paragraph.
            yield re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", escape(text.strip()))
        case Note(text, kind):
            yield f"- **{kind}:** {escape(text)}"
        case Table():
            columns = range(len(block.header))
            yield _row(map(escape, block.header))
            yield _row(":---" if block.is_text(i) else "---:" for i in columns)
            for row in block.rows:
                yield _row(map(escape, row))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
