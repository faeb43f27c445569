"""Renderers: every number in its place, and names that stay names."""

import csv
import io
from dataclasses import replace
from typing import Any

import pytest

from qwd.registry import RENDERERS
from qwd.report.compare import compare
from qwd.report.figures import Comparison, DeployedReport, Spread
from qwd.report.render import csv as as_csv
from qwd.report.render import markdown, text

from .builders import figures, group, model, report, scheme, several, summary, tensor, weights_only
from .cases import CASES


@pytest.fixture(params=[*RENDERERS.names(), "text"])
def render(request: pytest.FixtureRequest) -> Any:
    return text.render if request.param == "text" else RENDERERS.get(request.param)


@pytest.mark.parametrize("case", CASES)
def test_every_renderer_takes_every_report(render: Any, case: str):
    page = render(CASES[case])
    assert isinstance(page, str)
    assert page.endswith("\n")
    page.encode("utf-8")
    assert all(line.isprintable() for line in page.split("\n"))


def test_reports_print_as_themselves(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "90")
    assert str(several()) == text.render(several(), width=90)
    assert several()._repr_markdown_() == markdown.render(several())


def lines_with(page: str, word: str) -> list[list[str]]:
    return [line.split() for line in page.splitlines() if word in line]


def test_a_model_in_text():
    page = text.render(report(), width=200)
    head = "data digits test, n 200; 12,345 parameters; dose 0.123; float accuracy 97.50 %"
    assert page.startswith(f"net\n\n{head}\n")
    static, observed = lines_with(page, "ao-static")
    assert observed == ["ranges", "by", "histogram:", "ao-static"]
    assert " ".join(static) == (
        "ao-static 97.00 % 0.50 pp 4 (2.00 %) 0.00123 0.625 affine-tensor-w8-a8 ao/x86 10 0"
    )
    raw, folded = lines_with(page, " raw ")[1], lines_with(page, " folded ")[0]
    assert " ".join(raw) == "conv.weight raw 0.8960 8.490 1 41.20 40.34 1.250 201 2.149 12 3 9 -"
    assert folded[:2] == ["folded", "0.4650"]
    assert ["range", "0.8960", "0.4650"] in lines_with(page, "range")
    (block,) = lines_with(page, "a.weight + b.weight")
    assert block[:5] == ["block", "a.weight", "+", "b.weight", "0.8960"]
    assert page.endswith("\nwarning: fc stayed in float\n")


def test_what_was_not_measured_is_said():
    page = text.render(report(weights_only()), width=100)
    assert "no data; 12,345 parameters; dose not known; accuracy not measured" in page
    assert "ao-static" not in page
    assert ["range", "0.8960", "-"] in lines_with(page, "range")
    assert "There is no weight tensor." in text.render(CASES["no tensors"])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("width", [40, 80, 100])
def test_text_fits_the_terminal(case: str, width: int):
    page = text.render(CASES[case], width=width)
    assert all(len(line) <= width for line in page.split("\n"))
    assert all(line == line.rstrip() for line in page.split("\n"))


@pytest.mark.parametrize("width", [-3, 0, 40, 60, 80, 100, 200])
def test_numbers_are_never_broken_and_accuracy_stands_beside_the_drop(width: int):
    tensors = tuple(tensor(f"stages.{i}.blocks.0.attention.projection.weight") for i in range(3))
    page = text.render(report(model(tensors=tensors, deployed=())), width=width)
    for header in ("accuracy     drop", "range/std", "SQNR dB", "kurtosis", "sigma>6", "crowding"):
        assert header in page
    assert len(lines_with(page, "97.00 %  0.50 pp")) == 2
    assert len(lines_with(page, "2.149")) == len(lines_with(page, "0.4650")) + 2


def test_the_width_is_the_terminals_or_100(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "70")
    assert text.render(report()) == text.render(report(), width=70)
    monkeypatch.setenv("COLUMNS", "0")
    monkeypatch.setattr("os.get_terminal_size", lambda fd: (_ for _ in ()).throw(OSError()))
    assert text.render(report()) == text.render(report(), width=100)


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"])
def test_colour_only_where_it_is_asked_for(variable: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[33m" in text.render(report(), colour=True)
    monkeypatch.setenv(variable, "1")
    assert "\x1b" not in text.render(report())
    worse = compare(report(), report(model(dose=1.0)))
    assert "\x1b" not in str(worse)


def test_the_worst_tensors_come_first():
    tensors = (
        tensor("fine", sqnr=45.0),
        tensor("none", sqnr=None),
        tensor("raw", folded=None, figures=figures(sqnr_db=20.0)),
        tensor("worst", sqnr=10.0, figures=figures(sqnr_db=50.0)),
        tensor("second", sqnr=10.0, figures=figures(sqnr_db=1.0)),
    )
    deployed = tuple(
        DeployedReport(name=f"kernel{i}", sources=(), figures=figures(sqnr_db=30.0 - i))
        for i in range(3)
    )
    made = report(model(tensors=tensors, deployed=deployed))
    shown = [line[0] for line in lines_with(text.render(made, width=200), " raw ")[1:]]
    assert shown == ["worst", "second", "raw", "fine", "none"]
    page = text.render(made, width=200, top=2)
    assert [line[0] for line in lines_with(page, " raw ")[1:]] == ["worst", "second"]
    assert "The worst 2 of 5 tensors by SQNR; --top N shows more." in page
    assert [line[0] for line in lines_with(page, "kernel") if line[0] != "deployed"][:2] == [
        "kernel2",
        "kernel1",
    ]
    assert "The worst 2 of 3 deployed kernels by SQNR" in page
    assert "by SQNR" not in text.render(made, top=5)
    assert "by SQNR" not in text.render(made, top=0)


def test_ten_tensors_unless_asked():
    made = report(model(tensors=tuple(tensor(f"t{i}") for i in range(12))))
    assert "The worst 10 of 12 tensors" in text.render(made)
    assert "The worst 10 of 12 tensors" in markdown.render(made)
    assert len(list(csv.reader(io.StringIO(as_csv.render(made))))) == 1 + 24 + 1


def test_layers_left_in_float_are_counted_and_named():
    left = tuple(f"layer{i}" for i in range(5))
    page = text.render(report(model(schemes={"ao-static": scheme(left_float=left)})), width=200)
    assert "5: layer0, layer1, layer2 and 2 more" in page


def test_several_models_are_compared_last():
    page = text.render(several(2), width=100)
    order = ["run0\n", "run1\n", "Side by side\n", "range, raw", "The raw range falls"]
    assert sorted(order, key=page.index) == order
    assert ["range,", "raw", *["0.8960", "±", "0.0123"] * 2] in lines_with(page, "range, raw")
    assert ["range,", "folded", "0.4650", "0.4650"] in lines_with(page, "range, folded")
    assert lines_with(page, "int8 accuracy") == [
        ["int8", "accuracy", *["97.00", "±", "0.34", "%"] * 2]
    ]
    assert lines_with(page, "drop ")[-1] == ["drop", *["0.50", "±", "0.21", "pp"] * 2]
    assert ["weight", "decay", "1e-4", "1e-4"] in lines_with(page, "weight decay")
    assert "range/std, raw" not in page  # no group has it


def test_metrics_of_extensions_are_shown():
    made = replace(
        several(2),
        comparison=Comparison(
            groups=(group("g", ("a",), latency=Spread(mean=3, std=1)),), readings=()
        ),
    )
    assert ["latency", "3.000", "±", "1.000"] in lines_with(text.render(made), "latency")


@pytest.mark.parametrize("render", [text.render, markdown.render])
def test_details_of_many_models_wait_to_be_asked_for(render: Any):
    short, whole = render(several(5)), render(several(5), top=3)
    assert "The details of 5 models are left out" in short
    assert "conv.weight" not in short
    assert "run0, run1, run2 and 2 more: shared warning" in short
    assert "left out" not in whole
    assert "conv.weight" in whole
    assert "conv.weight" in render(several(4))
    assert "conv.weight" in render(CASES["several without comparison"])


def test_markup_in_names_is_text():
    page = text.render(CASES["hostile names"], width=400, colour=True)
    assert page.count("[bold]x[/bold] [/]") >= 8
    assert ":smile:" in page
    assert r"\r\n\x1b[31m\u202e\ud800" in page


def test_summary_without_folding_shows_dashes():
    made = report(model(summary=summary(folded_range=None)))
    assert ["range", "0.8960", "-"] in lines_with(text.render(made), "range")
