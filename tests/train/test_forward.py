"""The forward pass of a training: its memory format, and its compilation."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from qwd.config import TrainConfig
from qwd.errors import UsageError
from qwd.train import models
from qwd.train.compiler import obstacle_to_compiling
from qwd.train.forward import Forward, memory_format, outputs_and_loss
from qwd.train.progress import Plan, Watcher
from qwd.train.run import Run
from qwd.train.session import train
from tests.train.test_resuming import with_dropout

CPU = torch.device("cpu")
SHORT = TrainConfig(epochs=2, batch_size=128, threads=1, model="mlp", compile=True)


def bitwise_same(a: Run, b: Run) -> bool:
    ours, theirs = (load_file(run.path / "model.safetensors") for run in (a, b))
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


class Heard(Watcher):
    """Keeps the notes."""

    def begins(self, plan: Plan, epochs_done: int) -> None:
        self.notes = plan.notes


@pytest.mark.parametrize(
    ("name", "size", "format"),
    [
        ("small_cnn", 16, torch.channels_last),
        ("small_cnn", 8, torch.preserve_format),
        ("torchvision:squeezenet1_1", 32, torch.channels_last),
        ("mlp", 32, torch.preserve_format),
    ],
)
def test_convolutions_on_a_cpu_have_their_channels_last(name, size, format) -> None:
    model = models.build(name, in_channels=3, image_size=size, num_classes=10)
    assert memory_format(model, CPU, size) is format
    assert memory_format(model, torch.device("cuda"), size) is torch.preserve_format


def test_a_callers_autocast_is_not_that_of_a_training() -> None:
    given = nn.Linear(4, 3), torch.ones(5, 4), torch.zeros(5, dtype=torch.int64)
    for callers in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=callers):
            found = [outputs_and_loss(*given, amp)[0].dtype for amp in (False, True)]
        assert found == [torch.float32, torch.bfloat16]


def test_what_someone_else_wrote_sees_batches_as_they_are() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).view(len(x), -1)

    assert memory_format(Viewing(), CPU, 32) is torch.preserve_format


@pytest.mark.parametrize("name", ["small_cnn", "resnet20", "mobilenet", "repvgg"])
def test_the_memory_format_changes_nothing_but_roundings(name: str) -> None:
    torch.manual_seed(0)
    model = models.build(name, in_channels=3, image_size=16, num_classes=10).double().train()
    images, labels = torch.randn(4, 3, 16, 16, dtype=torch.float64), torch.arange(4)
    found = []
    for format in (torch.preserve_format, torch.channels_last):
        outputs, loss = Forward(model, format, amp=False)(images, labels)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        found.append((outputs, loss, *gradients))
    for plain, last in zip(*found, strict=True):
        torch.testing.assert_close(last, plain, rtol=1e-9, atol=1e-9)


def test_without_a_compiler_a_note_says_so_and_the_weights_are_the_plain_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    heard = Heard()
    run = train(SHORT, out=tmp_path / "asked", watcher=heard)
    assert heard.notes[0].endswith("uncompiled: there is no C++ compiler (no-such-compiler)")
    assert json.loads((run.path / "environment.json").read_text())["compiled"] is False
    assert bitwise_same(run, train(replace(SHORT, compile=False), out=tmp_path / "plain"))


def test_a_compiler_that_fails_is_named_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object) -> None:
        raise RuntimeError("the compiler broke")

    monkeypatch.setenv("CXX", "python3")
    monkeypatch.setattr("qwd.train.forward._compiler", lambda: broken)
    heard = Heard()
    run = train(SHORT, out=tmp_path / "run", watcher=heard)
    assert heard.notes[0].endswith("uncompiled: the compiler broke")
    assert len(run.metrics) == 2


def test_quantization_aware_training_is_not_compiled() -> None:
    with pytest.raises(UsageError, match="--compile"):
        replace(SHORT, qat=True)


@pytest.mark.long
@pytest.mark.skipif(obstacle_to_compiling(CPU) is not None, reason="no C++ compiler")
@pytest.mark.parametrize("model", ["small_cnn", f"{with_dropout.__module__}:with_dropout"])
def test_a_compiled_training_is_the_same_and_repeats_bitwise(tmp_path: Path, model: str) -> None:
    config = replace(SHORT, model=model, image_size=16)
    runs = [train(config, out=tmp_path / name) for name in ("one", "two")]
    plain = train(replace(config, compile=False), out=tmp_path / "plain")
    assert json.loads((runs[0].path / "environment.json").read_text())["compiled"] is True
    assert bitwise_same(*runs)
    assert not bitwise_same(runs[0], plain)
    expected = plain.model().state_dict()
    for name, found in runs[0].model().state_dict().items():
        if found.is_floating_point():
            assert (found - expected[name]).abs().max() < 0.05 * expected[name].abs().max()
