"""Groups of seeds, and the sentences that their figures make."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from qwd.config import TrainConfig
from qwd.report.comparison import compare_models, spread
from qwd.report.figures import ModelReport
from qwd.report.reading import change, direction, paired

from .builders import DATA, model, summary, weights_only


def run(wd: float, seed: int, dose: float = 0.1, **figures: Any) -> ModelReport:
    config = TrainConfig(wd=wd, seed=seed).to_dict()
    made = model(f"wd{wd:g}-s{seed}", seed=seed, config=config, dose=dose)
    return replace(made, summary=summary(**figures))


def two_decays(**of_large: tuple[float, ...]) -> list[ModelReport]:
    """Four seeds of each decay; base figures 1, 2, 3, 4 per cent apart."""
    small = [
        run(1e-5, s, range=1 + s / 100, folded_range=1 + s / 100, folded_range_over_std=8 + s / 100)
        for s in range(4)
    ]
    large = [
        replace(
            run(1e-4, s),
            summary=replace(
                small[s].summary, **{name: values[s] for name, values in of_large.items()}
            ),
        )
        for s in range(4)
    ]
    return [*large, *small]


def reading(models: list[ModelReport]) -> str:
    compared = compare_models(models)
    assert compared is not None
    (sentence,) = compared.readings
    return sentence


def test_models_that_differ_in_the_seed_alone_are_one_group_in_order_of_decay() -> None:
    compared = compare_models(two_decays())
    assert compared is not None
    assert [(g.name, g.wd, len(g.models)) for g in compared.groups] == [
        ("wd 1e-5", 1e-5, 4),
        ("wd 1e-4", 1e-4, 4),
    ]
    metric = compared.groups[0].metrics["range"]
    assert metric is not None
    assert metric.mean == pytest.approx(1.015)
    assert metric.std == pytest.approx(np.std([1, 1.01, 1.02, 1.03], ddof=1))


def test_groups_are_named_by_what_differs() -> None:
    fast = run(1e-4, 0)
    assert fast.config is not None
    slow = replace(fast, name="slow", config={**fast.config, "lr": 0.05, "device": "cpu"})
    compared = compare_models([fast, slow])
    assert compared is not None
    assert {g.name for g in compared.groups} == {"wd 1e-4, lr 0.1", "wd 1e-4, lr 0.05"}
    elsewhere = replace(fast, config={**fast.config, "device": "cuda", "threads": 3})
    compared = compare_models([fast, elsewhere])
    assert compared is not None
    assert len(compared.groups) == 1


def test_one_model_is_no_comparison_and_checkpoints_stand_alone() -> None:
    assert compare_models([run(1e-4, 0)]) is None
    compared = compare_models([weights_only("a.pt"), weights_only("b.pt")])
    assert compared is not None
    assert [g.name for g in compared.groups] == ["a.pt", "b.pt"]
    assert "after folding" not in compared.readings[0]


def test_the_interval_is_the_paired_t_interval_over_common_seeds() -> None:
    values = (0.91, 0.93, 0.90, 0.95)
    models = two_decays(range=values)
    large, small = models[:4], models[4:]
    found = change(paired(small, large), "range", relative=True)
    assert found is not None
    relative = [y / (1 + s / 100) - 1 for s, y in enumerate(values)]
    expected = stats.ttest_1samp(relative, 0).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert direction(found) == -1
    fewer = change(paired(small[1:], large[:3]), "range", relative=True)
    assert fewer is not None
    assert fewer.pairs == 2


def test_a_disagreement_of_raw_and_folded_is_said() -> None:
    shrunk = tuple(0.8 * (1 + s / 100) for s in range(4))
    sentence = reading(two_decays(range=shrunk))
    assert "the raw range is smaller (-20.00 %" in sentence
    assert ", but what int8 sees, the range after folding, is not clearly different" in sentence
    assert "the two disagree" in sentence


def test_an_agreement_is_said_too() -> None:
    ranges = tuple((0.8 + s / 1000) * (1 + s / 100) for s in range(4))
    ratios = tuple(7.0 + s / 100 for s in range(4))
    sentence = reading(two_decays(range=ranges, folded_range=ranges, folded_range_over_std=ratios))
    assert ", and what int8 sees" in sentence
    assert "disagree" not in sentence


def test_ranges_that_agree_while_their_ratio_stays_are_said_so() -> None:
    shrunk = tuple(0.8 * (1 + s / 100) for s in range(4))
    sentence = reading(two_decays(range=shrunk, folded_range=shrunk))
    assert ", and what int8 sees, the range after folding, is smaller (-20.00 %" in sentence
    assert ", but its ratio to the spread is not clearly different" in sentence
    assert "the two disagree" in sentence


def on_a_thousand_images(models: list[ModelReport]) -> list[ModelReport]:
    return [replace(model, data=replace(DATA, n=1000)) for model in models]


def test_changes_that_are_all_equal_are_known_to_an_image_only() -> None:
    models = on_a_thousand_images(two_decays(int8_accuracy=(0.97, 0.97, 0.97, 0.97)))
    half = stats.t(3).ppf(0.975) * 0.1 / math.sqrt(6) / 2
    assert f"(+0.00 pp, 95 % interval {-half:+.2f} to {half:+.2f} pp" in reading(models)


def test_accuracy_comes_with_its_interval_and_seeds() -> None:
    models = on_a_thousand_images(two_decays(int8_accuracy=(0.98, 0.981, 0.979, 0.98)))
    sentence = reading(models)
    assert "int8 accuracy rises (+1.00 pp, 95 % interval +0.87 to +1.13 pp" in sentence
    assert "over 4 seeds" in sentence


def test_a_single_pair_claims_no_interval() -> None:
    sentence = reading([run(1e-5, 0, range=1.0), run(1e-4, 0, range=0.7)])
    assert "smaller (-30.00 %)" in sentence
    assert sentence.endswith("; one pair, so no interval.")


def test_seeds_that_cannot_be_paired_are_said() -> None:
    assert "nothing can be paired" in reading([run(1e-5, 0), run(1e-4, 1)])
    twice = [run(1e-5, 0), run(1e-5, 0), run(1e-4, 0)]
    assert "nothing can be paired" in reading(twice)


def test_only_what_differs_in_decay_alone_is_read_against_each_other() -> None:
    small, large = run(1e-5, 0), run(1e-4, 0)
    assert large.config is not None
    faster = replace(large, config={**large.config, "lr": 0.5})
    compared = compare_models([small, faster])
    assert compared is not None
    assert compared.readings == ()
    other_images = replace(large, data=replace(DATA, sha256="1" * 64))
    compared = compare_models([small, other_images])
    assert compared is not None
    assert compared.readings == ()
    control = replace(
        run(1e-3, 0, dose=0.0), config={**TrainConfig(wd=1e-3).to_dict(), "form": "none"}
    )
    compared = compare_models([large, control])
    assert compared is not None
    assert compared.groups[0].dose == 0.0


def test_doses_too_small_to_show_are_said() -> None:
    faint = [run(1e-6, 0, dose=0.001), run(1e-5, 0, dose=0.01)]
    assert "both doses are below 0.05" in reading(faint)
    assert "below 0.05" not in reading([run(1e-5, 0, dose=0.01), run(1e-4, 0, dose=0.1)])


def test_spread() -> None:
    assert spread([1.0, None]) is None
    assert spread([]) is None
    single = spread([2.0])
    assert single is not None
    assert (single.mean, single.std) == (2.0, None)
    several = spread([1.0, 3.0])
    assert several is not None
    assert several.std is not None
    assert math.isclose(several.std, math.sqrt(2))
