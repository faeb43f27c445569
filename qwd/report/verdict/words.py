"""The words a verdict is made of: six, and none that calls a lack of evidence a result."""

from enum import StrEnum

MOST_SEEDS = 1000
"""more seeds than this are not counted"""


class Word(StrEnum):
    """What is decided about a figure of the primary family."""

    MORE_COMPACT = "more compact"
    LESS_COMPACT = "less compact"
    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


DIFFERENCES = (Word.MORE_COMPACT, Word.LESS_COMPACT, Word.BETTER, Word.WORSE)
OPPOSITES = {
    Word.MORE_COMPACT: Word.LESS_COMPACT,
    Word.LESS_COMPACT: Word.MORE_COMPACT,
    Word.BETTER: Word.WORSE,
    Word.WORSE: Word.BETTER,
}


def phrase(word: Word, *, margin: float, unit: str, more_seeds: int | None) -> str:
    """The word as it is printed: ``equivalent within 0.5 pp``.

    ``more_seeds`` is how many an undecided figure needs, None for more than 1,000.
    """
    if word is Word.EQUIVALENT:
        return f"{word} within {margin:g} {unit}"
    if word is Word.UNDECIDED:
        if more_seeds is None:
            return f"{word}: more than {MOST_SEEDS:,} more seeds needed"
        return f"{word}: about {more_seeds:,} more seed{'s' * (more_seeds != 1)} needed"
    return str(word)


def amount(value: float, unit: str) -> str:
    """A change with its sign: ``-10.02 %``."""
    return f"{value:+z.2f} {unit}"


def with_interval(mean: float, low: float | None, high: float | None, unit: str) -> str:
    """``-10.02 %, -10.51 to -9.53``; the interval is that of 95 %."""
    if low is None or high is None:
        return f"{amount(mean, unit)}, no interval"
    return f"{amount(mean, unit)}, {low:+z.2f} to {high:+z.2f}"
