"""The names of schemes."""

import subprocess
import sys

import pytest

from qwd.errors import UsageError
from qwd.quantize.schemes import (
    AO_DEFAULT,
    AO_STATIC,
    BITS,
    DEFAULT_SCHEMES,
    GRANULARITIES,
    Scheme,
    expand,
    parse_scheme,
)

WEIGHTS = [
    Scheme(kind, granularity, bits)
    for kind in ("minmax", "affine", "symmetric")
    for granularity in GRANULARITIES
    for bits in BITS
]
INTEGER = [
    Scheme(kind, granularity, 8, 8, "ao")
    for kind in ("affine", "symmetric")
    for granularity in GRANULARITIES
]


@pytest.mark.parametrize("scheme", WEIGHTS + INTEGER, ids=lambda s: s.full_name)
def test_every_scheme_is_found_by_both_names(scheme):
    assert parse_scheme(scheme.name) == scheme
    assert parse_scheme(scheme.full_name) == scheme
    assert parse_scheme(f"  {scheme.name.upper()}\n") == scheme


def test_names_are_different():
    assert len({s.name for s in WEIGHTS + INTEGER}) == len(WEIGHTS + INTEGER)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("minmax-tensor-w8", "minmax-tensor"),
        ("minmax-tensor-w6", "minmax-tensor-w6"),
        ("affine-channel", "affine-channel"),
        ("affine-tensor-w8-a8", "ao-static"),
        ("symmetric-channel-w8-a8", "ao-default"),
        ("affine-channel-w8-a8", "affine-channel-w8-a8"),
        ("symmetric-tensor-w8-a8", "symmetric-tensor-w8-a8"),
        ("ao-static", "ao-static"),
        ("ao-default", "ao-default"),
    ],
)
def test_canonical_names(text, name):
    assert parse_scheme(text).name == name


def test_backends():
    assert Scheme("affine", "tensor", 8, 8, "ao") == AO_STATIC
    assert parse_scheme("ao-static") == AO_STATIC
    assert parse_scheme("ao-default") == AO_DEFAULT
    assert all(parse_scheme(s.name).backend == "ao" for s in INTEGER)
    assert all(parse_scheme(s.name).backend == "weights" for s in WEIGHTS)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("ao-statc", "did you mean 'ao-static'"),
        ("minmax-tensor-w9", "did you mean 'minmax-tensor-w8'"),
        ("minmax-tensor-w1", "did you mean 'minmax-tensor-w"),
        ("affine-tensor-w8-a7", "did you mean 'affine-tensor-w8-a8'"),
        ("affine-tensor-w4-a8", "did you mean 'affine-tensor-w8-a8'"),
        ("minmax-tensor-w8-a8", "did you mean '"),
        ("minmax_tensor", "did you mean 'minmax-tensor'"),
        ("int8", "minmax-tensor, affine-tensor, affine-channel, ao-static, ao-default, or <minmax"),
        ("", "minmax-tensor, affine-tensor"),
    ],
)
def test_another_name_is_refused_with_a_right_one(text, hint):
    with pytest.raises(UsageError, match="unknown scheme") as refused:
        parse_scheme(text)
    assert hint in str(refused.value)
    assert repr(text) in str(refused.value)


def test_defaults():
    names = [s.name for s in DEFAULT_SCHEMES]
    assert names == ["minmax-tensor", "affine-tensor", "affine-channel", "ao-static", "ao-default"]


def test_expand():
    def names(schemes, bits):
        return [s.name for s in expand(schemes, bits)]

    assert names(DEFAULT_SCHEMES, (8,)) == [s.name for s in DEFAULT_SCHEMES]
    assert names(DEFAULT_SCHEMES[::3], (8, 6, 4)) == [
        "minmax-tensor",
        "minmax-tensor-w6",
        "minmax-tensor-w4",
        "ao-static",
    ]
    twice = [parse_scheme("minmax-tensor-w6"), parse_scheme("minmax-tensor"), AO_STATIC, AO_STATIC]
    stated = ["minmax-tensor-w6", "minmax-tensor-w4", "minmax-tensor", "ao-static"]
    assert names(twice, (4, 4, 8)) == stated
    for bits in (1, 9):
        with pytest.raises(UsageError, match=f"--bits {bits}: weights take 2 to 8 bits"):
            expand(DEFAULT_SCHEMES, (8, bits))


def test_torch_is_not_imported():
    code = "import sys, qwd.quantize.schemes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
