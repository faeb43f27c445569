"""The vocabulary, to the letter."""

import pytest

from qwd.report.verdict.margins import EXPLORATORY, OF_A_SCHEME, PRIMARY
from qwd.report.verdict.words import Word, amount, phrase, with_interval


@pytest.mark.parametrize(
    ("word", "unit", "margin", "more", "said"),
    [
        (Word.MORE_COMPACT, "%", 5, None, "more compact"),
        (Word.LESS_COMPACT, "%", 5, None, "less compact"),
        (Word.BETTER, "pp", 0.5, None, "better"),
        (Word.WORSE, "pp", 0.5, None, "worse"),
        (Word.EQUIVALENT, "pp", 0.5, None, "equivalent within 0.5 pp"),
        (Word.EQUIVALENT, "%", 5.0, None, "equivalent within 5 %"),
        (Word.UNDECIDED, "pp", 0.5, 12, "undecided: about 12 more seeds needed"),
        (Word.UNDECIDED, "pp", 0.5, 1, "undecided: about 1 more seed needed"),
        (Word.UNDECIDED, "pp", 0.5, None, "undecided: more than 1,000 more seeds needed"),
    ],
)
def test_phrases(word: Word, unit: str, margin: float, more: int | None, said: str):
    assert phrase(word, margin=margin, unit=unit, more_seeds=more) == said


def test_there_are_no_other_words():
    assert [str(word) for word in Word] == [
        *("more compact", "less compact", "better", "worse", "equivalent", "undecided")
    ]


def test_amounts():
    assert amount(-10.021, "%") == "-10.02 %"
    assert amount(-0.001, "pp") == "+0.00 pp"
    assert with_interval(0.4, -0.1, 0.9, "pp") == "+0.40 pp, -0.10 to +0.90"
    assert with_interval(0.4, None, None, "pp") == "+0.40 pp, no interval"


def test_every_figure_has_a_margin_with_a_reason():
    figures = {**PRIMARY, **EXPLORATORY, **OF_A_SCHEME}
    assert all(figure.margin > 0 and figure.reason for figure in figures.values())
    assert [name for name, figure in figures.items() if figure.primary] == [
        *("range", "folded_range", "int8_accuracy")
    ]
