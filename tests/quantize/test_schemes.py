"""The names of schemes."""

import subprocess
import sys

import pytest

from qwd.errors import UsageError
from qwd.quantize.schemes import (
    AO_DEFAULT,
    AO_STATIC,
    BITS,
    CLIPS,
    DEFAULT_SCHEMES,
    GRANULARITIES,
    KINDS,
    Scheme,
    expand,
    on_backends,
    parse_scheme,
)

WEIGHTS = [
    Scheme(kind, granularity, bits, clip=clip)
    for kind in KINDS
    for granularity in GRANULARITIES
    for bits in BITS
    for clip in CLIPS
]
INTEGER = [
    Scheme(kind, granularity, bits, 8, "ao")
    for kind in ("affine", "symmetric")
    for granularity in GRANULARITIES
    for bits in BITS
]
ELSEWHERE = [
    Scheme(kind, "tensor", 8, activations, backend, engine)
    for kind in KINDS
    for activations in (4, 8)
    for backend, engine in (("simulated", None), ("onnx", None), ("ao", "qnnpack"), ("ao", None))
]


@pytest.mark.parametrize("scheme", WEIGHTS + INTEGER + ELSEWHERE, ids=lambda s: s.name)
def test_every_scheme_is_found_by_both_names(scheme):
    assert parse_scheme(scheme.name) == scheme
    at = f"{scheme.full_name}@{scheme.backend}" + (f":{scheme.engine}" if scheme.engine else "")
    assert parse_scheme(at) == scheme
    assert parse_scheme(f"  {scheme.name.upper()}\n") == scheme


def test_names_are_different():
    assert len({s.name for s in WEIGHTS + INTEGER + ELSEWHERE}) == len(
        {*WEIGHTS, *INTEGER, *ELSEWHERE}
    )


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
        ("affine-tensor-w8-a8@ao", "ao-static"),
        ("affine-tensor-w8-a8@onnx", "onnx-static"),
        ("affine-tensor-w8-a8@simulated", "simulated-static"),
        ("symmetric-channel-w8-a8@pt2e", "pt2e-default"),
        ("minmax-tensor-w8-a8", "minmax-tensor-w8-a8"),
        ("pow2-tensor-a8@simulated", "pow2-tensor-w8-a8"),
        ("affine-channel-mse-w4", "affine-channel-mse-w4"),
        ("affine-tensor-w4-a8@ao:fbgemm", "affine-tensor-w4-a8@ao:fbgemm"),
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
        ("minmax-tensor-w9", "did you mean 'minmax-tensor"),
        ("minmax-tensor-w1", "did you mean 'minmax-tensor"),
        ("affine-tensor-w8-a9", "did you mean 'affine-tensor-w8-a8'"),
        ("affine-tensor-w8-a8-qat", "has its scheme without being asked"),
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
        "affine-tensor-w6-a8",
        "affine-tensor-w4-a8",
    ]
    assert names(DEFAULT_SCHEMES[4:], (8, 4)) == ["ao-default"]
    twice = [parse_scheme("minmax-tensor-w6"), parse_scheme("minmax-tensor"), AO_STATIC, AO_STATIC]
    static = ["affine-tensor-w4-a8", "ao-static"]
    stated = ["minmax-tensor-w6", "minmax-tensor-w4", "minmax-tensor", *static]
    assert names(twice, (4, 4, 8)) == stated
    for bits in (1, 9):
        with pytest.raises(UsageError, match=f"--bits {bits}: weights take 2 to 8 bits"):
            expand(DEFAULT_SCHEMES, (8, bits))


def test_backends_that_are_asked_for_run_what_names_none():
    def names(schemes, backends):
        return [s.name for s in on_backends([parse_scheme(s) for s in schemes], backends)]

    assert names(["affine-tensor", "ao-static"], []) == ["affine-tensor", "ao-static"]
    asked = ["affine-tensor", "ao-static", "onnx-static", "affine-tensor-w4-a8"]
    assert names(asked, ["simulated", "ao:fbgemm"]) == [
        "affine-tensor",
        "simulated-static",
        "affine-tensor-w8-a8@ao:fbgemm",
        "onnx-static",
        "affine-tensor-w4-a8@simulated",
        "affine-tensor-w4-a8@ao:fbgemm",
    ]
    with pytest.raises(
        UsageError, match=r"onx': expected a known quantization backend \(did you mean 'onnx'"
    ):
        on_backends([AO_STATIC], ["onx"])
    with pytest.raises(
        UsageError, match=r"onx': expected a known quantization backend \(did you mean 'onnx'"
    ):
        parse_scheme("affine-tensor-w8-a8@onx")


def test_torch_is_not_imported():
    code = "import sys, qwd.quantize.schemes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
