"""From models to a verdict: what is compared with what, and recomputed from the models."""

import dataclasses
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from qwd.errors import UsageError
from qwd.report.figures import ModelReport
from qwd.report.verdict import judge, verdict
from qwd.report.verdict.arms import Line, Runs
from qwd.report.verdict.figures import Change, Contrast, Verdict
from qwd.report.verdict.words import Word
from tests.report.builders import DATA, figures, scheme, tensor, weights_only

from .sweeps import run, two_decays


def contrast(found: Verdict) -> Contrast:
    (setting,) = found.settings
    (one,) = setting.contrasts
    return one


def changes(found: Verdict) -> dict[str, Change]:
    return {change.metric: change for change in contrast(found).changes}


def with_settings(made: ModelReport, **settings: Any) -> ModelReport:
    return replace(made, name=f"{made.name}-{settings}", config={**(made.config or {}), **settings})


def test_the_verdict_recomputed_from_the_models() -> None:
    models = two_decays(8)
    by = {(m.config["wd"], m.seed): m.summary for m in models if m.config}
    found = verdict(models)
    assert (found.family_size, found.seeds_for_a_test, found.left_out) == (3, 7, ())
    one = contrast(found)
    assert (one.arm.name, one.seeds, one.more_decay) == ("wd 1e-4", tuple(range(8)), True)
    p_values = {}
    for metric in ("range", "folded_range"):
        a, b = (np.array([getattr(by[wd, s], metric) for s in range(8)]) for wd in (1e-5, 1e-4))
        change = changes(found)[metric]
        expected = stats.ttest_1samp(100 * (b / a - 1), 0).confidence_interval(0.95)
        assert change.mean == pytest.approx(100 * np.mean(b / a - 1))
        assert change.low == pytest.approx(expected.low)
        assert change.high == pytest.approx(expected.high)
        assert (change.reference, change.other) == (
            pytest.approx(a.mean()),
            pytest.approx(b.mean()),
        )
        p_values[metric] = stats.permutation_test(
            (np.log(b / a),), np.sum, permutation_type="samples", n_resamples=1000
        ).pvalue
        assert change.p == pytest.approx(p_values[metric])
        above: Any = stats.ttest_1samp(100 * (b / a - 1), -5, alternative="greater")
        below: Any = stats.ttest_1samp(100 * (b / a - 1), 5, alternative="less")
        p = max(above.pvalue, below.pvalue)
        assert change.p_equivalence == pytest.approx(p, rel=1e-6)
    assert changes(found)["range"].p_holm == pytest.approx(3 * p_values["range"])
    assert changes(found)["range"].word is Word.MORE_COMPACT
    assert changes(found)["folded_range"].phrase == "equivalent within 5 %"


def test_every_figure_of_the_issue_is_there_with_its_unit() -> None:
    units = {name: change.unit for name, change in changes(verdict(two_decays())).items()}
    of_schemes = {
        f"schemes.{name}.{figure}": "pp"
        for name in ("ao-static", "affine-tensor")
        for figure in ("accuracy", "drop_pp", "flip_rate")
    }
    both = ("range", "range_over_std", "codes_used")
    per_million = ("outlier_rate", "outlier_rate_sigma4")
    assert units == {
        **{f"{prefix}{name}": "%" for name in both for prefix in ("", "folded_")},
        **{f"{prefix}{name}": "per million" for name in per_million for prefix in ("", "folded_")},
        **{"sqnr_db": "dB", "folded_sqnr_db": "dB"},
        **dict.fromkeys(("int8_accuracy", "float_accuracy", "drop_pp", "flip_rate"), "pp"),
        **of_schemes,
    }


def test_changes_of_rates_are_in_percentage_points() -> None:
    models = [run(1e-5, s, int8_accuracy=0.97, drop_pp=0.5, flip_rate=0.02) for s in range(3)]
    models += [
        replace(
            run(1e-4, s, int8_accuracy=0.96, drop_pp=1.25, flip_rate=0.05),
            schemes={"ao-static": scheme(accuracy=0.9, drop_pp=2.0, flip_rate=0.1)},
        )
        for s in range(3)
    ]
    found = changes(verdict(models))
    assert found["int8_accuracy"].mean == pytest.approx(-1)
    assert found["drop_pp"].mean == pytest.approx(0.75)
    assert found["flip_rate"].mean == pytest.approx(3)
    assert found["schemes.ao-static.accuracy"].mean == pytest.approx(-7)
    assert found["schemes.ao-static.drop_pp"].mean == pytest.approx(1.5)
    # What only the reference was quantized with cannot be compared.
    assert "schemes.affine-tensor.accuracy" not in found


def test_codes_are_means_over_tensors_by_parameters() -> None:
    small = (tensor("a", folded=None, figures=figures(numel=100, codes_used=200)),)
    large = (
        tensor("a", folded=None, figures=figures(numel=100, codes_used=100)),
        tensor("b", folded=None, figures=figures(numel=300, codes_used=240)),
    )
    models = [
        replace(run(wd, s), tensors=tensors, deployed=())
        for wd, tensors in ((1e-5, small), (1e-4, large))
        for s in range(2)
    ]
    change = changes(verdict(models))["codes_used"]
    assert (change.reference, change.other) == (200, pytest.approx(205))
    assert change.mean == pytest.approx(2.5)


def test_the_reference_is_the_least_dose_or_the_decay_asked_for() -> None:
    models = [run(wd, s, dose=1 / wd) for wd in (1e-5, 1e-4, 1e-3) for s in range(2)]
    (setting,) = verdict(models).settings
    assert setting.reference.wd == 1e-3
    assert [c.more_decay for c in setting.contrasts] == [True, True]
    found = verdict(models, reference=1e-4)
    (setting,) = found.settings
    assert setting.reference.name == "wd 1e-4"
    assert [(c.arm.wd, c.more_decay) for c in setting.contrasts] == [(1e-3, False), (1e-5, True)]
    assert (found.family_size, found.seeds_for_a_test) == (6, 8)
    with pytest.raises(UsageError, match=r"reference 0.5: .* has the decays 1e-5, 1e-4, 1e-3"):
        verdict(models, reference=0.5)


def test_forms_of_decay_are_arms_of_one_setting() -> None:
    models = [run(1e-4, s) for s in range(2)]
    models += [
        with_settings(m, form="decoupled") for m in [run(1e-4, 0, dose=0.5), run(1e-4, 1, dose=0.5)]
    ]
    one = contrast(verdict(models))
    assert one.arm.name == "wd 1e-4, form decoupled"
    assert one.more_decay is True


def test_other_settings_have_a_verdict_of_their_own_in_one_family() -> None:
    models = two_decays(10)
    models += [with_settings(m, lr=0.05) for m in two_decays(10)]
    found = verdict(models)
    assert [s.name for s in found.settings] == [
        "small_cnn on digits, lr 0.1",
        "small_cnn on digits, lr 0.05",
    ]
    assert found.family_size == 6
    for setting in found.settings:
        assert [c.arm.wd for c in setting.contrasts] == [1e-4]


def test_other_images_are_another_setting() -> None:
    elsewhere = replace(DATA, sha256="1" * 64)
    small = [run(1e-5, s) for s in range(2)]
    with pytest.raises(UsageError, match="nothing to compare among 4 models"):
        verdict([*small, *(replace(run(1e-4, s), data=elsewhere) for s in range(2))])


def test_settings_that_differ_in_images_alone_have_names_of_their_own() -> None:
    elsewhere = [replace(m, data=replace(DATA, sha256="1" * 64)) for m in two_decays(2)]
    found = verdict([*two_decays(2), *elsewhere])
    assert [s.name for s in found.settings] == [
        "small_cnn on digits, images abababab",
        "small_cnn on digits, images 11111111",
    ]


def test_what_belongs_to_no_comparison_is_named() -> None:
    alone = with_settings(run(1e-4, 0), lr=0.7)
    odd = [weights_only("a.pt"), replace(run(1e-4, 0), name="no seed", seed=None), alone]
    odd.append(replace(run(1e-4, 3), name="odd", config={"wd": "much"}))
    found = verdict([*two_decays(), *odd])
    assert found.left_out == ("a.pt", "no seed", alone.name, "odd")
    with pytest.raises(UsageError, match="two decays or more"):
        verdict(odd)
    with pytest.raises(UsageError, match="nothing to compare among 0 models"):
        verdict([])


def test_a_seed_twice_is_an_error_that_names_both() -> None:
    with pytest.raises(UsageError, match=r"twin and wd1e-05-s3: two runs of wd 1e-5 with seed 3"):
        verdict([replace(run(1e-5, 3), name="twin"), *two_decays()])


def test_pairs_are_the_seeds_that_both_have_and_the_figures_they_have() -> None:
    models = [run(1e-5, s) for s in range(9)]
    models += [run(1e-4, s, folded_range=None if s == 5 else 0.4) for s in range(2, 12)]
    found = verdict(models)
    assert contrast(found).seeds == tuple(range(2, 9))
    assert changes(found)["range"].pairs == 7
    assert changes(found)["folded_range"].pairs == 6
    assert changes(found)["folded_range"].p is None


def test_no_seed_in_common_says_so_and_claims_nothing() -> None:
    found = verdict([*(run(1e-5, s) for s in range(4)), *(run(1e-4, s) for s in range(4, 8))])
    one = contrast(found)
    assert (one.seeds, one.changes, one.raw, one.folded) == ((), (), None, None)
    assert "Not measured" in found.settings[0].answer


def test_ranges_of_zero_have_no_relative_change_but_become_zero() -> None:
    models = [run(1e-5, s, range=0.0, folded_range=0.5) for s in range(8)]
    models += [run(1e-4, s, range=0.1, folded_range=0.0) for s in range(8)]
    found = changes(verdict(models))
    assert "range" not in found
    assert found["folded_range"].mean == -100
    assert found["folded_range"].word is Word.MORE_COMPACT


def test_a_caller_may_pair_runs_by_itself() -> None:
    """The same decay with other seeds, as a placebo."""
    runs = {s: run(1e-4, s, range=1 + s / 1000) for s in range(16)}
    reference = Runs(name="wd 1e-4", wd=1e-4, dose=0.1, by_seed={s: runs[s] for s in range(8)})
    placebo = Runs(
        name="other seeds", wd=1e-4, dose=0.1, by_seed={s: runs[s + 8] for s in range(8)}
    )
    found = judge([Line(name="placebo", reference=reference, others=(placebo,))])
    assert contrast(found).more_decay is None
    assert changes(found)["range"].pairs == 8
    assert changes(found)["range"].word is Word.EQUIVALENT


def test_a_thousand_cells_take_seconds() -> None:
    """No timing: that it is feasible, with the counts right."""
    tensors = tuple(tensor(f"t{i}") for i in range(20))
    models = [
        replace(run(1e-6 * (i + 1), s), tensors=tensors) for i in range(50) for s in range(20)
    ]
    found = verdict(models)
    assert found.family_size == 3 * 49
    assert len(found.settings[0].answer) < 4000


def test_a_verdict_is_plain_data_without_nan() -> None:
    def values(found: Any) -> Any:
        if dataclasses.is_dataclass(found):
            for field in dataclasses.fields(found):
                yield from values(getattr(found, field.name))
        elif isinstance(found, tuple):
            for item in found:
                yield from values(item)
        else:
            yield found

    same = [run(wd, s) for wd in (0.0, 1e-4) for s in range(8)]
    for models in (two_decays(), two_decays(1), two_decays(2), same):
        found = list(values(verdict(models)))
        assert all(isinstance(v, str | int | float | None) for v in found)
        assert all(np.isfinite(v) for v in found if isinstance(v, float))


def test_settings_of_the_machine_tell_no_runs_apart() -> None:
    moved = [with_settings(m, device="cuda", threads=7) for m in two_decays()[::2]]
    assert contrast(verdict([*moved, *two_decays()[1::2]])).arm.name == "wd 1e-4"
