"""Where files go, which formats hold which schemes, and what is not overwritten."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from qwd.errors import StorageError, UsageError
from qwd.export import codes
from qwd.export.formats import FORMATS, format_called, scheme_for
from qwd.export.target import is_export, target

ONNX, PT2, SAFETENSORS = (FORMATS[name] for name in ("onnx", "pt2", "safetensors"))


@pytest.mark.parametrize(
    ("format", "name", "expected"),
    [
        ("onnx", None, "onnx-static"),
        ("onnx", "affine-tensor-w8-a8", "onnx-static"),
        ("onnx", "affine-tensor-a8", "onnx-static"),
        ("onnx", "ONNX-static ", "onnx-static"),
        ("onnx", "symmetric-channel-w8-a8", "symmetric-channel-w8-a8@onnx"),
        ("pt2", None, "pt2e-default"),
        ("pt2", "symmetric-channel-w8-a8", "pt2e-default"),
        ("pt2", "symmetric-channel-w8-a8@pt2e:inductor", "symmetric-channel-w8-a8@pt2e:inductor"),
        ("safetensors", None, "affine-tensor"),
        ("safetensors", "minmax-channel-w3", "minmax-channel-w3"),
        ("safetensors", "pow2-tensor-mse-w4", "pow2-tensor-mse-w4"),
    ],
)
def test_schemes_of_a_format(format: str, name: str | None, expected: str) -> None:
    assert scheme_for(format_called(format), name).name == expected


@pytest.mark.parametrize(
    ("format", "name", "words"),
    [
        (
            "onnx",
            "affine-tensor",
            "--format onnx takes <affine|symmetric>-<tensor|channel>-w2-a8 to",
        ),
        ("onnx", "ao-static", "--scheme ao-static: --format onnx takes"),
        ("onnx", "affine-tensor-w8-a8@simulated", "on the backend 'onnx'"),
        ("onnx", "minmax-tensor-w8-a8", "--format onnx takes"),
        ("pt2", "affine-tensor-w8-a8", "--format pt2 takes symmetric-channel-w8-a8"),
        ("pt2", "symmetric-tensor-w8-a8", "--format pt2 takes symmetric-channel-w8-a8"),
        ("pt2", "onnx-static", "on the backend 'pt2e'"),
        ("safetensors", "affine-tensor-w8-a8", "--format safetensors takes <minmax|affine"),
        ("safetensors", "ao-default", "--format safetensors takes"),
        ("onnx", "affine-tenser-w8-a8", "'affine-tenser-w8-a8': unknown scheme, did you mean"),
    ],
)
def test_schemes_that_a_format_does_not_hold(format: str, name: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        scheme_for(format_called(format), name)
    assert words in str(caught.value)


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="--format 'onx': did you mean 'onnx'?"):
        format_called("onx")


def test_files_are_named_after_the_scheme(tmp_path: Path) -> None:
    per_channel = scheme_for(ONNX, "affine-channel-w8-a8")
    expected = tmp_path / "model-affine-channel-w8-a8.onnx"
    assert target(tmp_path, ONNX, per_channel, None) == expected
    weights = scheme_for(SAFETENSORS, None)
    named = target(Path("there/net.best.pt"), SAFETENSORS, weights, None)
    assert named == Path("net.best-affine-tensor-w8.safetensors")
    assert target(tmp_path, ONNX, per_channel, tmp_path / "new" / "a.onnx").name == "a.onnx"


@pytest.mark.parametrize("out", ["a.safetensor", "a.onnx", "a", "", "folder.safetensors"])
def test_out_ends_as_the_format_does_and_is_no_folder(
    tmp_path: Path, out: str, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.safetensors").mkdir()
    with pytest.raises(UsageError, match="expected a file that ends in .safetensors"):
        target(tmp_path, SAFETENSORS, scheme_for(SAFETENSORS, None), out)


def test_only_files_of_qwd_export_are_replaced(tmp_path: Path) -> None:
    """`--out RUN/model.safetensors` would take the trained weights with it."""
    scheme = scheme_for(SAFETENSORS, None)
    trained = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(3)}, trained)
    with pytest.raises(UsageError, match="model.safetensors exists and is no file of `qwd export`"):
        target(tmp_path, SAFETENSORS, scheme, trained)
    own = tmp_path / "own.safetensors"
    own.write_bytes(codes.contents({}, {}, {}))
    assert target(tmp_path, SAFETENSORS, scheme, own) == own
    (tmp_path / "empty.safetensors").touch()
    assert not is_export(tmp_path / "empty.safetensors")
    foreign = target(tmp_path, ONNX, scheme_for(ONNX, None), None)
    foreign.write_bytes(b"someone else's")
    with pytest.raises(UsageError, match="choose another --out"):
        target(tmp_path, ONNX, scheme_for(ONNX, None), None)


def test_a_place_that_cannot_be_written_is_found_out_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write .*: "):
        target(tmp_path, ONNX, scheme_for(ONNX, None), tmp_path / "file" / "a.onnx")
