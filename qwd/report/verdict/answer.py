"""The question of the project, answered in sentences that say no more than the tests do.

Does more decay keep raw ranges more compact; does what int8 sees follow; does int8 accuracy?
"""

import math
from collections import Counter
from collections.abc import Sequence

from qwd.report.verdict.conclusion import change_of, conclusions, of_more_decay, some
from qwd.report.verdict.figures import Arm, Change, Contrast, Estimate
from qwd.report.verdict.words import Word, with_interval


def answer(reference: Arm, contrasts: Sequence[Contrast], least: int) -> str:
    """What the contrasts with one reference say, a line for each thought.

    ``least`` is how many pairs a test needs.
    """
    sentences = [
        f"Against {reference.name}, {_pairs(contrasts)}, with 95 % intervals in brackets.",
        *conclusions(reference, contrasts),
        _reply(
            "Does more decay keep raw ranges more compact?",
            [_says_yes(c, "range", Word.MORE_COMPACT) for c in contrasts],
            _findings("range", contrasts),
        ),
        _reply(
            "Does it keep the ranges that int8 sees, after folding, more compact?",
            [_says_yes(c, "folded_range", Word.MORE_COMPACT) for c in contrasts],
            _findings("folded_range", contrasts),
        ),
        _exploratory(
            "Their change relative to the spread of the weights",
            "folded_range_over_std",
            contrasts,
        ),
        _reply(
            "Does it help int8 accuracy?",
            [_says_yes(c, "int8_accuracy", Word.BETTER) for c in contrasts],
            _findings("int8_accuracy", contrasts),
        ),
        _exploratory("Float accuracy changes by", "float_accuracy", contrasts),
        _disagreements(contrasts),
        _factors(contrasts),
        _too_few(contrasts, least),
    ]
    return "\n".join(sentence for sentence in sentences if sentence)


def _pairs(contrasts: Sequence[Contrast]) -> str:
    few, many = min(len(c.seeds) for c in contrasts), max(len(c.seeds) for c in contrasts)
    if few == many:
        return f"paired over {few} seed{'s' * (few != 1)}"
    return f"paired over {few} to {many} seeds"


def _says_yes(contrast: Contrast, metric: str, yes: Word) -> str | None:
    """Whether more decay gives the word ``yes``."""
    word = of_more_decay(contrast, metric)
    if word is None:
        return None
    if word in (Word.UNDECIDED, Word.EQUIVALENT):
        return {Word.UNDECIDED: "undecided", Word.EQUIVALENT: "not beyond the margin"}[word]
    return "yes" if word is yes else "no"


def _reply(question: str, replies: Sequence[str | None], findings: str) -> str:
    """``Yes in 2 of 3 comparisons, undecided in 1: ...``; the reply alone where there is one."""
    if not findings:
        return f"{question} Not measured."
    known = [reply for reply in replies if reply is not None]
    if not known:
        return f"{question} The decays differ in kind: {findings}."
    (first, n), *others = Counter(known).most_common()
    if first == "undecided" and not others:
        return f"{question} {findings[0].upper()}{findings[1:]}."
    text = first
    if len(known) > 1:
        of = f"{n} of {len(known)}" if others else "both" if n == 2 else f"all {n}"
        text = f"{first} in {of} comparisons"
    text += "".join(f", {reply} in {count}" for reply, count in others)
    return f"{question} {text[0].upper()}{text[1:]}: {findings}."


def _findings(metric: str, contrasts: Sequence[Contrast]) -> str:
    """The figure at each decay, decays with the same words together."""
    by_phrase: dict[str, list[tuple[Contrast, Change]]] = {}
    for contrast in contrasts:
        change = change_of(contrast, metric)
        if change is not None:
            by_phrase.setdefault(str(change.phrase), []).append((contrast, change))
    return "; ".join(f"{phrase} at {_named(found)}" for phrase, found in by_phrase.items())


def _named(found: Sequence[tuple[Contrast, Change]]) -> str:
    """Decays with their changes and intervals, the largest changes first."""
    largest = sorted(found, key=lambda pair: -abs(pair[1].mean))
    return some([f"{contrast.arm.name} ({_numbers(c)})" for contrast, c in largest])


def _numbers(change: Change) -> str:
    return with_interval(change.mean, change.low, change.high, change.unit)


def _exploratory(what: str, metric: str, contrasts: Sequence[Contrast]) -> str:
    """A figure that is not tested, at each decay."""
    pairs = [(c, change_of(c, metric)) for c in contrasts]
    found = [(c, change) for c, change in pairs if change is not None]
    return f"{what} (exploratory): {_named(found)}." if found else ""


def _disagreements(contrasts: Sequence[Contrast]) -> str:
    """Where raw range, folded range and accuracy are decided and do not say the same."""
    where: dict[str, list[str]] = {}
    for contrast in contrasts:
        raw = change_of(contrast, "range")
        if raw is None or raw.word in (None, Word.UNDECIDED):
            continue
        better = {Word.MORE_COMPACT: Word.BETTER, Word.LESS_COMPACT: Word.WORSE}
        expected = {
            "folded_range": ("the folded range", raw.word),
            "int8_accuracy": ("int8 accuracy", better.get(raw.word, Word.EQUIVALENT)),
        }
        others = [
            f"{what} is {change.phrase}"
            for metric, (what, word) in expected.items()
            if (change := change_of(contrast, metric)) and change.word not in (word, Word.UNDECIDED)
        ]
        if others:
            text = f"the raw range is {raw.phrase}, but {' and '.join(others)}"
            where.setdefault(text, []).append(contrast.arm.name)
    if not where:
        return ""
    return f"They disagree: {'; '.join(f'at {some(at)} {text}' for text, at in where.items())}."


def _factors(contrasts: Sequence[Contrast]) -> str:
    """The change of the raw range as common factor times shape, largest first."""
    split = [(c, c.raw) for c in contrasts if c.raw is not None]
    split.sort(key=lambda pair: -abs(pair[1].total.mean))
    if not split:
        return ""
    said = [
        f"{contrast.arm.name} ({math.exp(parts.total.mean):.3f} = {_factor(parts.scale)} common x "
        f"{_factor(parts.shape)} shape)"
        for contrast, parts in split
    ]
    return (
        "The ratio of raw ranges is a factor common to the weights of a tensor, which rounding "
        f"with scale = (b-a)/255 ignores, times one of shape: {some(said)}."
    )


def _factor(log: Estimate) -> str:
    """exp of a mean logarithm with its interval."""
    if log.low is None or log.high is None:
        return f"{math.exp(log.mean):.3f}"
    return f"{math.exp(log.mean):.3f} [{math.exp(log.low):.3f} to {math.exp(log.high):.3f}]"


def _too_few(contrasts: Sequence[Contrast], least: int) -> str:
    few = [contrast.arm.name for contrast in contrasts if len(contrast.seeds) < least]
    if not few:
        return ""
    return f"No test is claimed at {some(few)}: fewer than {least} seeds cannot reject."
