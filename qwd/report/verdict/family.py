"""The primary family: corrected tests, and from them the words."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from qwd.report.verdict.equivalence import equivalence_p, seeds_to_decide
from qwd.report.verdict.figures import Change
from qwd.report.verdict.margins import Figure
from qwd.report.verdict.paired import ALPHA, fewest, interval, sign_flip_p, spread
from qwd.report.verdict.words import Word, phrase

FEWEST_FOR_AN_INTERVAL = 3
"""pairs from which an interval is not called doubtful"""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Paired changes of one figure, one for each seed."""

    metric: str
    kind: Figure
    changes: tuple[float, ...]
    """in the unit of the figure's kind"""
    signed: tuple[float, ...]
    """what the sign-flip test takes: turns its sign where the two runs are swapped"""
    step: float
    """the smallest change that the measurement shows, in that unit; above 0"""
    reference: float
    other: float


def holm(p: Sequence[float], tests: int) -> list[float]:
    """p adjusted by Holm's step-down method for a family of ``tests`` >= len(p).

        p_(i) -> max over j <= i of (tests - j + 1) p_(j),  at most 1

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    order = sorted(range(len(p)), key=p.__getitem__)
    adjusted = [1.0] * len(p)
    least = 0.0
    for rank, i in enumerate(order):
        least = max(least, min((tests - rank) * p[i], 1.0))
        adjusted[i] = least
    return adjusted


def decided(samples: Sequence[Sample], tests: int) -> list[Change]:
    """A change with its interval for every sample, and for primary ones tests and a word.

    ``tests`` is the size of the whole family, primary samples of other calls and those that do not
    exist included. A difference and an equivalence are each corrected by Holm's method, at 5 %.
    """
    changes = [_measured(sample, tests) for sample in samples]
    tested = [i for i, change in enumerate(changes) if change.p is not None]
    p_holm = holm([changes[i].p or 0.0 for i in tested], tests)
    p_equivalence = holm([changes[i].p_equivalence or 0.0 for i in tested], tests)
    for i, p, q in zip(tested, p_holm, p_equivalence, strict=True):
        changes[i] = replace(changes[i], p_holm=p, p_equivalence_holm=q)
    return [
        _with_word(change, sample, tests) if change.primary else change
        for change, sample in zip(changes, samples, strict=True)
    ]


def _measured(sample: Sample, tests: int) -> Change:
    kind, found = sample.kind, interval(sample.changes, sample.step)
    pairs = len(sample.changes)
    testable = kind.primary and pairs >= fewest(tests)
    return Change(
        metric=sample.metric,
        unit=kind.unit,
        mean=found.mean,
        low=found.low,
        high=found.high,
        margin=kind.margin,
        reference=sample.reference,
        other=sample.other,
        pairs=pairs,
        primary=kind.primary,
        p=sign_flip_p(sample.signed) if testable else None,
        p_holm=None,
        p_equivalence=equivalence_p(sample.changes, kind.margin, sample.step) if testable else None,
        p_equivalence_holm=None,
        word=None,
        phrase=None,
        more_seeds=None,
        note=_doubt(sample),
    )


def _with_word(change: Change, sample: Sample, tests: int) -> Change:
    word = _word(change, sample.kind)
    more = _more_seeds(change, sample, tests) if word is Word.UNDECIDED else None
    said = phrase(word, margin=change.margin, unit=change.unit, more_seeds=more)
    return replace(change, word=word, phrase=said, more_seeds=more)


def _word(change: Change, kind: Figure) -> Word:
    """A claim needs its corrected test and the 95 % interval beside it, so that both say the same.

    Equivalence comes first: a difference that is shown to be too small to matter is not a result.
    """
    p, q, low, high = change.p_holm, change.p_equivalence_holm, change.low, change.high
    if p is None or q is None or low is None or high is None:
        return Word.UNDECIDED
    if q <= ALPHA and -kind.margin < low and high < kind.margin:
        return Word.EQUIVALENT
    if p <= ALPHA and (low > 0 or high < 0):
        found = kind.higher if low > 0 else kind.lower
        assert found is not None
        return found
    return Word.UNDECIDED


def _more_seeds(change: Change, sample: Sample, tests: int) -> int | None:
    if change.pairs < 2:
        # No spread is seen yet; this many are needed for any test.
        return fewest(tests) - change.pairs
    return seeds_to_decide(
        spread=spread(sample.changes, sample.step),
        margin=change.margin,
        mean=change.mean,
        pairs=change.pairs,
        fewest=fewest(tests),
        level=ALPHA / tests,
        equivalence_level=min(ALPHA / tests, ALPHA / 2),
    )


def _doubt(sample: Sample) -> str | None:
    n = len(sample.changes)
    if n == 1:
        return "one pair: no interval"
    if spread(sample.changes, sample.step) > spread(sample.changes, 0.0):
        step = f"{sample.step:.2g} {sample.kind.unit}"
        return f"changes differ by less than a step of {step}: the interval is that of rounding"
    if n < FEWEST_FOR_AN_INTERVAL:
        return f"{n} pairs: the interval rests on their being normally distributed"
    return None
