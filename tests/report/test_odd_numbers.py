"""Weights of odd numbers, from file to every output: each reported, warned of, or refused by name.

The figures themselves are tested with `qwd.quantize`; here nothing may break, be NaN or go missing
in silence between a file and what a reader sees. docs/weights.md has the same table.
"""

import csv
import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import qwd
from qwd.errors import InputError
from qwd.export.entry import export
from qwd.registry import RENDERERS
from qwd.report.load import load_report
from tests.commands import qwd as command


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normally distributed weights."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def with_element(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normally distributed weights, one of them replaced."""
    w = drawn(8, 16)
    w[3, 5] = value
    return w.to(dtype)


LARGE = torch.tensor([[-3e38, 3e38], [1.0, 2.0]])
WIDEST = torch.tensor([[-1.7e308, 1.7e308], [0.0, 1.0]], dtype=torch.float64)
FLOAT8 = (
    *(torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
)
REPORTED = {
    "NaN": (with_element(math.nan), "w: 1 NaN and 0 infinite elements left out"),
    "infinite": (with_element(math.inf), "w: 0 NaN and 1 infinite elements left out"),
    "negative infinite": (with_element(-math.inf), "w: 0 NaN and 1 infinite elements left out"),
    "NaN alone": (torch.full((4, 4), math.nan), "w: 16 NaN and 0 infinite elements left out"),
    "NaN in float8": (
        with_element(math.nan, torch.float8_e5m2),
        "w: 1 NaN and 0 infinite elements left out",
    ),
    "zeros": (torch.zeros(8, 16), "w: 8 of 8 channels are all zero (0, 1, 2, 3, 4, ...)"),
    "negative zeros": (-torch.zeros(2, 2), "w: 2 of 2 channels are all zero (0, 1)"),
    "constant": (torch.full((8, 16), 0.3), None),
    "one element": (torch.tensor([[0.7]]), None),
    "empty": (torch.zeros(0, 16), "w: it has no elements"),
    "denormal": (drawn(8, 16) * 1e-40, None),
    "3e38": (LARGE, None),
    "3e38 in bfloat16": (LARGE.bfloat16(), None),
    "1e300": (drawn(8, 16, dtype=torch.float64) * 1e300, None),
    "beyond float64": (WIDEST, "w: its range is beyond float64"),
    "float16": (drawn(8, 16, dtype=torch.float16), None),
    "bfloat16": (drawn(8, 16, dtype=torch.bfloat16), None),
    **{str(dtype): (drawn(8, 16, dtype=dtype), None) for dtype in FLOAT8},
    "float8_e8m0fnu": (drawn(8, 16).abs().to(torch.float8_e8m0fnu), None),
    "outlier in float8": (with_element(50.0, torch.float8_e4m3fn), None),
    "five dimensions": (drawn(2, 2, 2, 2, 2), None),
    "view": (drawn(16, 32)[::2, ::2].t(), None),
}
LEFT_OUT = {
    "int8": torch.ones(4, 4, dtype=torch.int8),
    "uint16": torch.ones(4, 4, dtype=torch.uint16),
    "int64": torch.full((4, 4), 2**62),
    "bool": torch.ones(4, 4, dtype=torch.bool),
    "complex64": torch.ones(4, 4, dtype=torch.complex64),
}
REFUSED = {
    "sparse": (lambda w: w.to_sparse(), "it holds a sparse tensor"),
    "compressed": (lambda w: w.to_sparse_csr(), "it holds a sparse tensor"),
    "quantized": (
        lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
        "it holds a quantized tensor",
    ),
    "meta": (lambda w: w.to("meta"), "it holds a meta tensor, which has no values"),
    "conjugated": (lambda w: w.to(torch.complex64).conj(), "conjugated or negated"),
    "expanded": (lambda w: w[:, :1].expand(4, 16), "repeats a storage"),
}


def saved(path: Path, w: Tensor) -> Path:
    """``w`` beside an ordinary weight."""
    state = {"w": w, "ok": drawn(8, 16)}
    if path.suffix == ".pt":
        torch.save(state, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("what", REPORTED)
def test_weights_that_are_reported(what: str, ending: str, tmp_path: Path) -> None:
    w, warning = REPORTED[what]
    made = qwd.report(saved(tmp_path / f"m{ending}", w))
    said = [text for text in made.models[0].warnings if text.startswith("w: ")]
    assert said == ([warning] if warning else [])
    figures = {tensor.name: tensor.figures for tensor in made.models[0].tensors}
    assert sorted(figures) == ["ok", "w"]
    found, exact = figures["w"], w.double()[w.double().isfinite()]
    if found.a is not None and found.b is not None:
        assert (found.a, found.b) == (exact.min().item(), exact.max().item())
        assert found.range == (None if w is WIDEST else found.b - found.a)
        assert found.scale == pytest.approx((found.b / 255 - found.a / 255), rel=1e-12)
    else:
        assert not exact.numel()
        assert (found.a, found.b, found.range, found.scale) == (None,) * 4
    for name in RENDERERS.names():
        (tmp_path / f"r.{name}").write_text(RENDERERS.get(name)(made))
    assert load_report(tmp_path / "r.json") == made
    with (tmp_path / "r.csv").open(newline="") as file:
        cells = {cell for row in list(csv.reader(file))[1:] for cell in row}
    assert not cells & {"nan", "inf", "-inf"}


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("what", LEFT_OUT)
def test_tensors_that_are_no_floats_are_left_out(what: str, ending: str, tmp_path: Path) -> None:
    made = qwd.report(saved(tmp_path / f"m{ending}", LEFT_OUT[what]))
    assert [tensor.name for tensor in made.models[0].tensors] == ["ok"]
    assert f"w: {what} tensor left out" in made.models[0].warnings
    json.loads(RENDERERS.get("json")(made))


@pytest.mark.parametrize("what", REFUSED)
def test_tensors_that_are_refused(what: str, tmp_path: Path) -> None:
    make, words = REFUSED[what]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of tensors it will not have much longer
        w = make(drawn(4, 4))
    with pytest.raises(InputError, match=words):
        qwd.report(saved(tmp_path / "m.pt", w))


def test_the_command_reports_odd_numbers_in_every_format(tmp_path: Path) -> None:
    saved(tmp_path / "m.pt", REPORTED["1e300"][0])
    args = ("--json", "r.json", "--csv", "r.csv", "--md", "r.md", "--html", "r.html")
    done = command("quantize-report", "m.pt", *args, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "reported m.pt\n")
    assert load_report(tmp_path / "r.json").models[0].tensors[0].figures.zeros == 0


def to_complex(state: dict[str, Tensor]) -> None:
    """Numbers that have no place in floats."""
    state["7.weight"] = state["7.weight"].to(torch.complex64)


def to_codes(state: dict[str, Tensor]) -> None:
    """Codes without their scale."""
    state["7.weight"] = (state["7.weight"] * 100).to(torch.int8)


def beyond(state: dict[str, Tensor]) -> None:
    """Numbers that float32 has not."""
    state["7.weight"] = state["7.weight"].double() * 1e300


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (to_complex, "7.weight is complex64, expected float32"),
        (to_codes, "7.weight is int8, expected float32"),
        (beyond, r"7.weight holds \d.*e\+\d+, beyond float32"),
    ],
)
def test_a_network_is_not_given_other_numbers_than_the_file_has(
    change, words: str, tmp_path: Path
) -> None:
    from qwd.train.models import build

    state = build("mlp", in_channels=1, image_size=8, num_classes=10).state_dict()
    change(state)
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(InputError, match=f"does not fit --model mlp: {words}"):
        qwd.report(tmp_path / "m.pt", "digits", given={"model": "mlp"})


def test_an_infinite_weight_is_not_exported(tmp_path: Path) -> None:
    from qwd.train.models import build

    state = build("mlp", in_channels=1, image_size=8, num_classes=10).state_dict()
    state["1.weight"][0, 0] = math.inf
    torch.save(state, tmp_path / "m.pt")
    given, out = {"model": "mlp", "data": "digits"}, tmp_path / "m.safetensors"
    with pytest.raises(InputError, match=r"1\.weight has elements that are not finite"):
        export(tmp_path / "m.pt", format="safetensors", given=given, out=out)
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt"]
