"""The way from a run to a file: what is checked, and that a failed check leaves no file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qwd
from qwd.errors import InputError, StorageError, UsageError, VerificationError
from qwd.export import codes, entry
from qwd.export.entry import export
from qwd.export.safetensors_file import SafetensorsFile
from qwd.quantize.folding import deploy
from qwd.quantize.schemes import Scheme
from qwd.report.subject import Subjects
from qwd.train.data import load
from qwd.train.evaluation import accuracy, logits
from qwd.train.session import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = qwd.TrainConfig(epochs=2, threads=1)
    return train(config, out=tmp_path_factory.mktemp("runs") / "run").path


def files(run: Path) -> set[str]:
    return {path.name for path in run.iterdir()}


@pytest.mark.parametrize(
    "scheme",
    [
        *("affine-tensor", "minmax-channel-w3", "symmetric-channel-w4", "affine-channel-w2"),
        *("pow2-tensor-w5", "affine-channel-mse-w3", "minmax-tensor-percentile-w4"),
    ],
)
def test_what_is_written_has_the_accuracy_that_is_said(run: Path, scheme: str) -> None:
    made = export(run, format="safetensors", scheme=scheme)
    file = run / f"model-{scheme.removesuffix('-w8')}.safetensors"
    if scheme == "affine-tensor":
        file = run / "model-affine-tensor-w8.safetensors"
    assert Path(made.path) == file
    subject = Subjects({}).open(run)
    assert subject.model is not None
    network = deploy(subject.model).module
    network.load_state_dict(codes.load(file))
    test = load("digits").test
    assert accuracy(logits(network, test, CPU), test.labels) == made.accuracy
    assert made.report.accuracy == made.accuracy
    assert (made.agree_n, made.n, made.ao) == (360, 360, None)
    assert made.bytes == file.stat().st_size


def test_the_steps_are_told_and_the_callers_state_is_his_own(run: Path) -> None:
    steps: list[str] = []
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    export(run, format="safetensors", on_step=steps.append)
    assert torch.rand(1) == expected
    assert [step.split()[0] for step in steps] == ["quantizing", "checking"]


class Wrong(SafetensorsFile):
    """Reads back another network: its classes are shifted by one."""

    def reopened(self, content: bytes) -> nn.Module:
        network = super().reopened(content)

        class Shifted(nn.Module):
            def forward(self, images: torch.Tensor) -> torch.Tensor:
                return network(images).roll(1, dims=1)

        return Shifted()


class Broken(SafetensorsFile):
    """Answers NaN once it is read back."""

    def reopened(self, content: bytes) -> nn.Module:
        network = super().reopened(content)
        network.get_parameter("linear.bias").data.fill_(float("nan"))
        return network


class Damaged(SafetensorsFile):
    """Writes other codes than it should."""

    def content(self, metadata: Mapping[str, str]) -> bytes:
        return super().content(metadata)[:-1] + b"\xff"


def program(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    monkeypatch.setattr(entry, "resolve", lambda path: kind)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Wrong, "the file's accuracy is"),
        (Broken, "the file's outputs are not finite"),
        (Damaged, "nothing was written: .* does not match its checksum"),
    ],
)
def test_a_failed_check_leaves_no_file(
    run: Path, kind: Any, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = files(run)
    program(monkeypatch, kind)
    for out in (None, tmp_path / "new" / "a.safetensors"):
        with pytest.raises(VerificationError, match=words):
            export(run, format="safetensors", scheme="symmetric-tensor-w7", out=out)
    assert files(run) == before
    assert list(tmp_path.iterdir()) == []


def test_a_failed_check_leaves_the_former_file(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(export(run, format="safetensors", scheme="affine-tensor-w6").path)
    before = file.read_bytes()
    program(monkeypatch, Wrong)
    with pytest.raises(VerificationError):
        export(run, format="safetensors", scheme="affine-tensor-w6")
    assert file.read_bytes() == before


def test_a_disk_that_does_not_keep_what_it_is_given(run: Path, monkeypatch, tmp_path) -> None:
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda p: whole(p)[p.name.startswith(".a.") :])
    with pytest.raises(StorageError, match="a.safetensors does not read back"):
        export(run, format="safetensors", out=tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_networks_without_a_finite_answer_are_refused(run: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(run / "model.safetensors")
    state["linear.bias"][0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(InputError, match="the network's outputs are not finite"):
        export(
            tmp_path / "nan.safetensors",
            format="safetensors",
            out=tmp_path / "a.safetensors",
            given={"model": "small_cnn", "data": "digits"},
        )


def test_wrong_arguments_are_one_line_errors(run: Path, tmp_path: Path) -> None:
    for changes, words in (
        ({"format": "onx"}, "did you mean 'onnx'?"),
        ({"calibration_n": 0}, "calibration_n 0"),
        ({"batch_sizes": (0,)}, "batch_sizes 0"),
        ({"repetitions": 0}, "repetitions 0"),
        ({"device": "tpu"}, "--device 'tpu'"),
    ):
        with pytest.raises(UsageError, match=words):
            export(run, **{"format": "safetensors", **changes})
    with pytest.raises(InputError, match="is no run folder"):
        export(tmp_path, format="safetensors")


def test_what_a_backend_cannot_carry_is_an_input_error(run: Path) -> None:
    scheme = Scheme("affine", "tensor", activation_bits=8, backend="weights")
    subject = Subjects({}).open(run)
    with pytest.raises(InputError, match="no export as affine-tensor-w8-a8@weights: the backend"):
        entry.networks(subject, nn.Linear(2, 2), scheme, [torch.ones(1, 2)])
