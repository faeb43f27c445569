"""Grids of numbers: exact where people expect it, and every mistake said."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwd.errors import UsageError
from qwd.grid import MOST, grid
from qwd.parsing import number
from qwd.setting import checked

parse = grid(number(least=0))


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("0,1e-5,1e-4", (0.0, 1e-5, 1e-4)),
        ("1e-4", (1e-4,)),
        ("1e-3, 1e-5", (1e-3, 1e-5)),
        ("2^-12", (2.0**-12,)),
        ("10^-3,2^2", (1e-3, 4.0)),
        ("1e-5..1e-2", (1e-5, 1e-4, 1e-3, 1e-2)),
        ("1..1000", (1.0, 10.0, 100.0, 1000.0)),
        ("0.25..2", (0.25, 0.5, 1.0, 2.0)),
        ("2^-2 .. 2^1", (0.25, 0.5, 1.0, 2.0)),
        ("1e-5..1e-3:x3", (1e-5, 3e-5, 9e-5, 2.7e-4, 8.1e-4)),
        ("1e-3..1:x10", (1e-3, 1e-2, 1e-1, 1.0)),
        ("1e-4..1e-2:3", (1e-4, 1e-3, 1e-2)),
        ("3e-4..7e-4:2", (3e-4, 7e-4)),
        ("0,2^-2..1,1e-5..1e-4", (0.0, 0.25, 0.5, 1.0, 1e-5, 1e-4)),
        (1e-4, (1e-4,)),
        (0, (0.0,)),
        ([0, 1e-4, "1e-3..1e-1"], (0.0, 1e-4, 1e-3, 1e-2, 1e-1)),
    ],
)
def test_what_is_typed_is_what_is_meant(typed, values) -> None:
    found = parse(typed)
    assert found == values
    assert all(type(value) is float for value in found)


def test_powers_of_two_are_exact() -> None:
    assert parse("2^-20..2^-6") == tuple(2.0**k for k in range(-20, -5))
    assert parse("2^-1074..2^-1070") == tuple(2.0**k for k in range(-1074, -1069))


def test_every_other_value_of_half_decades_is_a_decade() -> None:
    assert parse("1e-6..1e-2:9")[::2] == (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


def test_a_factor_that_nearly_reaches_the_last_value_reaches_it() -> None:
    assert parse(f"1e-5..1e-3:x{math.sqrt(10)}")[::2] == (1e-5, 1e-4, 1e-3)
    assert parse("1..8.000000001:x2")[-1] == 8.000000001
    assert parse("1..7.99:x2")[-1] == 4.0


@given(
    first=st.floats(1e-300, 1e300),
    ratio=st.floats(1.001, 1e6),
    n=st.integers(2, 40),
)
def test_a_count_gives_as_many_values_even_in_the_logarithm(first, ratio, n) -> None:
    last = first * ratio
    values = parse(f"{first!r}..{last!r}:{n}")
    assert (len(values), values[0], values[-1]) == (n, first, last)
    steps = [math.log(b / a) for a, b in itertools.pairwise(values)]
    assert steps == pytest.approx([math.log(ratio) / (n - 1)] * (n - 1), rel=1e-9, abs=1e-14)


@given(first=st.floats(1e-10, 1e10), ratio=st.floats(1, 1e3), factor=st.floats(1.1, 100))
def test_a_factor_goes_as_far_as_it_can(first, ratio, factor) -> None:
    last = first * ratio * 1.01
    values = parse(f"{first!r}..{last!r}:x{factor!r}")
    assert values[0] == first
    assert values[-1] <= last < values[-1] * factor * (1 + 1e-8)
    assert all(b / a == pytest.approx(factor) for a, b in itertools.pairwise(values))


@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=20, unique=True))
def test_a_list_is_itself(values) -> None:
    assert parse(",".join(map(repr, values))) == tuple(values)


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("", "each a finite number of at least 0"),
        ("1e-5,", "each a finite number of at least 0"),
        ("-1", "each a finite number of at least 0"),
        ("nan", "each a finite number of at least 0"),
        ("1..inf", "each a finite number of at least 0"),
        ("2^9999", "each a finite number of at least 0"),
        ("1e-5:3", "each a finite number of at least 0"),
        ("1..2..4", "each a finite number of at least 0"),
        ("1..", "each a finite number of at least 0"),
        (None, "each a finite number of at least 0"),
        (True, "each a finite number of at least 0"),
        ([], "each a finite number of at least 0"),
        ({}, "each a finite number of at least 0"),
        ("1e-3..1e-5", "starts above 0 and rises"),
        ("1..1", "starts above 0 and rises"),
        ("0..1", "starts above 0 and rises"),
        ("0..1:5", "starts above 0 and rises"),
        ("1e-5..3e-3", "ends in :COUNT or :xFACTOR"),
        ("2^-5..1e-1", "ends in :COUNT or :xFACTOR"),
        ("1e-5..1e-3:1", "the count is a whole number from 2 to 1000"),
        ("1e-5..1e-3:2.5", "the count is a whole number from 2 to 1000"),
        ("1e-5..1e-3:1001", "the count is a whole number from 2 to 1000"),
        ("1e-5..1e-3:", "the count is a whole number from 2 to 1000"),
        ("1e-5..1e-3:x1", "the factor is a finite number greater than 1"),
        ("1e-5..1e-3:x0.5", "the factor is a finite number greater than 1"),
        ("1e-5..1e-3:xnan", "the factor is a finite number greater than 1"),
        ("1e-5..1e-3:x", "the factor is a finite number greater than 1"),
        ("1e-4,1e-4", "none of them twice"),
        ("1e-4,1e-5..1e-3", "none of them twice"),
        ("1..2:x1.00001", f"at most {MOST} of them"),
        (",".join(map(str, range(MOST + 1))), f"at most {MOST} of them"),
    ],
)
def test_what_is_wrong_is_said(typed, reason) -> None:
    with pytest.raises(UsageError) as caught:
        checked("--wd", parse, typed)
    assert str(caught.value).startswith("--wd ")
    assert ": expected a list with commas of numbers and rising ranges, such as " in str(
        caught.value
    )
    assert reason in str(caught.value)


def test_a_single_number_is_the_items_affair() -> None:
    with pytest.raises(ValueError, match="each a finite number greater than 0"):
        grid(number(above=0))("0,1")
    with pytest.raises(ValueError, match="each a finite number of at least 0 and at most 1"):
        grid(number(least=0, most=1))("1e-1..1e1")
