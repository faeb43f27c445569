"""Sensitivity and remedies on the page and in JSON: read back, validated, rendered, escaped."""

import dataclasses
from dataclasses import MISSING, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from qwd.errors import InputError
from qwd.registry import RENDERERS
from qwd.report import variants
from qwd.report.figures import ModelReport, Report
from qwd.report.load import load_report, schema, validate
from qwd.report.render import markdown, text
from qwd.report.variants import Effect, MixedPrecision, Part, Remedies, Remedy, Sensitivity

from .builders import model, report, several
from .cases import HOSTILE


def effect(drop: float = 0.9) -> Effect:
    return Effect(
        accuracy=0.975 - drop / 100,
        drop_pp=drop,
        drop_low_pp=drop - 0.5,
        drop_high_pp=drop + 0.6,
        flip_n=34,
        flip_rate=0.017,
        kl=0.00123,
    )


def part(name: str) -> Part:
    return Part(
        name=name,
        alone=effect(0.81),
        left_float=effect(0.1),
        recovered_pp=0.8,
        recovered_low_pp=0.3,
        recovered_high_pp=1.3,
    )


def sensitivity(names: tuple[str, ...] = ("conv1", "fc"), **changes: Any) -> Sensitivity:
    made = Sensitivity(
        scheme="simulated-static",
        backend="simulated",
        observer="min and max",
        split="validation",
        n=2000,
        float_accuracy=0.975,
        quantized=effect(),
        weights_only=effect(0.7),
        activations_only=effect(0.2),
        layers=tuple(map(part, names)),
        activations=(part("input"),),
        mixed=MixedPrecision(
            left_float=names[:1],
            effect=effect(0.1),
            recovered_pp=0.8,
            recovered_low_pp=0.3,
            recovered_high_pp=1.3,
            by_weights_pp=0.7,
        ),
        advice=(f"leaving {names[0]} in float recovers 0.80 of 0.90 pp",),
    )
    return replace(made, **changes)


def remedy(name: str = "none", **changes: Any) -> Remedy:
    made = Remedy(
        name=name,
        scheme="ao-static",
        backend="ao",
        engine="x86",
        observer="histogram",
        failure=None,
        effect=effect(),
    )
    return replace(made, **changes)


HELPED = remedy(
    "per-channel scales",
    scheme="affine-channel-w8-a8",
    effect=effect(0.1),
    recovered_pp=0.8,
    recovered_low_pp=0.3,
    recovered_high_pp=1.3,
)
REFUSED = remedy(HOSTILE, effect=None, failure=HOSTILE, engine=None, observer=None)


def remedies(**changes: Any) -> Remedies:
    made = Remedies(
        limit_pp=0.5,
        split="validation",
        n=5000,
        float_accuracy=0.975,
        before=remedy(),
        entries=(HELPED, REFUSED),
        chosen="per-channel scales",
        test_split="test",
        test_accuracy=0.9712,
        test_drop_pp=0.38,
        hint="qwd train --qat --from runs/x",
    )
    return replace(made, **changes)


NOTHING = {"chosen": None, "test_split": None, "test_accuracy": None, "test_drop_pp": None}
STUDIED = {
    "both": model(sensitivity=sensitivity(), remedies=remedies()),
    "nothing to do": model(
        sensitivity=sensitivity(mixed=None, activations=(), advice=()),
        remedies=remedies(entries=(), hint=None, **NOTHING),
    ),
    "nothing helped": model(remedies=remedies(entries=(REFUSED,), **NOTHING)),
    "hostile": model(sensitivity=sensitivity((HOSTILE, HOSTILE)), remedies=remedies(hint=HOSTILE)),
}


@pytest.mark.parametrize("name", STUDIED)
def test_what_is_written_comes_back(name: str, tmp_path: Path) -> None:
    made = report(STUDIED[name])
    validate(made.to_dict())
    (tmp_path / "r.json").write_text(RENDERERS.get("json")(made), encoding="utf-8")
    assert load_report(tmp_path / "r.json") == made


@pytest.mark.parametrize("name", STUDIED)
@pytest.mark.parametrize("width", [40, 80, 100])
def test_every_renderer_takes_them(name: str, width: int) -> None:
    made = report(STUDIED[name])
    page = text.render(made, width=width)
    assert all(len(line) <= width and line == line.rstrip() for line in page.split("\n"))
    for renderer in RENDERERS.names():
        page = RENDERERS.get(renderer)(made)
        assert all(line.isprintable() for line in page.split("\n"))


def lines_with(page: str, word: str) -> list[str]:
    return [" ".join(line.split()) for line in page.splitlines() if word in line]


def test_a_sensitivity_in_text() -> None:
    page = text.render(report(STUDIED["both"]), width=200)
    assert "net: sensitivity\n" in page
    assert lines_with(page, "2,000 images") == [
        "simulated-static on the backend simulated, ranges by min and max; 2,000 images of the "
        "validation split, each 0.05 pp; float accuracy 97.50 %"
    ]
    assert lines_with(page, "everything") == [
        "everything 96.60 % 0.90 pp 34 (1.70 %) 0.00123 0.40 to 1.50 pp"
    ]
    assert lines_with(page, "conv1 ")[0] == "conv1 it alone 96.69 % 0.81 pp 34 (1.70 %) 0.00123 - -"
    assert lines_with(page, "all but it")[0] == (
        "all but it 97.40 % 0.10 pp 34 (1.70 %) 0.00123 0.80 pp 0.30 to 1.30 pp"
    )
    assert "Leaving conv1 in float recovers 0.80 of 0.90 pp." in page
    assert "0.4650" not in page[page.index(": sensitivity") :]


def test_remedies_in_text() -> None:
    page = text.render(report(STUDIED["both"]), width=220)
    assert lines_with(page, "as it is") == [
        "as it is 96.60 % 0.90 pp 34 (1.70 %) 0.00123 - - ao-static ao/x86"
    ]
    assert lines_with(page, "affine-channel-w8-a8") == [
        "per-channel scales 97.40 % 0.10 pp 34 (1.70 %) 0.00123 0.80 pp 0.30 to 1.30 pp "
        "affine-channel-w8-a8 ao/x86"
    ]
    (best,) = lines_with(page, "Best: ")
    assert best == (
        "Best: per-channel scales. The drop goes from 0.90 pp (accuracy 96.60 %) to 0.10 pp "
        "(accuracy 97.40 %), within the limit. On the test split, read once: accuracy 97.12 %, "
        "drop 0.38 pp."
    )
    assert "not tried here: qwd train --qat --from runs/x\n" in page
    stricter = report(model(remedies=remedies(limit_pp=0.05)))
    assert "still beyond the limit" in text.render(stricter, width=220)
    fine = text.render(report(STUDIED["nothing to do"]), width=200)
    assert "The drop of 0.90 pp (accuracy 96.60 %) is within the limit: nothing was tried." in fine


def test_the_most_sensitive_layers_are_shown() -> None:
    names = tuple(f"layer{i}" for i in range(12))
    made = report(model(sensitivity=sensitivity(names)))
    page = text.render(made, width=200)
    assert "The most sensitive 10 of 12 layers; --top N shows more." in page
    assert ("layer9" in page, "layer11" in page) == (True, False)
    assert "layer11" in text.render(made, top=0)
    assert "The most sensitive 10 of 12 layers" in markdown.render(made)


def test_studies_that_were_asked_for_are_shown_of_many_models() -> None:
    many = several(6)
    first = replace(many.models[0], sensitivity=sensitivity())
    page = text.render(replace(many, models=(first, *many.models[1:])))
    assert "The details of 6 models are left out" in page
    assert "run0: sensitivity" in page


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("sensitivity", {"n": -1}),
    ("sensitivity", {"advice": ["a", 3]}),
    ("sensitivity", {"quantized": None}),
    ("sensitivity", {"extra": 1}),
    ("remedies", {"limit_pp": -1}),
    ("remedies", {"before": None}),
    ("remedies", {"entries": [3]}),
    ("remedies", {"test_accuracy": 2}),
]


@pytest.mark.parametrize(("study", "change"), CHANGES)
def test_the_schema_is_strict(study: str, change: dict[str, Any]) -> None:
    value = report(STUDIED["both"]).to_dict()
    value["models"][0][study] |= change
    with pytest.raises(InputError, match=rf"\$.models\[0\].{study}"):
        validate(value)


DEFINITIONS = {
    "effect": variants.Effect,
    "part": variants.Part,
    "mixed": variants.MixedPrecision,
    "sensitivity": variants.Sensitivity,
    "remedy": variants.Remedy,
    "remedies": variants.Remedies,
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_schema_says_what_the_data_classes_say(name: str) -> None:
    kind = DEFINITIONS[name]
    definition, hints = schema()["$defs"][name], get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    assert set(definition["properties"]) == set(fields)
    assert set(definition["required"]) == {n for n, f in fields.items() if f.default is MISSING}
    assert definition["additionalProperties"] is False
    for field, entry in definition["properties"].items():
        target = schema()["$defs"][entry["$ref"].rpartition("/")[2]] if "$ref" in entry else {}
        types = entry.get("type", target.get("type", ()))
        assert ("null" in types) == (type(None) in get_args(hints[field])), field


def test_a_report_without_studies_has_none() -> None:
    value = report().to_dict()["models"][0]
    assert (value["sensitivity"], value["remedies"]) == (None, None)
    (loaded,) = Report(models=(model(),)).models
    assert isinstance(loaded, ModelReport)
    assert "sensitivity" not in text.render(report())
