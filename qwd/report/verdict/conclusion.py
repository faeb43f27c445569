"""What three words say together: of the raw range, of what int8 sees, and of int8 accuracy.

The words are those of the decay that is larger: where that is the reference they are turned round.
"""

from collections.abc import Sequence

from qwd.report.verdict.figures import Arm, Change, Contrast
from qwd.report.verdict.margins import PRIMARY
from qwd.report.verdict.words import OPPOSITES, Word

SHOWN = 3
"""decays, or conclusions, that are named; the others are counted"""

NOT_MEASURED, UNDECIDED = "were not measured", "are undecided"


def conclusions(reference: Arm, contrasts: Sequence[Contrast]) -> list[str]:
    """A sentence for each combination of words that there is, of the decays that share it."""
    found: dict[tuple[bool, str], list[str]] = {}
    for contrast in contrasts:
        if contrast.more_decay is None or not contrast.changes:
            continue
        raw, folded, int8 = (of_more_decay(contrast, metric) for metric in PRIMARY)
        margins = [_margin(contrast, metric) for metric in PRIMARY]
        said = conclusion(raw, folded, int8, *margins, float_too=_float_too(contrast, int8))
        found.setdefault((contrast.more_decay, said), []).append(contrast.arm.name)
    made = [
        f"With {some(arms) if more else reference.name} in place of "
        f"{reference.name if more else some(arms)}, {said}."
        for (more, said), arms in found.items()
    ]
    left = len(made) - SHOWN
    return made[:SHOWN] + [f"The words below say {left} more combinations."] * (left > 0)


def conclusion(
    raw: Word | None,
    folded: Word | None,
    int8: Word | None,
    raw_margin: str = "the margin",
    folded_margin: str = "the margin",
    int8_margin: str = "the margin",
    float_too: bool = False,
) -> str:
    """What more decay does to the ranges and what that is worth, as the end of a sentence.

    None: the figure was not measured. ``float_too``: float accuracy changes the same way.
    """
    states = _state(raw, raw_margin), _state(folded, folded_margin)
    between = "" if states[0] == states[1] else f"{states[0]} "
    worth = _worth(raw, folded, int8, int8_margin)
    also = ", as float accuracy is (exploratory)" if float_too else ""
    return f"raw ranges {between}and the ranges that int8 sees {states[1]}; {worth}{also}"


def _state(word: Word | None, margin: str) -> str:
    if word is None:
        return NOT_MEASURED
    if word is Word.UNDECIDED:
        return UNDECIDED
    return f"stay equivalent within {margin}" if word is Word.EQUIVALENT else f"are {word}"


def _worth(raw: Word | None, folded: Word | None, int8: Word | None, margin: str) -> str:
    """What becomes of int8 accuracy, and whether the ranges can be why."""
    compact = Word.MORE_COMPACT in (raw, folded)
    if int8 is None:
        return "int8 accuracy was not measured"
    if int8 is Word.UNDECIDED:
        return (
            "whether that helps int8 is undecided"
            if compact
            else ("whether more decay helps int8 is undecided")
        )
    if int8 is Word.EQUIVALENT:
        effect = f"int8 accuracy stays equivalent within {margin}"
        return (
            f"{effect}: the more compact range does not help it beyond that" if compact else effect
        )
    if int8 is Word.WORSE:
        return f"int8 accuracy is worse{', although a range is more compact' if compact else ''}"
    if folded in (Word.EQUIVALENT, Word.LESS_COMPACT):
        return "int8 accuracy is better, which the ranges that it sees do not explain"
    return "int8 accuracy is better"


def of_more_decay(contrast: Contrast, metric: str) -> Word | None:
    """The word of a figure where the decay that is larger takes the place of the other.

    None where it was not measured, or neither decay is the larger one.
    """
    change = change_of(contrast, metric)
    if change is None or change.word is None or contrast.more_decay is None:
        return None
    return change.word if contrast.more_decay else OPPOSITES.get(change.word, change.word)


def change_of(contrast: Contrast, metric: str) -> Change | None:
    """The change of one figure; None where it was not measured."""
    return next((change for change in contrast.changes if change.metric == metric), None)


def some(items: Sequence[str]) -> str:
    """``a, b and c``, or ``a, b, c and 4 more``."""
    if len(items) > SHOWN:
        return f"{', '.join(items[:SHOWN])} and {len(items) - SHOWN} more"
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))


def _float_too(contrast: Contrast, int8: Word | None) -> bool:
    """Whether the interval of float accuracy lies where int8 accuracy is better or worse."""
    change = change_of(contrast, "float_accuracy")
    if change is None or change.low is None or change.high is None:
        return False
    rises, falls = change.low > 0, change.high < 0
    if not contrast.more_decay:
        rises, falls = falls, rises
    return (int8 is Word.BETTER and rises) or (int8 is Word.WORSE and falls)


def _margin(contrast: Contrast, metric: str) -> str:
    change = change_of(contrast, metric)
    return f"{change.margin:g} {change.unit}" if change else "the margin"
