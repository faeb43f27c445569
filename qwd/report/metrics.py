"""The figures of a model that have a name: what `qwd compare` compares and `--fail-on` limits.

A name is a field of `Summary`, or a dotted key below a model: ``dose``,
``schemes.ao-static.accuracy``.
"""

import dataclasses
import math
from typing import Literal

from qwd.registry import suggestion
from qwd.report.figures import ModelReport, Summary

SUMMARY = tuple(field.name for field in dataclasses.fields(Summary))
MODEL = ("parameters", "dose")
WEIGHTS_SQNR = ("weights_sqnr_db", "training_sqnr_db", "converted_sqnr_db")
SCHEME = (
    *("accuracy", "drop_pp", "flip_rate", "flip_n", "kl", "mcnemar_p", "quantized_ops"),
    *WEIGHTS_SQNR,
)

INT8 = "ao-static"
"""the scheme behind ``int8_accuracy``, ``drop_pp`` and ``flip_rate`` of `Summary`"""
OF_INT8 = {"int8_accuracy", "drop_pp", "flip_rate"}

Unit = Literal["fraction", "pp", "dB", "count", "number"]
_UNITS: dict[str, Unit] = {
    **dict.fromkeys(("float_accuracy", "int8_accuracy", "accuracy", "flip_rate"), "fraction"),
    **dict.fromkeys(("parameters", "flip_n", "quantized_ops"), "count"),
    **dict.fromkeys(("sqnr_db", "folded_sqnr_db", *WEIGHTS_SQNR), "dB"),
    "drop_pp": "pp",
}


def unit(metric: str) -> Unit:
    """What a metric is counted in; fractions are accuracies and rates in [0, 1]."""
    return _UNITS.get(metric.rpartition(".")[2], "number")


def checked(name: str) -> str:
    """The metric called ``name``, which may also be spelled ``summary.<field>``.

    Raises ValueError with the nearest known name. Which schemes there are is up to the reports,
    so any scheme's name passes.
    """
    short = name.removeprefix("summary.")
    if short in SUMMARY:
        return short
    scheme, field = _in_scheme(name)
    if name in MODEL or (scheme and field in SCHEME):
        return name
    known = [*SUMMARY, *MODEL, *(f"schemes.{scheme or INT8}.{field}" for field in SCHEME)]
    raise ValueError(suggestion(short, known))


def figure(model: ModelReport, metric: str) -> float | None:
    """A model's value of a known metric; None where the report holds none.

    An accuracy without the data or the scheme it was measured under cannot be compared, and
    counts as none.
    """
    scheme, field = _in_scheme(metric)
    measured_under = scheme or (INT8 if field in OF_INT8 else "")
    if measured_under and measured_under not in model.schemes:
        return None
    if (measured_under or field == "float_accuracy") and model.data is None:
        return None
    holder = model.schemes[scheme] if scheme else model if field in MODEL else model.summary
    value = getattr(holder, field)
    return value if value is not None and math.isfinite(value) else None


def _in_scheme(metric: str) -> tuple[str, str]:
    """``schemes.NAME.FIELD`` as (NAME, FIELD), anything else as ('', metric)."""
    prefix, _, rest = metric.partition(".")
    scheme, _, field = rest.rpartition(".")
    return (scheme, field) if prefix == "schemes" and scheme else ("", metric)
