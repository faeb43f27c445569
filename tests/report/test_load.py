"""Reading reports: what qwd writes comes back equal, what is wrong is refused in one line."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwd.errors import InputError
from qwd.quantize.figures import WeightFigures
from qwd.report import figures as data_classes
from qwd.report.figures import Comparison, Report, Spread
from qwd.report.load import load_report, parse, validate
from qwd.report.render.json import render

from .builders import (
    changed,
    figures,
    group,
    model,
    report,
    scheme,
    several,
    summary,
    tensor,
    weights_only,
)

REPORTS = {
    "one": report(),
    "several": several(3),
    "weights only": report(weights_only()),
    "no tensors": report(model(tensors=(), deployed=(), warnings=())),
    "no models": Report(models=()),
    "other tensors": report(model(tensors=(tensor("", sqnr=None), tensor("x", folded=None)))),
    "one seed": Report(
        models=(model(),),
        comparison=Comparison(
            groups=(group("g", ("net",), range=None, drop_pp=Spread(mean=-0.1, std=None)),),
            readings=(),
        ),
    ),
}
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
amounts = st.none() | st.floats(0, 1e300)
fractions = st.floats(0, 1)
counts = st.integers(0, 2**53 - 1)


def written(value: Any, path: Path) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_report(path)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 700
    return message


@pytest.mark.parametrize("name", REPORTS)
def test_what_is_written_comes_back(name: str, tmp_path: Path):
    made = REPORTS[name]
    validate(made.to_dict())
    assert load_report(written(render(made), tmp_path / "r.json")) == made


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        replace,
        st.just(figures()),
        shape=st.tuples(counts, counts),
        a=numbers,
        b=numbers,
        range=amounts,
        zero_point=st.none() | st.integers(-128, 127),
        mean=numbers,
        sqnr_db=numbers,
        codes_used=st.integers(0, 256),
        zeros=counts,
        outliers=st.dictionaries(st.text(), st.none() | counts, max_size=3),
    ),
    st.builds(
        replace,
        st.just(scheme()),
        accuracy=fractions,
        flip_n=counts,
        drop_pp=st.floats(-100, 100),
        left_float=st.lists(st.text(), max_size=3).map(tuple),
        engine=st.none() | st.text(),
    ),
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(-1, 1) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_any_valid_report_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    weights: WeightFigures,
    result: data_classes.SchemeResult,
    name: str,
    setting: Any,
):
    made = report(
        model(
            name,
            schemes={name: result},
            config={name: setting},
            tensors=(data_classes.TensorReport(name=name, figures=weights, folded=weights),),
        )
    )
    path = tmp_path_factory.mktemp("report") / "r.json"
    assert load_report(written(render(made), path)) == made


def test_integers_and_numbers_take_their_types(tmp_path: Path):
    value = changed("models", 0, "parameters", to=12345.0)
    value["models"][0]["dose"] = 2
    loaded = load_report(written(value, tmp_path / "r.json")).models[0]
    assert (loaded.parameters, type(loaded.parameters)) == (12345, int)
    assert (loaded.dose, type(loaded.dose)) == (2.0, float)


def test_figures_that_are_not_finite_become_null(tmp_path: Path):
    made = report(model(dose=float("inf"), summary=summary(range=float("nan"))))
    loaded = load_report(written(render(made), tmp_path / "r.json")).models[0]
    assert loaded.dose is None
    assert loaded.summary.range is None


def test_optional_entries_may_be_absent(tmp_path: Path):
    value = report().to_dict()
    del value["comparison"], value["models"][0]["deployed"], value["models"][0]["warnings"]
    loaded = load_report(written(value, tmp_path / "r.json"))
    assert loaded == report(model(deployed=(), warnings=()))


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_a_folder_holds_its_report(kind: str, tmp_path: Path):
    made = report() if kind == "run" else several()
    written(render(made), tmp_path / "report.json")
    assert load_report(tmp_path) == made
    assert load_report(str(tmp_path)) == made


def test_a_folder_without_report_says_what_makes_one(tmp_path: Path):
    folder = tmp_path / "a run"
    folder.mkdir()
    message = refusal(folder)
    assert f"`qwd quantize-report '{folder}'` makes it" in message


def test_files_that_cannot_be_read(tmp_path: Path):
    assert "does not exist" in refusal(tmp_path / "none.json")
    (tmp_path / "report.json").mkdir()
    assert "cannot read" in refusal(tmp_path)
    assert "cannot read" in refusal(Path("a\0b"))
    if os.geteuid() != 0:
        closed = written("{}", tmp_path / "closed.json")
        closed.chmod(0)
        assert "ermission" in refusal(closed)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected JSON"),
        ("{", "expected JSON"),
        ("{'a': 1}", "expected JSON"),
        ("[]", "expected an object"),
        ("3", "expected an object"),
        ("null", "expected an object"),
        ("{}", "expected an object"),
        ('{"models": []}', "no schema_version; this qwd reads version 1"),
        ('{"schema_version": 2, "models": 3}', "schema version 2; this qwd reads version 1"),
        ('{"schema_version": true, "models": []}', "schema version True"),
        ('{"schema_version": "1", "models": []}', "schema version '1'"),
        ('{"a": NaN}', "not finite, NaN"),
        ('{"a": [-Infinity]}', "not finite, -Infinity"),
        ('{"a": 1e400}', "not finite, 1e400"),
        ('{"a": -1e999999}', "not finite"),
        ('{"a": ' + "9" * 5000 + "}", "not finite, 999"),
        ('{"a": 1, "b": 2, "a": 1}', "the key 'a' stands twice"),
        ("[" * 100_000, "deep"),
        ("[" * 70 + "]" * 70, "nested more than 64"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "nested more than 64"),
    ],
)
def test_texts_that_are_no_report(text: str, says: str, tmp_path: Path):
    message = refusal(written(text, tmp_path / "r.json"))
    assert says in message
    assert "r.json" in message


def test_a_file_without_end_is_not_read(tmp_path: Path):
    path = tmp_path / "r.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert "more than 268,435,456 bytes" in refusal(path)


def test_bytes_that_are_no_text(tmp_path: Path):
    path = tmp_path / "r.json"
    path.write_bytes(b'{"a": "\xff\xfe"}')
    assert "expected JSON" in refusal(path)
    path.write_bytes(b"PK\x03\x04" + bytes(range(256)))
    assert "expected JSON" in refusal(path)


def test_text_of_other_consoles_is_read(tmp_path: Path):
    path = tmp_path / "r.json"
    for encoding in ("utf-8-sig", "utf-16", "utf-8"):
        path.write_text(render(report()), encoding=encoding)
        assert load_report(path) == report()


def test_parse_keeps_ordinary_json():
    assert parse(b'{"a": [1, -2.5e3, null, true, "x"], "b": 1e-400}') == {
        "a": [1, -2500.0, None, True, "x"],
        "b": 0.0,
    }
