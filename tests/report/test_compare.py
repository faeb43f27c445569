"""Comparing reports: what is matched, what is refused, and which limits are exceeded."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwd.errors import InputError, UsageError
from qwd.report import metrics
from qwd.report.compare import ReportComparison, Row, compare, compare_files
from qwd.report.figures import Report
from qwd.report.limits import parse_limit
from qwd.report.render.json import render

from .builders import DATA, model, report, scheme, summary, weights_only


def with_summary(**changes: Any) -> Report:
    return report(model(summary=summary(**changes)))


def result(base: Report, head: Report, *limits: str) -> ReportComparison:
    return compare(base, head, [parse_limit(limit) for limit in limits])


def row(compared: ReportComparison, metric: str) -> Row:
    (found,) = (r for r in compared.models[0].rows if r.metric == metric)
    return found


def test_equal_reports_pass():
    compared = result(report(), report(), "int8_accuracy:-0pp", "drop_pp:+0pp", "range:+0%")
    assert compared.exit_code == 0
    assert compared.exceeded == ()
    assert {r.change for r in compared.models[0].rows} == {0}


def test_a_limit_that_is_exceeded_fails():
    compared = result(report(), with_summary(int8_accuracy=0.96), "int8_accuracy:-0.5pp")
    assert compared.exit_code == 1
    accuracy = row(compared, "int8_accuracy")
    assert accuracy.exceeded
    assert accuracy.change == pytest.approx(-0.01)
    assert compared.exceeded == ("net: int8_accuracy 97.00 % -> 96.00 %, -1 pp, limit -0.5pp",)
    assert result(report(), with_summary(int8_accuracy=0.96)).exit_code == 0


def test_rows_hold_the_summary_and_every_scheme():
    compared = result(report(), report(), "schemes.ao-static.kl:+5%")
    shown = [r.metric for r in compared.models[0].rows]
    assert shown[: len(metrics.SUMMARY)] == list(metrics.SUMMARY)
    assert {"dose", "parameters", "schemes.affine-tensor.accuracy"} < set(shown)
    assert "schemes.ao-static.accuracy" not in shown  # int8_accuracy
    assert shown[-1] == "schemes.ao-static.kl"
    assert row(compared, "schemes.ao-static.kl").limit is not None


def test_limits_in_both_directions_are_two_rows():
    compared = result(report(), with_summary(range=0.5), "range:+5%", "range:-5%")
    found = [r for r in compared.models[0].rows if r.metric == "range"]
    assert [r.exceeded for r in found] == [False, True]
    assert len(compared.exceeded) == 1


@pytest.mark.parametrize("other", ["range:+5%", "range:+1", "summary.range:+6%"])
def test_two_limits_in_one_direction_are_refused(other: str):
    with pytest.raises(UsageError, match=r"--fail-on 'range': \+5% and .* expected one"):
        result(report(), report(), "range:+5%", other)


def test_single_models_match_whatever_their_names():
    compared = result(report(model("a")), report(model("b")))
    assert [m.name for m in compared.models] == ["a -> b"]


def test_models_match_by_name():
    base, head = report(model("a"), model("b", dose=1.0)), report(model("b", dose=2.0), model("a"))
    compared = result(base, head, "dose:+0")
    assert [m.name for m in compared.models] == ["a", "b"]
    assert compared.exceeded == ("b: dose 1.000 -> 2.000, +1 (+100 %), limit +0",)


@pytest.mark.parametrize(
    ("base", "head", "says"),
    [
        ("ab", "a", "model 'b' of base has no counterpart in head: known: a"),
        ("a", "ab", "model 'b' of head has no counterpart in base"),
        ("ab", "ac", "model 'b' of base"),
        ("", "a", "the base report holds no models"),
        ("a", "", "the head report holds no models"),
        ("", "", "the base report holds no models"),
        ("aa", "a", "base holds 2 models called 'a'"),
        ("ab", "bb", "head holds 2 models called 'b'"),
    ],
)
def test_models_without_counterpart(base: str, head: str, says: str):
    with pytest.raises(InputError, match=says):
        compare(Report(models=tuple(map(model, base))), Report(models=tuple(map(model, head))))


def test_other_data_cannot_be_compared():
    other = report(model(data=replace(DATA, sha256="cd" * 32, n=100)))
    with pytest.raises(InputError, match=r"other data: digits test \(n 200, sha256 abab.* cdcd"):
        compare(report(), other)


def test_another_number_of_images_is_other_data():
    with pytest.raises(InputError, match=r"other data: digits test \(n 200.* in base.*n 100"):
        compare(report(), report(model(data=replace(DATA, n=100))))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scheme", "symmetric"),
        ("granularity", "channel"),
        ("weight_bits", 4),
        ("activation_bits", 7),
        ("activation_bits", None),
        ("backend", "pt2e"),
        ("engine", "qnnpack"),
        ("observer", None),
    ],
)
def test_another_scheme_of_the_same_name_cannot_be_compared(field: str, value: Any):
    other = report(model(schemes={"ao-static": scheme(**{field: value})}))
    with pytest.raises(InputError, match=f"ao-static of model 'net' is not the same.*{field}"):
        compare(report(), other)
    with pytest.raises(InputError, match=field):
        compare(other, report())


def test_what_one_side_lacks_is_a_dash():
    compared = compare(report(), report(weights_only()))
    accuracy = row(compared, "int8_accuracy")
    assert (accuracy.base, accuracy.head, accuracy.change) == (0.97, None, None)
    assert row(compared, "schemes.affine-tensor.accuracy").head is None
    assert not accuracy.exceeded
    lacking = compare(report(weights_only()), report(weights_only()))
    assert "int8_accuracy" not in [r.metric for r in lacking.models[0].rows]


@pytest.mark.parametrize(
    "limit",
    [
        "int8_accuracy:-1pp",
        "drop_pp:+1pp",
        "folded_range:+5%",
        "dose:+5%",
        "schemes.ao-static.accuracy:-1pp",
        "schemes.unheard-of.accuracy:-1pp",
    ],
)
def test_a_limit_on_a_figure_that_is_missing_never_passes(limit: str):
    bare = report(weights_only())
    for base, head in ((report(), bare), (bare, report()), (bare, bare)):
        with pytest.raises(InputError, match="needs the figure in both reports"):
            result(base, head, limit)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": None},
        {"schemes": {}},
        {"summary": summary(int8_accuracy=None)},
        {"summary": summary(int8_accuracy=float("nan"))},
    ],
)
def test_an_accuracy_of_unknown_origin_counts_as_none(changes: dict[str, Any]):
    head = report(model(**changes))
    assert row(compare(report(), head), "int8_accuracy").head is None
    with pytest.raises(InputError, match="int8_accuracy"):
        result(report(), head, "int8_accuracy:-100%")


def test_names_in_errors_are_harmless():
    base, head = report(model("\x1b[1m"), model("x")), report(model("\u202ey"), model("x"))
    with pytest.raises(InputError) as caught:
        compare(base, head)
    assert str(caught.value).isprintable()
    other = report(model(schemes={"\x1b[1m": scheme()}))
    with pytest.raises(InputError) as caught:
        result(other, other, "dose:+0", "schemes.ao-static.kl:+0")
    assert str(caught.value).isprintable()


def test_files_are_compared(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "report.json").write_text(render(report()))
    (tmp_path / "head.json").write_text(render(report(model(dose=1.0))))
    compared = compare_files(run, str(tmp_path / "head.json"), fail_on=["dose:+0%"])
    assert compared.exit_code == 1
    with pytest.raises(UsageError, match="dosis"):
        compare_files(tmp_path / "none", run, fail_on=["dosis:+0%"])
    with pytest.raises(InputError, match="does not exist"):
        compare_files(run, tmp_path / "none")


def test_it_prints_as_text_and_markdown():
    head = report(
        model(
            "[bold]other|x",
            summary=summary(int8_accuracy=0.96, folded_range=None, sqnr_db=39.95, range=0.0),
            parameters=13000,
        )
    )
    limits = "int8_accuracy:-0.5pp", "parameters:+10%", "sqnr_db:-5"
    compared = result(report(), head, *limits)
    text = str(compared)
    assert "net -> [bold]other|x" in text
    assert [line.split() for line in text.splitlines() if "EXCEEDED" in line] == [
        ["int8_accuracy", "97.00", "%", "96.00", "%", "-1", "pp", "-0.5pp", "EXCEEDED"]
    ]
    assert "+655 (+5.31 %)" in text
    assert "-1.25 dB" in text
    assert "1 of 3 limits exceeded." in text
    assert "\x1b" not in text
    markdown = compared.to_markdown()
    assert markdown == compared._repr_markdown_()
    assert "| int8_accuracy | 97.00 % | 96.00 % | -1 pp | -0.5pp | EXCEEDED |" in markdown
    assert r"\[bold\]other\|x" in markdown
    assert "No limit given." in str(compare(report(), head))
    assert "None of 1 limits exceeded." in str(result(report(), head, "dose:+0"))
