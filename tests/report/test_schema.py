"""The published schema: strict, and what the data classes say."""

import copy
import dataclasses
from dataclasses import MISSING
from typing import Any, get_args, get_type_hints

import pytest
from jsonschema import Draft202012Validator

from qwd.errors import InputError
from qwd.quantize.figures import WeightFigures
from qwd.report import figures as data_classes
from qwd.report.load import schema, validate

from .builders import changed, report

TENSOR = ("models", 0, "tensors", 0)
SCHEME = ("models", 0, "schemes", "ao-static")


@pytest.mark.parametrize(
    ("keys", "value", "where"),
    [
        (("models", 0, "name"), 3, "$.models[0].name"),
        (("models", 0, "name"), None, "$.models[0].name"),
        (("models", 0, "extra"), 1, "$.models[0]"),
        (("extra",), 1, "$"),
        (("models", 0, "parameters"), -1, "$.models[0].parameters"),
        (("models", 0, "parameters"), 1.5, "$.models[0].parameters"),
        (("models", 0, "parameters"), 10**300, "$.models[0].parameters"),
        (("models", 0, "parameters"), True, "$.models[0].parameters"),
        (("models", 0, "config"), [], "$.models[0].config"),
        (("models", 0, "data", "sha256"), "ab", "$.models[0].data.sha256"),
        (("models", 0, "data", "sha256"), "ab" * 32 + "\n", "$.models[0].data.sha256"),
        (("models", 0, "float_accuracy"), 97.5, "$.models[0].float_accuracy"),
        (("models", 0, "summary", "flip_rate"), -0.1, "$.models[0].summary.flip_rate"),
        (("models", 0, "warnings"), [3], "$.models[0].warnings[0]"),
        ((*SCHEME, "accuracy"), 1.01, "$.models[0].schemes['ao-static'].accuracy"),
        ((*SCHEME, "accuracy"), None, "$.models[0].schemes['ao-static'].accuracy"),
        ((*SCHEME, "granularity"), "row", "$.models[0].schemes['ao-static'].granularity"),
        ((*TENSOR, "a"), "0.1", "$.models[0].tensors[0].a"),
        ((*TENSOR, "zeros"), None, "$.models[0].tensors[0].zeros"),
        ((*TENSOR, "extra"), 1, "$.models[0].tensors[0]"),
        ((*TENSOR, "folded", "extra"), 1, "$.models[0].tensors[0].folded"),
        ((*TENSOR, "folded", "name"), "x", "$.models[0].tensors[0].folded"),
        ((*TENSOR, "folded"), [], "$.models[0].tensors[0].folded"),
        ((*TENSOR, "folded"), {}, "$.models[0].tensors[0].folded"),
        ((*TENSOR, "outliers", "sigma>6"), -1, "$.models[0].tensors[0].outliers['sigma>6']"),
        (("models", 0, "deployed", 0, "sources"), "a", "$.models[0].deployed[0].sources"),
        (("models", 0, "\x1b[31m\u202e"), 1, "$.models[0]"),
        (("models", 0, "schemes", "\x1b[31m\n"), 1, r"\x1b[31m\n"),
    ],
)
def test_the_schema_is_strict(keys: tuple[str | int, ...], value: Any, where: str):
    with pytest.raises(InputError) as caught:
        validate(changed(*keys, to=value))
    assert where in str(caught.value)
    assert str(caught.value).isprintable()


OPTIONAL = {
    *("decay", "deployed", "warnings", "sensitivity", "remedies"),
    *("vectors", "hints", "kind", "norm", "channels", "folded_channels", "widths"),
    *("clip", "qat", "weights_sqnr_db", "training_sqnr_db", "converted_sqnr_db"),
}


@pytest.mark.parametrize("keys", [("models", 0), TENSOR, (*TENSOR, "folded"), SCHEME])
def test_nothing_may_be_missing(keys: tuple[str | int, ...]):
    whole = report().to_dict()
    holder: Any = whole
    for key in keys:
        holder = holder[key]
    for name in set(holder) - OPTIONAL:
        value = copy.deepcopy(whole)
        inner: Any = value
        for key in keys:
            inner = inner[key]
        del inner[name]
        with pytest.raises(InputError, match=name):
            validate(value)


def test_a_long_violation_stays_one_short_line():
    with pytest.raises(InputError) as caught:
        validate(changed("models", 0, "name", to=["x\n" * 10_000]))
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


DEFINITIONS = {
    "model": data_classes.ModelReport,
    "data": data_classes.DataInfo,
    "scheme": data_classes.SchemeResult,
    "summary": data_classes.Summary,
    "figures": WeightFigures,
    "tensor": data_classes.TensorReport,
    "kernel": data_classes.DeployedReport,
    "channels": data_classes.ChannelReport,
    "vectors": data_classes.VectorGroup,
    "comparison": data_classes.Comparison,
    "series": data_classes.Series,
    "group": data_classes.Group,
    "spread": data_classes.Spread,
}


def test_the_schema_is_one():
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_schema_says_what_the_data_classes_say(name: str):
    kind = DEFINITIONS[name]
    definition = schema()["$defs"][name]
    hints = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.name != "figures"}
    assert set(definition["properties"]) == set(fields)
    assert set(definition["required"]) == {n for n, f in fields.items() if f.default is MISSING}
    for field, entry in definition["properties"].items():
        target = schema()["$defs"][entry["$ref"].rpartition("/")[2]] if "$ref" in entry else {}
        types = entry.get("type", target.get("type", ()))
        assert ("null" in types) == (type(None) in get_args(hints[field])), field
