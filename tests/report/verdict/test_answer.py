"""The paragraph: it says what the tests say, with numbers, and when figures disagree."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwd.report.figures import ModelReport
from qwd.report.verdict import verdict

from .sweeps import run, two_decays


def answer(models: list[ModelReport], reference: float | None = None) -> str:
    (setting,) = verdict(models, reference).settings
    return setting.answer


def grid(seeds: int, **of_decays: tuple[float, ...]) -> list[ModelReport]:
    """wd 1e-5, 1e-4, ...; the given figures times a noise of 0.2 %, accuracies as they are."""
    generator = np.random.default_rng(3)
    models = []
    for i in range(len(next(iter(of_decays.values())))):
        for seed in range(seeds):
            noise: Any = {
                n: f[i] * (1 + generator.normal(0, 0.002 if "range" in n else 0.0))
                for n, f in of_decays.items()
            }
            models.append(run(10.0 ** (i - 5), seed, **noise))
    return models


def test_a_smaller_raw_range_that_int8_does_not_see() -> None:
    text = answer(two_decays())
    assert text.startswith(
        "Against wd 1e-5, paired over 8 seeds, with 95 % intervals in brackets.\nWith wd 1e-4 in "
        "place of wd 1e-5, raw ranges are more compact and the ranges that int8 sees stay "
        "equivalent within 5 %; int8 accuracy stays equivalent within 0.5 pp: the more compact "
        "range does not help it beyond that.\nDoes more decay keep raw ranges more compact? Yes: "
    )
    assert re.search(
        r"raw ranges more compact\? Yes: more compact at wd 1e-4 \(-\d+\.\d\d %, ", text
    )
    assert (
        "after folding, more compact? Not beyond the margin: equivalent within 5 % at wd 1e-4 ("
        in text
    )
    assert "Their change relative to the spread of the weights (exploratory): wd 1e-4" in text
    assert (
        "help int8 accuracy? Not beyond the margin: equivalent within 0.5 pp at wd 1e-4 (" in text
    )
    assert "Float accuracy changes by (exploratory): wd 1e-4 (" in text
    assert (
        "They disagree: at wd 1e-4 the raw range is more compact, but the folded range is " in text
    )
    assert "which rounding with scale = (b-a)/255 ignores" in text


def test_the_numbers_are_those_of_the_table() -> None:
    found = verdict(two_decays())
    for change in found.settings[0].contrasts[0].changes:
        if change.primary or change.metric == "folded_range_over_std":
            assert change.low is not None
            numbers = (
                f"({change.mean:+z.2f} {change.unit}, {change.low:+z.2f} to {change.high:+z.2f})"
            )
            assert numbers in found.settings[0].answer


def test_an_agreement() -> None:
    text = answer(
        grid(10, range=(1, 0.8), folded_range=(1, 0.8), int8_accuracy=(0.9, 0.93)),
    )
    assert "after folding, more compact? Yes: more compact" in text
    assert "help int8 accuracy? Yes: better at wd 1e-4 (+3.00 pp" in text
    assert "disagree" not in text


def test_decays_are_counted_and_those_below_the_reference_turned_round() -> None:
    ranges = {"range": (1.0, 0.9, 0.7), "folded_range": (1.0, 1.0, 1.3)}
    text = answer(grid(10, **ranges, int8_accuracy=(0.9, 0.9, 0.8)), reference=1e-4)
    assert "raw ranges more compact? Yes in both comparisons: less compact at wd 1e-5 (+1" in text
    assert (
        "after folding, more compact? Not beyond the margin in 1 of 2 comparisons, no in 1: "
        in (text)
    )
    assert "With wd 1e-4 in place of wd 1e-5, raw ranges are more compact and the" in text
    assert "With wd 1e-3 in place of wd 1e-4, raw ranges are more compact and the" in text
    assert "worse at wd 1e-3 (-10.00 pp" in text
    assert (
        "at wd 1e-3 the raw range is more compact, but the folded range is less compact and int8 "
        "accuracy is worse" in text
    )


def test_few_seeds_claim_nothing() -> None:
    text = answer(two_decays(3))
    assert "raw ranges more compact? Undecided: about 4 more seeds needed at" in text
    assert "No test is claimed at wd 1e-4: fewer than 7 seeds cannot reject." in text
    assert "disagree" not in text
    single = answer(two_decays(1))
    assert "paired over 1 seed," in single
    assert re.search(r"about 6 more seeds needed at wd 1e-4 \(-\d+\.\d\d %, no interval\)", single)


def test_many_decays_stay_one_paragraph() -> None:
    text = answer(grid(14, range=tuple(0.8**i for i in range(20))))
    assert "Yes in all 19 comparisons" in text
    assert "and 16 more" in text
    assert len(text) < 2500


def test_what_was_not_measured_is_said() -> None:
    models = [run(wd, s, folded_range=None, int8_accuracy=None) for wd in (0, 1) for s in range(2)]
    models = [
        m.__class__(**{**vars(m), "schemes": {}, "deployed": (), "data": None}) for m in models
    ]
    text = answer(models)
    assert "after folding, more compact? Not measured." in text
    assert "help int8 accuracy? Not measured." in text


def test_arms_of_one_dose_are_no_answer_about_more_decay() -> None:
    models = [run(wd, s, dose=0.2) for wd in (1e-5, 1e-4) for s in range(2)]
    assert "The decays differ in kind: undecided" in answer(models)


@given(st.integers(0, 2**32), st.floats(0.5, 1.5), st.integers(2, 12))
def test_it_never_says_no_difference(seed: int, factor: float, seeds: int) -> None:
    generator = np.random.default_rng(seed)
    models = []
    for s in range(seeds):
        for wd, times in ((1e-5, 1.0), (1e-4, factor)):
            a, b = np.exp(generator.normal(0, 0.03, 2))
            models.append(run(wd, s, range=times * a, folded_range=b))
    text = answer(models).lower()
    assert not re.search(r"no (clear )?(difference|change|effect)|not (clearly )?differ", text)
    # "No" as a reply stands only beside a claim.
    for reply in re.findall(r"\? no: (\w+)", text):
        assert reply in ("equivalent", "less", "worse", "more", "better")


@pytest.mark.parametrize("seeds", [2, 8])
def test_lines_without_markup(seeds: int) -> None:
    lines = answer(two_decays(seeds)).split("\n")
    assert len(lines) > 5
    assert all(line.isprintable() and line[0].isupper() for line in lines)
