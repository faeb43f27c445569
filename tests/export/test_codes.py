"""Weights as codes in a file: back to the same w', to the last bit; and files that lie."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import qwd
from qwd.checkpoints import read_safetensors
from qwd.errors import InputError
from qwd.export import codes
from qwd.quantize.arithmetic import arithmetic_dtype, quantize
from qwd.quantize.schemes import KINDS
from tests.quantize.draws import drawn, seeds


def coded(w: torch.Tensor, kind: Any, bits: int = 8, axis: int | None = None) -> codes.Coded:
    return codes.Coded(
        quantized=quantize(w, kind=kind, bits=bits, axis=axis),
        kind=kind,
        bits=bits,
        axis=axis,
        arithmetic=arithmetic_dtype(w.dtype),
    )


def written(path: Path, weights: dict[str, codes.Coded], **others: torch.Tensor) -> Path:
    path.write_bytes(codes.contents(weights, others, {"wd": "0.0001"}))
    return path


def same_bits(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal in dtype, shape and every bit: 0.0 is not -0.0."""
    alike = (found.dtype, found.shape) == (expected.dtype, expected.shape)
    bits = {torch.float32: torch.int32, torch.float64: torch.int64}[expected.dtype]
    return alike and torch.equal(found.view(bits), expected.view(bits))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


SIZES = (1e-42, 1e-38, 1e-20, 1.0, 1e20, 1e36)
"""from numbers below float32's normal ones to the end of its range"""


@settings(max_examples=150)
@given(
    seed=seeds,
    kind=st.sampled_from(KINDS),
    bits=st.integers(2, 8),
    axis=st.sampled_from([None, 0, 1]),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3)),
    size=st.sampled_from(SIZES),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16]),
    dead=st.booleans(),
)
def test_any_weight_reads_back_as_its_w_prime(
    folder: Path, seed, kind, bits, axis, shape, size, dtype, dead
) -> None:
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(shape, generator=generator, dtype=torch.float64)
    # Channels of sizes far apart, some of them zero.
    w = w * 10.0 ** torch.randint(-4, 3, (shape[0], 1, 1), generator=generator) * size
    if dead:
        w[0] = 0
    limits = torch.finfo(dtype)
    w = w.clamp(limits.min, limits.max).to(dtype)
    weight = coded(w, kind, bits, axis)
    file = written(folder / "w.safetensors", {"w": weight}, bias=torch.ones(3))
    found = codes.load(file)
    assert set(found) == {"w", "bias"}
    assert same_bits(found["w"], weight.quantized.values)
    assert torch.equal(found["bias"], torch.ones(3))
    stored = load_file(file)
    assert stored["w"].dtype == (torch.uint8 if kind == "minmax" else torch.int8)
    assert torch.equal(stored["w"].int(), weight.quantized.codes)
    assert torch.equal(stored["w.scale"].double(), weight.quantized.scale)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "w",
    [
        torch.zeros(2, 3),
        torch.tensor(0.7),
        torch.tensor([[-0.3]]),
        torch.full((2, 2), 1e-45),
        torch.tensor([[-3e38, 3e38], [1e-45, -1e-45]]),
        torch.tensor([[-1.7e308, 1.7e308]], dtype=torch.float64),
        torch.tensor([[0.0, 5e-324]], dtype=torch.float64),
        torch.zeros(0, 4),
    ],
    ids=["zeros", "0-d", "single", "denormal", "both ends", "float64", "least", "empty"],
)
def test_odd_weights_read_back(tmp_path: Path, kind: Any, w: torch.Tensor) -> None:
    for axis in (None, 0) if w.ndim else (None,):
        weight = coded(w, kind, axis=axis)
        file = written(tmp_path / "w.safetensors", {"w": weight})
        assert same_bits(codes.load(file)["w"], weight.quantized.values)


@settings(max_examples=60)
@given(seed=seeds, kind=st.sampled_from(KINDS))
def test_scales_are_float32_where_that_is_exact(folder: Path, seed, kind) -> None:
    weight = coded(drawn(seed, 40).reshape(4, 10), kind, axis=0)
    scale = load_file(written(folder / "s.safetensors", {"w": weight}))["w.scale"]
    exact = bool((weight.quantized.scale.float().double() == weight.quantized.scale).all())
    assert scale.dtype == (torch.float32 if exact else torch.float64)


def test_the_package_offers_load_and_metadata_are_kept(tmp_path: Path) -> None:
    weight = coded(drawn(0, 12).reshape(3, 4), "affine")
    file = written(tmp_path / "w.safetensors", {"w": weight})
    assert same_bits(qwd.export.load(file)["w"], weight.quantized.values)
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata["wd"] == "0.0001"
    assert json.loads(metadata["weights"])["w"]["kind"] == "affine"


def test_what_no_code_stands_for_is_not_written(tmp_path: Path) -> None:
    weight = coded(torch.tensor([[1.0, float("nan")]]), "affine")
    with pytest.raises(InputError, match="w has elements that are not finite"):
        codes.contents({"w": weight}, {}, {})
    weight = coded(torch.ones(2, 2), "affine")
    with pytest.raises(InputError, match="two tensors are called 'w.scale'"):
        codes.contents({"w": weight}, {"w.scale": torch.ones(2)}, {})


Stored = dict[str, torch.Tensor]
Described = dict[str, Any]


def without(name: str) -> Callable[[Stored, Described], object]:
    return lambda stored, described: stored.pop(name)


def tensor(name: str, to: torch.Tensor) -> Callable[[Stored, Described], object]:
    return lambda stored, described: stored.update({name: to})


def says(**changes: Any) -> Callable[[Stored, Described], object]:
    return lambda stored, described: described["w"].update(changes)


NAN = torch.full((3,), float("nan"))
LIES = {
    "codes of another dtype": (tensor("w", torch.ones(3, 4)), "'w' is float32, expected int8"),
    "codes of the other kind": (says(kind="minmax"), "'w' is int8, expected uint8"),
    "codes beyond the width": (says(bits=2), "expected codes from -2 to 1"),
    "no codes": (without("w"), "'w' is missing"),
    "no scale": (without("w.scale"), "'w.scale' is missing"),
    "no zero point": (without("w.zero_point"), "'w.zero_point' is missing"),
    "NaN for a scale": (tensor("w.scale", NAN), "expected scales that are finite"),
    "an infinite scale": (tensor("w.scale", NAN.nan_to_num(torch.inf)), "that are finite"),
    "a negative scale": (tensor("w.scale", -torch.ones(3)), "finite and not negative"),
    "an integer scale": (tensor("w.scale", torch.ones(3).int()), "is int32, expected float32 or"),
    "scales of another shape": (tensor("w.scale", torch.ones(4)), "has shape [4], expected [3]"),
    "one scale for channels": (tensor("w.scale", torch.tensor(1.0)), "shape [], expected [3]"),
    "zero points of another shape": (
        tensor("w.zero_point", torch.zeros(2, dtype=torch.int8)),
        "'w.zero_point' has shape [2]",
    ),
    "wide zero points": (tensor("w.zero_point", torch.zeros(3).long()), "is int64, expected int8"),
    "zero points beyond the codes": (
        lambda stored, described: (
            described["w"].update(bits=7),
            stored["w"].zero_(),
            stored["w.zero_point"].fill_(100),
        ),
        "expected zero points from -64 to 63",
    ),
    "an axis that is not there": (says(axis=2), "axis 2 of codes of 2 dimensions"),
    "a negative axis": (says(axis=-1), "axis -1: expected null or a whole number"),
    "an axis that is none": (says(axis=True), "axis True"),
    "an unknown kind": (says(kind="log"), "kind 'log': expected one of"),
    "a list for a kind": (says(kind=["affine"]), "kind ['affine']"),
    "too many bits": (says(bits=16), "bits 16: expected 2 to 8"),
    "half a bit": (says(bits=7.5), "bits 7.5"),
    "an unknown dtype": (says(dtype="object"), "dtype 'object': expected one of"),
    "a list for a dtype": (says(arithmetic=[]), "arithmetic []: expected one of"),
    "something more": (says(more=1), "expected a description with arithmetic, axis"),
    "no description": (lambda stored, described: described.update(w=None), "a description with"),
}


@pytest.mark.parametrize("lie", LIES)
def test_files_that_no_quantization_gives_are_refused_in_one_line(lie: str, tmp_path: Path) -> None:
    change, words = LIES[lie]
    file = written(
        tmp_path / "w.safetensors", {"w": coded(drawn(3, 12).reshape(3, 4), "affine", axis=0)}
    )
    _, metadata = read_safetensors(file)  # without the checksums, which would tell at once
    stored, described = load_file(file), json.loads(metadata["weights"])
    assert codes.load(file)
    change(stored, described)
    save_file(stored, file, {**metadata, "weights": json.dumps(described)})
    with pytest.raises(InputError) as caught:
        codes.load(file)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (None, "expected a file of `qwd export`"),
        ({"qwd_export": "2", "weights": "{}"}, "it has '2'"),
        ({"qwd_export": "1"}, "`weights` is not JSON"),
        ({"qwd_export": "1", "weights": "[" * 100_000}, "`weights` is not JSON"),
        ({"qwd_export": "1", "weights": "[]"}, "`weights` is no JSON object"),
    ],
)
def test_other_safetensors_files_are_refused(tmp_path: Path, metadata: Any, words: str) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors", metadata)
    with pytest.raises(InputError, match=words):
        codes.load(tmp_path / "w.safetensors")


def test_what_is_no_file_of_codes_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        codes.load(tmp_path / "absent.safetensors")
    with pytest.raises(InputError, match="is no file"):
        codes.load(tmp_path)
    whole = written(tmp_path / "w.safetensors", {"w": coded(torch.ones(4, 4), "affine")})
    (tmp_path / "half.safetensors").write_bytes(whole.read_bytes()[:-5])
    with pytest.raises(InputError, match="cannot read .*half.safetensors as safetensors"):
        codes.load(tmp_path / "half.safetensors")
