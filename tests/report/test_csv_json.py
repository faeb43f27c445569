"""CSV and JSON: every tensor in full precision, and the report itself."""

import csv
import io
import json

import pytest

from qwd.printable import printable
from qwd.report.load import validate
from qwd.report.render import csv as as_csv
from qwd.report.render import json as as_json

from .builders import model, report, tensor, weights_only
from .cases import CASES, HOSTILE


def test_csv_has_a_row_for_every_tensor_and_variant():
    rows = list(csv.DictReader(io.StringIO(as_csv.render(report(model(), weights_only())))))
    assert [(r["model"], r["tensor"], r["variant"]) for r in rows] == [
        ("net", "conv.weight", "raw"),
        ("net", "conv.weight", "folded"),
        ("net", "fc.weight", "raw"),
        ("net", "block", "deployed"),
        ("net.safetensors", "conv.weight", "raw"),
    ]
    raw, folded, *_, deployed, bare = rows
    assert (raw["wd"], raw["seed"], bare["wd"], bare["seed"]) == ("0.0001", "0", "", "")
    assert (raw["range"], folded["range"]) == ("0.896", "0.465")
    assert raw["shape"] == "16x3x3x3"
    assert float(raw["scale"]) == 0.896 / 255
    assert (raw["sigma>6"], raw["mad>3.5"]) == ("1", "")
    assert deployed["sources"] == "a.weight + b.weight"


def test_csv_without_tensors_is_its_header():
    (header,) = as_csv.render(CASES["no tensors"]).splitlines()
    assert header.startswith("model,wd,seed,tensor,variant,sources,shape,dtype,numel,nan,inf,a,b")


def test_csv_keeps_hostile_names_in_their_cell():
    rows = list(csv.reader(io.StringIO(as_csv.render(CASES["hostile names"]))))
    assert len({len(row) for row in rows}) == 1
    assert rows[1][3] == printable(HOSTILE)


@pytest.mark.parametrize("case", CASES)
def test_json_is_the_report_and_follows_the_schema(case: str):
    page = as_json.render(CASES[case])
    assert json.loads(page) == CASES[case].to_dict()
    assert "NaN" not in page
    validate(json.loads(page))


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-2+3", "\uff1d1"])
def test_csv_holds_no_formula(name: str):
    rows = list(
        csv.reader(io.StringIO(as_csv.render(report(model(name, tensors=(tensor(name),))))))
    )
    assert (rows[1][0], rows[1][3]) == (f"'{name}", f"'{name}")
    assert not any(cell.startswith(("=", "@")) for row in rows for cell in row)


def test_json_has_no_numbers_that_are_not_finite():
    value = json.loads(as_json.render(report(model(dose=float("inf")))))
    assert value["models"][0]["dose"] is None
