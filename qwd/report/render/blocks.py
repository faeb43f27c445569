"""What a page is made of, before it is text or Markdown: headings, notes and tables of strings.

The strings are as they came: names in them may hold markup, and each writer escapes its own.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Heading:
    """The start of a part of the page."""

    text: str


@dataclass(frozen=True)
class Note:
    """A line of words; a ``warning`` or a ``failure`` stands out where colours exist."""

    text: str
    kind: Literal["plain", "warning", "failure"] = "plain"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as strings, as many in a row as there are columns in the header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: int = 1
    """leading columns that say what a row is about"""
    words: tuple[str, ...] = ()
    """columns of text; keys are, and all others hold numbers"""
    failures: tuple[int, ...] = ()
    """rows that stand out"""

    def is_text(self, column: int) -> bool:
        """Whether a column is aligned to the left."""
        return column < self.keys or self.header[column] in self.words


Block = Heading | Note | Table
