"""The corrected family by simulation, and words that say what the numbers say."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwd.report.verdict.family import Sample, decided, holm
from qwd.report.verdict.figures import Change
from qwd.report.verdict.margins import EXPLORATORY, PRIMARY
from qwd.report.verdict.paired import fewest
from qwd.report.verdict.words import DIFFERENCES, Word, phrase

from .sweeps import sample, sweep

SWEEPS = 2000


@pytest.mark.parametrize(("decays", "seeds"), [(2, 8), (3, 8)])
def test_without_an_effect_the_verdict_claims_one_in_at_most_one_sweep_of_fifteen(
    decays: int, seeds: int
):
    """A correct 5 % test stays below 6.6 % of 2,000 sweeps 999 times in 1,000."""
    generator = np.random.default_rng(decays)
    tests = 3 * (decays - 1)
    wrong = false = 0
    for _ in range(SWEEPS):
        changes = decided(sweep(generator, decays=decays, seeds=seeds), tests)
        wrong += any(change.word in DIFFERENCES for change in changes)
        false += any(change.p_holm is not None and change.p_holm <= 0.05 for change in changes)
    assert wrong <= false <= 0.066 * SWEEPS
    # The level is used, not avoided by a test that cannot reject.
    assert false > 0.005 * SWEEPS


def at_the_margin(generator: np.random.Generator, seeds: int) -> list[Sample]:
    """Every figure changes by its margin."""
    ranges = np.exp(generator.normal(0, 0.1, seeds))
    noise = generator.normal(0, 0.02, (2, seeds))
    accuracy = generator.normal(0.97, 0.003, (2, seeds))
    return [
        sample("range", ranges, ranges * (1.05 + noise[0])),
        sample("folded_range", ranges, ranges * (0.95 + noise[1])),
        sample("int8_accuracy", accuracy[0], accuracy[1] + 0.005),
    ]


def test_at_the_margin_the_verdict_claims_an_equivalence_in_at_most_one_sweep_of_fifteen():
    generator = np.random.default_rng(4)
    claimed = sum(
        any(c.word is Word.EQUIVALENT for c in decided(at_the_margin(generator, 12), 3))
        for _ in range(SWEEPS)
    )
    assert claimed <= 0.066 * SWEEPS


def test_power_grows_with_seeds():
    """A raw range that is 10 % smaller, against a spread of 4 %."""
    found = []
    for seeds in (7, 10, 16):
        generator = np.random.default_rng(seeds)
        words = [
            decided(sweep(generator, decays=2, seeds=seeds, range_effect=-0.1), 3)[0].word
            for _ in range(200)
        ]
        assert set(words) <= {Word.MORE_COMPACT, Word.UNDECIDED}
        found.append(words.count(Word.MORE_COMPACT) / 200)
    assert found[0] < found[1] <= found[2]
    assert found[2] > 0.99


def test_equivalence_is_found_where_there_is_nothing_to_find():
    generator = np.random.default_rng(7)
    words = [decided(sweep(generator, decays=2, seeds=17), 3)[0].word for _ in range(100)]
    assert words.count(Word.EQUIVALENT) / 100 > 0.8


def test_too_few_seeds_claim_nothing_and_say_how_many_are_needed():
    generator = np.random.default_rng(8)
    for seeds in range(1, 7):
        for change in decided(sweep(generator, decays=2, seeds=seeds, range_effect=-1.0), 3):
            assert change.word is Word.UNDECIDED
            assert (change.p, change.p_holm, change.p_equivalence) == (None, None, None)
            assert (change.low is None) == (seeds == 1)
            assert change.more_seeds is None or seeds + change.more_seeds >= 7
    (raw, *_) = decided(sweep(generator, decays=2, seeds=7, range_effect=-1.0), 3)
    assert raw.word is Word.MORE_COMPACT


def holm_by_definition(p: list[float], tests: int, level: float) -> list[bool]:
    """Step down from the smallest; stop at the first that does not reject."""
    rejected = [False] * len(p)
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] > level / (tests - rank):
            break
        rejected[i] = True
    return rejected


@given(st.lists(st.sampled_from([2.0**-k for k in range(12)]), max_size=12), st.integers(0, 5))
def test_holm_is_the_step_down_procedure(p: list[float], more: int):
    tests = len(p) + more
    adjusted = holm(p, tests)
    for level in (0.01, 0.05, 0.3):
        assert [q <= level for q in adjusted] == holm_by_definition(p, tests, level)
    assert all(a <= b <= 1 for a, b in zip(p, adjusted, strict=True))


SIZES = st.integers(1, 14)


@st.composite
def families(draw: st.DrawFn) -> tuple[list[Sample], int]:
    """Up to four samples of any size and effect, in a family of their number or more."""
    samples = []
    for _ in range(draw(st.integers(1, 4))):
        n, metric = draw(SIZES), draw(st.sampled_from(list(PRIMARY)))
        effect, spread = draw(st.floats(-20, 20)), draw(st.sampled_from([0.0, 0.01, 0.3, 5.0]))
        noise = np.random.default_rng(draw(st.integers(0, 99))).standard_t(2, n)
        # Ranges stay positive.
        changes = np.maximum(effect + spread * noise, -90.0)
        first = np.ones(n)
        scale = 1 + changes / 100 if PRIMARY[metric].unit == "%" else first + changes / 100
        samples.append(sample(metric, first, scale))
    return samples, len(samples) + draw(st.integers(0, 20))


@given(families())
def test_words_never_contradict_numbers(family: tuple[list[Sample], int]):
    samples, tests = family
    for change, given_ in zip(decided(samples, tests), samples, strict=True):
        check(change, given_, tests)


def check(change: Change, of: Sample, tests: int) -> None:
    assert np.isfinite(change.mean)
    assert change.pairs == len(of.changes)
    assert change.word is not None
    assert change.phrase == phrase(
        change.word, margin=change.margin, unit=change.unit, more_seeds=change.more_seeds
    )
    assert (change.p is None) == (change.pairs < fewest(tests))
    if change.low is not None and change.high is not None:
        assert change.low < change.mean < change.high
    if change.word is Word.UNDECIDED:
        return
    assert change.low is not None
    assert change.high is not None
    assert change.p_holm is not None
    assert change.p_equivalence_holm is not None
    if change.word is Word.EQUIVALENT:
        assert -change.margin < change.low
        assert change.high < change.margin
        assert change.p_equivalence_holm <= 0.05
        return
    assert change.p_holm <= 0.05
    up = change.word in (Word.LESS_COMPACT, Word.BETTER)
    assert change.low > 0 if up else change.high < 0
    assert (change.word in (Word.BETTER, Word.WORSE)) == (change.metric == "int8_accuracy")


def test_a_clear_change_within_the_margin_is_equivalent():
    ranges = np.exp(np.random.default_rng(0).normal(0, 0.1, 8))
    (found,) = decided([sample("range", ranges, 0.98 * ranges)], 3)
    assert found.p_holm == pytest.approx(3 / 128)
    assert found.phrase == "equivalent within 5 %"


def test_accuracies_that_never_change_are_equivalent_only_with_room_for_one_image():
    same = np.full(12, 0.9)
    (found,) = decided([sample("int8_accuracy", same, same)], 3)
    assert (found.mean, found.p, found.phrase) == (0.0, 1.0, "equivalent within 0.5 pp")
    assert found.low is not None
    assert found.low < -0.05
    assert found.note is not None
    assert found.note.startswith("changes differ by less than a step of 0.28 pp: the")
    few_images = replace(sample("int8_accuracy", same, same), step=100 / 40)
    (found,) = decided([few_images], 3)
    assert found.word is Word.UNDECIDED
    assert found.more_seeds is not None


def test_exploratory_figures_have_intervals_alone():
    ranges = np.exp(np.random.default_rng(0).normal(0, 0.1, 8))
    made = replace(sample("range", ranges, 0.5 * ranges), kind=EXPLORATORY["range_over_std"])
    (found,) = decided([made], 3)
    assert found.low is not None
    assert not found.primary
    assert (found.p, found.p_holm, found.p_equivalence, found.word, found.phrase) == (None,) * 5


def test_the_family_counts_tests_that_are_elsewhere():
    ranges = np.exp(np.random.default_rng(0).normal(0, 0.1, 9))
    made = sample("range", ranges, 0.5 * ranges)
    (alone,), (one_of_nine,) = decided([made], 3), decided([made], 9)
    assert alone.p == one_of_nine.p == 2**-8
    assert (alone.p_holm, one_of_nine.p_holm) == (3 * 2**-8, 9 * 2**-8)
