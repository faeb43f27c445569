"""An interrupted run goes on as if nothing had happened, and nobody else's run is touched."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

from qwd.config import TrainConfig
from qwd.errors import (
    InputError,
    StorageError,
    UsageError,
)
from qwd.files import sole_user
from qwd.train import session
from qwd.train.data import Data, load_pair
from qwd.train.progress import Watcher
from qwd.train.session import train

SHORT = TrainConfig(epochs=4, batch_size=64, threads=1)


class StoppedError(Exception):
    """As a signal would stop a run."""


class StopAfter(Watcher):
    """Interrupts in the middle of an epoch, as a signal would."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def stepped(self, epoch: int, step: int, steps: int) -> None:
        if (epoch, step) == (self.epoch, 2):
            raise StoppedError


class Noisy(Dataset):
    """A user's data set whose transform draws from every global generator."""

    def __init__(self, n: int):
        self.labels = [i % 3 for i in range(n)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        noise = torch.randn(1, 8, 8) * random.random() + float(np.random.rand())  # noqa: NPY002
        return noise + self.labels[i], self.labels[i]


def noisy() -> Data:
    return load_pair(Noisy(90), Noisy(30))


def with_dropout(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3),
        nn.BatchNorm2d(8),
        nn.Dropout(0.3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * (image_size - 2) ** 2, num_classes),
    )


@pytest.mark.parametrize(
    ("changes", "data"),
    [
        ({}, None),
        ({"optimizer": "adamw", "augment": "crop-flip", "warmup": 1, "amp": True}, None),
        ({"image_size": 16, "epochs": 3}, None),
        ({"model": f"{__name__}:with_dropout", "lr_schedule": "step", "batch_size": 16}, noisy),
    ],
)
def test_resumed_equals_uninterrupted_bitwise(tmp_path: Path, monkeypatch, changes, data) -> None:
    if data is not None:
        monkeypatch.setattr(session, "data_for", lambda config: data())
    config = replace(SHORT, **changes)
    whole = train(config, out=tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(config, out=tmp_path / "cut", watcher=StopAfter(3))
    torch.rand(7)  # the generators are elsewhere by now
    resumed = train(config, out=tmp_path / "cut", resume=True)
    ours, theirs = (load_file(r.path / "model.safetensors") for r in (whole, resumed))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def without_seconds(run) -> list[dict]:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in run.metrics]

    assert without_seconds(whole) == without_seconds(resumed)


def test_a_folder_in_use_or_taken_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "config.yaml").write_text(SHORT.to_yaml())
    with sole_user(tmp_path / "held"), pytest.raises(StorageError, match="in use"):
        train(SHORT, out=tmp_path / "held", resume=True)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists: continue it with --resume"):
        train(SHORT, out=tmp_path / "run")
    with pytest.raises(UsageError, match="is no run folder"):
        train(SHORT, out=tmp_path / "absent", resume=True)


def test_a_run_of_other_settings_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train(SHORT, out=tmp_path / "cut", watcher=StopAfter(2))
    with pytest.raises(UsageError, match=r"--seed 7: the run in .* has 0; resume it with that"):
        train(replace(SHORT, seed=7), out=tmp_path / "cut", resume=True)
    train(replace(SHORT, device="cpu"), out=tmp_path / "cut", resume=True)
    with pytest.raises(UsageError, match=r"--epochs 3: the run in .* has 4"):
        train(replace(SHORT, epochs=3), out=tmp_path / "cut", resume=True)


def test_killed_between_checkpoint_and_metrics(tmp_path: Path, monkeypatch) -> None:
    def killed(*args) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(session.run, "write_metrics", killed)
        with pytest.raises(StoppedError):
            train(replace(SHORT, epochs=1), out=tmp_path / "cut")
    assert len(train(replace(SHORT, epochs=1), out=tmp_path / "cut", resume=True).metrics) == 1


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train(SHORT, out=tmp_path / "cut", watcher=StopAfter(2))
    (tmp_path / "cut" / "config.yaml").write_text(replace(SHORT, model="mlp").to_yaml())
    with pytest.raises(InputError, match="does not fit this run"):
        train(replace(SHORT, model="mlp"), out=tmp_path / "cut", resume=True)
    (tmp_path / "cut" / "checkpoint.pt").write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"cannot read .*checkpoint.pt safely"):
        train(replace(SHORT, model="mlp"), out=tmp_path / "cut", resume=True)


def test_an_early_end_survives_interruption(tmp_path: Path) -> None:
    config = replace(SHORT, epochs=30, early_stop=2, lr=0.3)
    whole = train(config, out=tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(config, out=tmp_path / "cut", watcher=StopAfter(len(whole.metrics)))
    resumed = train(config, out=tmp_path / "cut", resume=True)
    ours, theirs = (load_file(r.path / "model.safetensors") for r in (whole, resumed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert len(whole.metrics) == len(resumed.metrics)
