"""Quantization-aware runs: resumable, started from others, read back with their grids."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qwd.config import TrainConfig
from qwd.errors import InputError, UsageError
from qwd.quantize import qat
from qwd.report.subject import Subjects
from qwd.train.awareness import qat_scheme
from qwd.train.data import load
from qwd.train.evaluation import accuracy, logits
from qwd.train.session import Session, train
from qwd.train.start import continued, starting_network
from tests.train.test_resuming import StopAfter, StoppedError

SHORT = TrainConfig(epochs=4, batch_size=64, threads=1)
AWARE = replace(SHORT, qat=True, bits=4, observer_epochs=2, norm_epochs=3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in float."""
    return train(SHORT, out=tmp_path_factory.mktemp("base") / "run").path


@pytest.fixture(scope="module")
def aware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantization-aware run from scratch."""
    return train(AWARE, out=tmp_path_factory.mktemp("aware") / "run").path


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((path / "metrics.csv").read_text().splitlines()))


@pytest.mark.parametrize("changes", [{}, {"granularity": "channel", "weights": "symmetric"}])
@pytest.mark.parametrize("epoch", [2, 4])
def test_resumed_equals_uninterrupted_bitwise(tmp_path: Path, changes, epoch: int) -> None:
    """Cut before the ranges are frozen, and after the statistics are."""
    config = replace(AWARE, **changes)
    whole = train(config, out=tmp_path / "whole").path
    with pytest.raises(StoppedError):
        train(config, out=tmp_path / "cut", watcher=StopAfter(epoch))
    resumed = train(config, out=tmp_path / "cut", resume=True).path
    for name in ("model.safetensors", "qat.safetensors"):
        ours, theirs = load_file(whole / name), load_file(resumed / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    without_seconds = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in rows(p)]
        for p in (whole, resumed)
    ]
    assert without_seconds[0] == without_seconds[1]


def test_a_row_has_the_accuracy_of_int8_kernels(aware: Path) -> None:
    found = rows(aware)
    assert all(0 < float(row["int8_validation_accuracy"]) <= 1 for row in found)
    assert all(5 < float(row["converted_sqnr_db"]) < 30 for row in found)
    # What is converted is what the report converts from the folder.
    subject = Subjects({}).open(aware)
    assert subject.config is not None
    assert subject.data is not None
    made = qat.convert(subject.twin, qat_scheme(subject.config))
    validation = subject.data.validation
    outputs = logits(made.network, validation, torch.device("cpu"))
    assert accuracy(outputs, validation.labels) == pytest.approx(
        float(found[-1]["int8_validation_accuracy"]), abs=1e-6
    )
    assert made.sqnr["converted_sqnr_db"] == pytest.approx(float(found[-1]["converted_sqnr_db"]))


def test_ranges_and_statistics_are_frozen_when_asked() -> None:
    session = Session(AWARE, load("digits"), torch.device("cpu"))
    model: Any = session.model

    def frozen() -> tuple[bool, bool]:
        ranges = model.conv1.weight_fake_quant.observer_enabled.item() == 0
        return ranges, not model.conv1.bn.training

    seen = []
    for epoch in range(4):
        model.train()
        session.awareness.epoch_begins(epoch)
        seen.append(frozen())
    assert seen == [(False, False), (False, False), (True, False), (True, True)]


def test_the_network_keeps_the_names_of_the_model_and_all_of_it_is_decayed(aware: Path) -> None:
    names = set(load_file(aware / "model.safetensors"))
    assert names == set(Session(SHORT, load("digits"), torch.device("cpu")).model.state_dict())
    audit = Session(AWARE, load("digits"), torch.device("cpu")).audit
    plain = Session(SHORT, load("digits"), torch.device("cpu")).audit
    assert audit.parameters == plain.parameters


@pytest.mark.parametrize(
    ("qat_wd", "expected"), [(None, 0.01), ("0", 0.0), ("3e-3", 3e-3), ("x0.1", 0.001)]
)
def test_decay_is_kept_scaled_or_dropped(qat_wd: str | None, expected: float) -> None:
    config = replace(AWARE, wd=0.01, qat_wd=qat_wd)
    session = Session(config, load("digits"), torch.device("cpu"))
    decays = {group["decay"] for group in session.optimizer.param_groups}
    assert max(decays) == pytest.approx(expected)
    assert config.coefficient == pytest.approx(expected)
    lost = max((p.lost or 0.0) for p in session.audit.parameters)
    assert lost == pytest.approx(config.lr * expected, rel=1e-3)


def test_a_run_is_continued_with_its_weights_and_settings(base: Path) -> None:
    config = continued({"from_": str(base), "qat": True, "bits": 4})
    assert (config.model, config.wd, config.batch_size) == ("small_cnn", SHORT.wd, 64)
    assert (config.epochs, config.lr, config.observer_epochs, config.norm_epochs) == (
        10,
        0.01,
        4,
        3,
    )
    network, notes = starting_network(config, load("digits"))
    stored = load_file(base / "model.safetensors")
    assert all(torch.equal(t, stored[n]) for n, t in network.state_dict().items())
    assert notes == []
    other = continued({"from_": str(base), "optimizer": "adamw", "lr": 1e-5, "wd": 0.5})
    assert (other.form, other.lr, other.wd, other.qat) == ("decoupled", 1e-5, 0.5, False)


def test_branches_are_fused_before_the_training(tmp_path: Path) -> None:
    config = replace(SHORT, model="repvgg", epochs=1)
    start = train(config, out=tmp_path / "float").path
    tuned = continued({"from_": str(start), "qat": True, "epochs": 1})
    done = train(tuned, out=tmp_path / "aware").path
    names = set(load_file(done / "model.safetensors"))
    assert "0.weight" in names
    assert not any("conv3" in name for name in names)
    subject = Subjects({}).open(done)
    assert subject.twin is not None
    scratch = starting_network(replace(config, qat=True), load("digits"))
    assert "branches are fused before the training" in scratch[1][0]


class Untraceable(nn.Module):
    def __init__(self, features: int, classes: int):
        super().__init__()
        self.linear = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)) if x.sum() > 0 else self.linear(-x.flatten(1))


def untraceable(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    return Untraceable(in_channels * image_size**2, num_classes)


def test_what_cannot_be_trained_so_is_refused_before_it_begins(tmp_path: Path, base: Path) -> None:
    config = replace(AWARE, model=f"{__name__}:untraceable")
    with pytest.raises(UsageError, match="--qat: torch.ao cannot quantize this network"):
        train(config, out=tmp_path / "run")
    with pytest.raises(UsageError, match="--model mlp: the run in .* trained small_cnn"):
        train(replace(AWARE, model="mlp", from_=str(base)), out=tmp_path / "run")
    with pytest.raises(InputError, match="is no run folder"):
        continued({"from_": str(tmp_path / "none")})
    with pytest.raises(UsageError, match="--amp: torch's fake quantization is float32"):
        replace(AWARE, amp=True)
    with pytest.raises(UsageError, match="--bits 4: belongs to --qat"):
        TrainConfig(bits=4)
    assert not (tmp_path / "run").exists()


def test_grids_that_do_not_fit_are_an_input_error(tmp_path: Path, aware: Path) -> None:
    copied = tmp_path / "run"
    copied.mkdir()
    for file in aware.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    grids = load_file(copied / "qat.safetensors")
    grids.pop(next(iter(grids)))
    save_file(grids, copied / "qat.safetensors")
    with pytest.raises(InputError, match="the grids do not fit the network: .* is missing"):
        Subjects({}).open(copied)
    (copied / "qat.safetensors").unlink()
    with pytest.raises(InputError, match="qat.safetensors does not exist"):
        Subjects({}).open(copied)
