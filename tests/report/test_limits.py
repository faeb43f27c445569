"""``--fail-on``: what is a limit, and when it is exceeded."""

import dataclasses
from decimal import Context, Decimal, Inexact
from fractions import Fraction
from typing import get_args, get_type_hints

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qwd.errors import UsageError
from qwd.report import metrics
from qwd.report.figures import ModelReport, SchemeResult, Summary
from qwd.report.limits import exact, parse_limit

# Limits as text.


@pytest.mark.parametrize(
    ("text", "metric", "direction", "amount", "unit"),
    [
        ("int8_accuracy:-0.5pp", "int8_accuracy", -1, "0.5", "pp"),
        ("drop_pp:+0.2pp", "drop_pp", 1, "0.2", "pp"),
        ("drop_pp:+0.2", "drop_pp", 1, "0.2", ""),
        ("folded_range:+10%", "folded_range", 1, "10", "%"),
        ("sqnr_db:-.5", "sqnr_db", -1, "0.5", ""),
        ("range:+1.", "range", 1, "1", ""),
        ("range:+1e-3", "range", 1, "0.001", ""),
        ("float_accuracy:-0pp", "float_accuracy", -1, "0", "pp"),
        ("parameters:+0", "parameters", 1, "0", ""),
        ("dose:-5%", "dose", -1, "5", "%"),
        ("summary.range:+5%", "range", 1, "5", "%"),
        (" range : + 5 % ", "range", 1, "5", "%"),
        ("schemes.ao-static.accuracy:-1pp", "schemes.ao-static.accuracy", -1, "1", "pp"),
        ("schemes.a.b:c.flip_rate:+1pp", "schemes.a.b:c.flip_rate", 1, "1", "pp"),
    ],
)
def test_limits(text: str, metric: str, direction: int, amount: str, unit: str):
    limit = parse_limit(text)
    assert (limit.metric, limit.direction, limit.unit) == (metric, direction, unit)
    assert limit.amount == Fraction(amount)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "METRIC:LIMIT"),
        ("range", "METRIC:LIMIT"),
        ("ranges:+5%", "did you mean 'range'?"),
        (":+5%", "known: float_accuracy"),
        ("int8_acuracy:-1pp", "did you mean 'int8_accuracy'?"),
        ("summary.ranje:-1", "did you mean"),
        ("name:+1", "no figure"),
        ("config:+1", "no figure"),
        ("schemes:+1", "no figure"),
        ("schemes.ao-static:+1", "no figure"),
        ("schemes.accuracy:-1pp", "no figure"),
        ("schemes.ao-static.acuracy:-1pp", "did you mean 'schemes.ao-static.accuracy'?"),
        ("schemes.mine.engine:-1", "no figure"),
        ("schemes.mine.left_float:-1", "no figure"),
        ("tensors.fc.range:+1", "no figure"),
        ("range:5%", "-5% or +5%?"),
        ("int8_accuracy:0.5pp", "-0.5pp or +0.5pp?"),
        ("range:", "expected a sign"),
        ("range:-", "expected a sign"),
        ("range:--5", "expected a sign"),
        ("range:+5 percent", "expected a sign"),
        ("range:+5%%", "expected a sign"),
        ("range:+0x10", "expected a sign"),
        ("range:+1_000", "expected a sign"),
        ("range:+\u0665", "expected a sign"),
        ("range:\u22125", "expected a sign"),
        ("range:+inf", "finite"),
        ("range:-nan", "finite"),
        ("range:+1e999", "finite"),
        ("range:+1e999999999", "expected a sign"),
        ("range:+1e-999999999", "expected a sign"),
        ("range:+" + "0" * 10_000, "expected a sign"),
        ("range:+5pp", "is no fraction, expected +5 or +5%"),
        ("sqnr_db:-1pp", "is no fraction"),
        ("schemes.ao-static.mcnemar_p:-1pp", "is no fraction"),
        ("parameters:+1pp", "is no fraction"),
        ("int8_accuracy:-5", "no fraction can change by more than 1; in percentage points"),
        ("int8_accuracy:-100pp", "no fraction can change by more than 100pp"),
        ("\x1b[31m:+1", "no figure"),
        ("schemes.\x1b[31m.zzz:+1", "no figure"),
        ("summary.dose:+1", "no figure"),
    ],
)
def test_wrong_limits(text: str, says: str):
    with pytest.raises(UsageError) as caught:
        parse_limit(text)
    message = str(caught.value)
    assert message.startswith(f"--fail-on {text!r}: ")
    assert says in message
    assert message.isprintable()


def test_every_number_of_a_scheme_but_its_bits_can_be_limited():
    hints = get_type_hints(SchemeResult)
    numeric = {n for n, hint in hints.items() if {int, float} & {hint, *get_args(hint)}}
    assert set(metrics.SCHEME) == numeric - {"weight_bits", "activation_bits"}
    assert set(metrics.SUMMARY) == {f.name for f in dataclasses.fields(Summary)}
    assert set(metrics.MODEL) < {f.name for f in dataclasses.fields(ModelReport)}


# Limits as arithmetic.


@pytest.mark.parametrize(
    ("text", "base", "head", "exceeded"),
    [
        # In floats, 0.975 - 0.97 is 0.0050000000000000044.
        ("int8_accuracy:-0.5pp", 0.975, 0.97, False),
        ("int8_accuracy:-0.5pp", 0.975, 0.9699999999999999, True),
        ("int8_accuracy:-0.005", 0.975, 0.97, False),
        ("int8_accuracy:-0.5pp", 0.9, 1.0, False),
        ("int8_accuracy:-0pp", 0.975, 0.975, False),
        ("int8_accuracy:-0pp", 0.975, 0.976, False),
        ("int8_accuracy:-0pp", 0.975, 0.9749999999999999, True),
        ("flip_rate:+1pp", 0.1, 0.11, False),
        ("flip_rate:+1pp", 0.1, 0.11000000000000001, True),
        ("drop_pp:+0.3pp", 0.1, 0.4, False),
        ("drop_pp:+0.3", 0.1, 0.4, False),
        ("drop_pp:+0.3pp", 0.1, 0.4000000000000001, True),
        ("drop_pp:+10%", -1.0, -0.9, False),
        ("drop_pp:+10%", -1.0, -0.8999, True),
        ("drop_pp:+10%", -1.0, -5.0, False),
        ("range:+10%", 0.7, 0.77, False),
        ("range:+10%", 0.7, 0.7700000000000001, True),
        ("range:-10%", 0.7, 0.63, False),
        ("range:+1000%", 0.0, 5e-324, True),
        ("range:+0%", 0.0, 0.0, False),
        ("range:-10%", 0.0, 1.0, False),
        ("sqnr_db:-1", 40.1, 39.1, False),
        ("sqnr_db:-1", 40.1, 39.09, True),
        ("parameters:+0%", 2**53, 2**53 + 1, True),
        ("parameters:+1", 2**53, 2**53 + 1, False),
    ],
)
def test_reaching_a_limit_passes_and_exceeding_it_fails(
    text: str, base: float, head: float, exceeded: bool
):
    assert parse_limit(text).exceeded_by(base, head) is exceeded


EXACT = Context(prec=3000, Emax=10**6, Emin=-(10**6), traps=[Inexact])
values = st.floats(-1e6, 1e6) | st.integers(-1000, 1000).map(lambda n: n / 1000)


@settings(max_examples=300, deadline=None)
@given(
    values,
    values,
    st.decimals(0, 1, places=4),
    st.sampled_from(["+", "-"]),
    st.sampled_from(["", "%", "pp"]),
    st.sampled_from(["drop_pp", "flip_rate", "range"]),
)
@example(0.975, 0.97, Decimal("0.5"), "-", "pp", "flip_rate")
@example(0.7, 0.77, Decimal("10"), "+", "%", "range")
def test_limits_agree_with_long_decimals(
    base: float, head: float, amount: Decimal, sign: str, unit: str, metric: str
):
    if (metric, unit) == ("range", "pp") or (metric == "flip_rate" and amount == 1):
        unit = "%"
    limit = parse_limit(f"{metric}:{sign}{amount}{unit}")
    b, h = Decimal(repr(base)), Decimal(repr(head))
    harm = EXACT.subtract(h, b) if sign == "+" else EXACT.subtract(b, h)
    hundred = 100 if unit == "%" or (unit == "pp" and metric == "flip_rate") else 1
    allowed = EXACT.multiply(amount, abs(b)) if unit == "%" else amount
    assert limit.exceeded_by(base, head) == (EXACT.multiply(harm, Decimal(hundred)) > allowed)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_exact_is_the_shortest_decimal(value: float):
    assert exact(value) == Fraction(Decimal(repr(value)))
    assert float(exact(value)) == value
