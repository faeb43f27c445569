"""A verdict in a report: written, validated, read back and shown by every renderer."""

import copy
import dataclasses
from dataclasses import MISSING, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from qwd.errors import InputError
from qwd.registry import RENDERERS
from qwd.report.figures import Report
from qwd.report.load import load_report, schema, validate
from qwd.report.render import json, text
from qwd.report.verdict import certified, verdict
from qwd.report.verdict import figures as data_classes
from qwd.report.verdict.figures import Certificate, SkippedLayer, Verdict
from qwd.report.verdict.words import Word
from tests.report.cases import HOSTILE

from .sweeps import run, two_decays

CERTIFICATE = Certificate(
    scheme="ao-static",
    seed=None,
    images=360,
    changed=0,
    rescaled=3,
    unchanged=0,
    skipped=(SkippedLayer(name=HOSTILE, reason=HOSTILE),),
)


def with_certificate(found: Verdict) -> Verdict:
    return certified(found, found.settings[0].name, "wd 1e-4", [CERTIFICATE])


def reports() -> dict[str, Report]:
    eight, one = two_decays(), two_decays(1)
    apart = [run(1e-5, 0), run(1e-4, 1)]
    hostile = [replace(m, config={**(m.config or {}), "model": HOSTILE}) for m in eight]
    return {
        "eight seeds": Report(models=tuple(eight), verdict=with_certificate(verdict(eight))),
        "one seed": Report(models=tuple(one), verdict=verdict(one)),
        "no pair": Report(models=tuple(apart), verdict=verdict(apart)),
        "hostile names": Report(models=(), verdict=with_certificate(verdict(hostile))),
    }


@pytest.mark.parametrize("case", reports())
def test_json_is_valid_and_reads_back(case: str, tmp_path: Path) -> None:
    report = reports()[case]
    file = tmp_path / "report.json"
    # Half of a surrogate pair in a name stays JSON.
    file.write_text(json.render(report), encoding="utf-8")
    found = load_report(file).verdict
    assert found == report.verdict
    assert found is not None
    words = [c.word for c in found.settings[0].contrasts[0].changes]
    assert all(word is None or isinstance(word, Word) for word in words)


@pytest.mark.parametrize("name", [*RENDERERS.names(), "text"])
@pytest.mark.parametrize("case", reports())
def test_every_renderer_takes_it(name: str, case: str) -> None:
    render = text.render if name == "text" else RENDERERS.get(name)
    page = render(reports()[case])
    page.encode("utf-8")
    assert all(line.isprintable() for line in page.split("\n"))
    if name in ("text", "markdown"):
        assert "Verdict" in page


@pytest.mark.parametrize("width", [40, 80, 100])
def test_text_fits_the_terminal(width: int) -> None:
    for report in reports().values():
        page = text.render(report, width=width)
        assert all(len(line) <= width for line in page.split("\n"))


def test_a_report_without_a_verdict_stays_as_it_was() -> None:
    assert "Verdict" not in text.render(Report(models=()))
    value = Report(models=()).to_dict()
    assert value["verdict"] is None
    del value["verdict"]
    validate(value)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("family_size",), -1),
        (("settings", 0, "extra"), 1),
        (("settings", 0, "contrasts", 0, "arm", "wd"), "much"),
        (("settings", 0, "contrasts", 0, "changes", 0, "word"), "no difference"),
        (("settings", 0, "contrasts", 0, "changes", 0, "p_holm"), 1.1),
        (("settings", 0, "contrasts", 0, "changes", 0, "unit"), "furlong"),
        (("settings", 0, "contrasts", 0, "raw", "scale"), None),
        (("settings", 0, "contrasts", 0, "certificates", 0, "changed"), None),
    ],
)
def test_the_schema_is_strict(keys: tuple[str | int, ...], value: Any) -> None:
    whole = copy.deepcopy(reports()["eight seeds"].to_dict())
    validate(whole)
    holder: Any = whole["verdict"]
    for key in keys[:-1]:
        holder = holder[key]
    holder[keys[-1]] = value
    with pytest.raises(InputError, match=r"\$\.verdict"):
        validate(whole)


DEFINITIONS = {
    "verdict": data_classes.Verdict,
    "setting_verdict": data_classes.SettingVerdict,
    "arm": data_classes.Arm,
    "contrast": data_classes.Contrast,
    "change": data_classes.Change,
    "scale_shape": data_classes.ScaleShape,
    "estimate": data_classes.Estimate,
    "certificate": data_classes.Certificate,
    "skipped_layer": data_classes.SkippedLayer,
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_schema_says_what_the_data_classes_say(name: str) -> None:
    kind, definition = DEFINITIONS[name], schema()["$defs"][name]
    hints = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    assert set(definition["properties"]) == set(fields)
    assert set(definition["required"]) == {n for n, f in fields.items() if f.default is MISSING}
    for field, entry in definition["properties"].items():
        target = schema()["$defs"][entry["$ref"].rpartition("/")[2]] if "$ref" in entry else {}
        types = entry.get("type", target.get("type", ()))
        assert ("null" in types) == (type(None) in get_args(hints[field])), field


def test_the_words_of_the_schema_are_the_vocabulary() -> None:
    words = schema()["$defs"]["change"]["properties"]["word"]["enum"]
    assert words == [*map(str, Word), None]
