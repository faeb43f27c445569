"""The answer to the question, for every combination of the three figures it rests on."""

import itertools
from dataclasses import replace

import pytest

from qwd.report.verdict import verdict
from qwd.report.verdict.answer import answer
from qwd.report.verdict.conclusion import conclusion, conclusions
from qwd.report.verdict.figures import Contrast
from qwd.report.verdict.words import OPPOSITES, Word

from .sweeps import two_decays

RANGES = (Word.MORE_COMPACT, Word.LESS_COMPACT, Word.EQUIVALENT, Word.UNDECIDED, None)
ACCURACIES = (Word.BETTER, Word.WORSE, Word.EQUIVALENT, Word.UNDECIDED, None)
EVERY = list(itertools.product(RANGES, RANGES, ACCURACIES))

OF_RANGES = {
    Word.MORE_COMPACT: "are more compact",
    Word.LESS_COMPACT: "are less compact",
    Word.EQUIVALENT: "stay equivalent within 5 %",
    Word.UNDECIDED: "are undecided",
    None: "were not measured",
}
REPLIES = {
    Word.MORE_COMPACT: "Yes: more compact at",
    Word.LESS_COMPACT: "No: less compact at",
    Word.BETTER: "Yes: better at",
    Word.WORSE: "No: worse at",
    Word.EQUIVALENT: "Not beyond the margin: equivalent at",
    Word.UNDECIDED: "Undecided at",
    None: "Not measured.",
}
QUESTIONS = (
    "Does more decay keep raw ranges more compact?",
    "Does it keep the ranges that int8 sees, after folding, more compact?",
    "Does it help int8 accuracy?",
)


def ranges_said(raw: Word | None, folded: Word | None) -> str:
    if raw is folded:
        return f"raw ranges and the ranges that int8 sees {OF_RANGES[raw]}"
    return f"raw ranges {OF_RANGES[raw]} and the ranges that int8 sees {OF_RANGES[folded]}"


def contrast(words: tuple[Word | None, ...], more: bool = True) -> Contrast:
    """A comparison with these words; None takes the figure away."""
    (one,) = verdict(two_decays()).settings[0].contrasts
    by: dict[str, Word | None] = dict(
        zip(("range", "folded_range", "int8_accuracy"), words, strict=True)
    )
    changes = [
        replace(c, word=(word := by.get(c.metric)), phrase=word and str(word))
        for c in one.changes
        if c.metric not in by or by[c.metric] is not None
    ]
    return replace(one, changes=tuple(changes), more_decay=more)


@pytest.mark.parametrize(("raw", "folded", "int8"), EVERY)
def test_the_conclusion_says_each_of_the_three_as_it_is(
    raw: Word | None, folded: Word | None, int8: Word | None
) -> None:
    said = conclusion(raw, folded, int8, "5 %", "5 %", "0.5 pp")
    ranges, _, worth = said.partition("; ")
    assert ranges == ranges_said(raw, folded)
    compact = Word.MORE_COMPACT in (raw, folded)
    assert worth.startswith("int8 accuracy is better") == (int8 is Word.BETTER)
    assert worth.startswith("int8 accuracy is worse") == (int8 is Word.WORSE)
    assert ("equivalent within 0.5 pp" in worth) == (int8 is Word.EQUIVALENT)
    assert ("undecided" in worth) == (int8 is Word.UNDECIDED)
    assert ("not measured" in worth) == (int8 is None)
    assert ("although a range is more compact" in worth) == (int8 is Word.WORSE and compact)
    assert ("does not help it" in worth) == (int8 is Word.EQUIVALENT and compact)
    unexplained = int8 is Word.BETTER and folded in (Word.EQUIVALENT, Word.LESS_COMPACT)
    assert ("do not explain" in worth) == unexplained


@pytest.mark.parametrize("words", EVERY)
@pytest.mark.parametrize("more", [True, False])
def test_the_paragraph_answers_each_question_by_its_own_figure(
    words: tuple[Word | None, ...], more: bool
) -> None:
    (setting,) = verdict(two_decays()).settings
    text = answer(setting.reference, [contrast(words, more)], 7)
    # Where the reference decays more, more decay is the other way round.
    turned = [word if more or word is None else OPPOSITES.get(word, word) for word in words]
    for question, word in zip(QUESTIONS, turned, strict=True):
        said = text.partition(f"{question} ")[2]
        expected = REPLIES[word]
        if not more and word is not None and word in OPPOSITES:
            # The finding stands as it was measured, at the decay that it was measured at.
            expected = f"{expected.partition(':')[0]}: {OPPOSITES[word]} at"
        assert said.startswith(expected), (question, word, said)
    first, second = ("wd 1e-4", "wd 1e-5")[:: 1 if more else -1]
    if any(words):
        assert f"With {first} in place of {second}, {ranges_said(*turned[:2])}; " in text


def test_decays_that_say_the_same_share_a_sentence() -> None:
    (setting,) = verdict(two_decays()).settings
    words = [
        (Word.MORE_COMPACT, Word.EQUIVALENT, Word.EQUIVALENT),
        (Word.MORE_COMPACT, Word.EQUIVALENT, Word.WORSE),
        (Word.MORE_COMPACT, Word.EQUIVALENT, Word.EQUIVALENT),
    ]
    contrasts = []
    for i, of_one in enumerate(words):
        made = contrast(of_one)
        contrasts.append(replace(made, arm=replace(made.arm, name=f"wd {i}")))
    first, second = conclusions(setting.reference, contrasts)
    assert first.startswith("With wd 0 and wd 2 in place of wd 1e-5, raw ranges are more compact")
    assert second.startswith("With wd 1 in place of wd 1e-5, ")
    assert second.endswith("int8 accuracy is worse, although a range is more compact.")


@pytest.mark.parametrize("more", [True, False])
@pytest.mark.parametrize("int8", ACCURACIES)
@pytest.mark.parametrize(("low", "high"), [(0.1, 2.0), (-2.0, -0.1), (-1.0, 1.0), (None, None)])
def test_float_accuracy_that_changes_alike_is_named(
    more: bool, int8: Word | None, low: float | None, high: float | None
) -> None:
    """What helps the float network too is no effect of quantization."""
    (setting,) = verdict(two_decays()).settings
    made = contrast((Word.MORE_COMPACT, Word.MORE_COMPACT, int8), more)
    changes = [
        replace(c, low=low, high=high) if c.metric == "float_accuracy" else c for c in made.changes
    ]
    (said,) = conclusions(setting.reference, [replace(made, changes=tuple(changes))])
    # Word and interval are of the arm, both turned round where the reference decays more.
    alike = low is not None and int8 is (Word.BETTER if low > 0 else Word.WORSE)
    decided = low is not None and high is not None and low * high > 0
    assert said.endswith(", as float accuracy is (exploratory).") == (alike and decided)


def test_many_combinations_are_counted() -> None:
    (setting,) = verdict(two_decays()).settings
    said = conclusions(setting.reference, [contrast(words) for words in EVERY[:20]])
    assert len(said) == 4
    assert said[-1] == "The words below say 17 more combinations."


def test_decays_that_differ_in_kind_have_no_conclusion() -> None:
    (setting,) = verdict(two_decays()).settings
    alike = replace(contrast((Word.MORE_COMPACT,) * 2 + (Word.BETTER,)), more_decay=None)
    assert conclusions(setting.reference, [alike]) == []
