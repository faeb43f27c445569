"""The training loop: reproducible, honest about divergence, and a good guest."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import qwd
from qwd.config import TrainConfig
from qwd.errors import (
    DivergedError,
    VerificationError,
)
from qwd.train import session
from qwd.train.data import load
from qwd.train.evaluation import loss_and_accuracy
from qwd.train.progress import Watcher
from qwd.train.session import Session, train
from qwd.train.stopping import EarlyStopping

SHORT = TrainConfig(epochs=4, batch_size=64, threads=1)


def test_decays_of_one_seed_share_initialization_and_batches() -> None:
    data = load("digits")
    sessions = [Session(replace(SHORT, wd=wd), data, torch.device("cpu")) for wd in (0.0, 0.1)]
    first, second = (s.model.state_dict() for s in sessions)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = Session(replace(SHORT, seed=1), data, torch.device("cpu")).model.state_dict()
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_decay_reaches_the_weights_and_not_the_excluded(tmp_path: Path) -> None:
    """A rate of almost nothing: what is left is the decay alone, 1 - lr * wd a step."""
    config = replace(SHORT, epochs=1, lr=1e-6, momentum=0.0, lr_schedule="constant", wd=1e4)
    run = train(config, out=tmp_path / "run")
    start = Session(config, load("digits"), torch.device("cpu")).model.state_dict()
    end = load_file(run.path / "model.safetensors")
    steps = 1257 // 64
    shrunk = (1 - 1e-6 * 1e4) ** steps
    torch.testing.assert_close(
        end["conv1.weight"], start["conv1.weight"] * shrunk, rtol=1e-2, atol=1e-4
    )
    torch.testing.assert_close(end["bn1.weight"], start["bn1.weight"], rtol=1e-3, atol=1e-4)


def test_the_test_split_is_not_touched_by_training(tmp_path: Path, monkeypatch) -> None:
    data = load("digits")

    def refuse(*args, **kwargs):
        raise AssertionError("training read the test split")

    broken = replace(data, test=type("Refusing", (), {"batches": refuse, "__len__": refuse})())
    monkeypatch.setattr(session, "data_for", lambda config: broken)
    train(replace(SHORT, epochs=1), out=tmp_path / "run")


def test_divergence_keeps_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="try a lower --lr than 1e\\+12"):
        train(replace(SHORT, model="mlp", lr=1e12), out=tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_batch_larger_than_the_data_is_said(tmp_path: Path) -> None:
    plans = []

    class Listening(Watcher):
        def begins(self, plan, epochs_done: int) -> None:
            plans.append(plan)

    config = replace(SHORT, epochs=1, batch_size=5000)
    train(config, out=tmp_path / "run", watcher=Listening())
    assert "--batch-size 5000: the 1257 images there are make one batch" in plans[0].notes


def test_the_callers_random_numbers_and_threads_are_his_own(tmp_path: Path) -> None:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002

    def draw() -> tuple:
        return torch.rand(1).item(), random.random(), float(np.random.rand())  # noqa: NPY002

    before = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    expected = draw()
    torch.set_rng_state(before[0])
    random.setstate(before[1])
    np.random.set_state(before[2])  # noqa: NPY002
    train(replace(SHORT, epochs=1, threads=2), out=tmp_path / "run")
    assert draw() == expected
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()


def test_from_python(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = qwd.train(qwd.TrainConfig(epochs=1, wd=1e-3))  # type: ignore[operator]
    assert str(run).startswith("runs/small_cnn-digits-wd1e-3-s0: epoch 1, ")
    assert not run.model().training


def stopped_early(config: TrainConfig, folder: Path) -> list:
    heard = []

    class Listening(Watcher):
        def stopped(self, epoch: int, best: int, kept: bool) -> None:
            heard.append((epoch, best, kept))

    run = train(config, out=folder, watcher=Listening())
    return [run, *heard]


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    config = replace(SHORT, epochs=30, early_stop=2, lr=0.3)
    run, (epoch, best, kept) = stopped_early(config, tmp_path / "run")
    losses = [row["validation_loss"] for row in run.metrics]
    assert epoch == len(losses) == best + 2 < 30
    assert kept
    assert losses.index(min(losses)) == best - 1 == run.metrics[-1]["best_epoch"] - 1
    data = load("digits")
    loss, accuracy = loss_and_accuracy(run.model(), data.validation, torch.device("cpu"))
    assert (loss, accuracy) == (losses[best - 1], run.metrics[best - 1]["validation_accuracy"])


def test_the_plateau_schedule_ends_the_training(tmp_path: Path) -> None:
    config = replace(SHORT, epochs=40, lr_schedule="plateau", lr_patience=1, lr_gamma=0.01)
    run, (epoch, _, kept) = stopped_early(config, tmp_path / "run")
    assert epoch == len(run.metrics) < 40
    assert not kept
    assert run.metrics[-1]["lr"] == pytest.approx(0.1 / 1024)


def test_the_audit_is_part_of_the_run_folder(tmp_path: Path) -> None:
    config = replace(SHORT, epochs=1, decay=("^linear=0.5",), bias_lr=2.0)
    run = train(config, out=tmp_path / "run")
    audit = json.loads((run.path / "decay.json").read_text())
    assert audit["failures"] == audit["warnings"] == []
    table = {p["name"]: (p["form"], p["coefficient"], p["lr"]) for p in audit["parameters"]}
    assert table["conv1.weight"] == ("l2", 1e-4, 0.1)
    assert table["linear.weight"] == (*table["linear.bias"][:2], 0.1) == ("l2", 5e-5, 0.1)
    assert table["linear.bias"][2] == 0.2
    assert table["bn1.weight"] == (None, 0.0, 0.1)


def test_a_decay_that_the_optimizer_does_not_carry_out_ends_the_run(tmp_path: Path) -> None:
    config = replace(SHORT, optimizer=f"{__name__}:Forgetful", momentum=None, wd=0.1)
    with pytest.raises(VerificationError, match="audit of the decay failed: conv1.weight and 3 mo"):
        train(config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Forgetful(torch.optim.SGD):
    """Undoes what happens before its steps."""

    def __init__(self, params, lr: float):
        super().__init__(params, lr=lr)

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.mul_(0.5)
        return super().step(closure)


def test_the_figures_of_the_weights_are_in_the_metrics(tmp_path: Path) -> None:
    config = replace(SHORT, epochs=1, form="l1", wd=1e-3)
    run = train(config, out=tmp_path / "run")
    (row,) = run.metrics
    weights = [w for n, w in run.model().named_parameters() if w.ndim >= 2]
    absolute = sum(w.abs().sum().item() for w in weights)
    assert row["penalty"] == pytest.approx(1e-3 * absolute, rel=1e-5)
    norm = sum(w.square().sum().item() for w in weights) ** 0.5
    assert row["weight_norm"] == pytest.approx(norm, rel=1e-5)
    assert row["weight_norm:conv1.weight"] == pytest.approx(weights[0].norm().item(), rel=1e-5)
    assert row["dead_channels"] is not None
    assert row["dead_channels:relu1"] is not None


def test_an_equal_loss_is_no_better_one() -> None:
    stopping = EarlyStopping(2)
    network = nn.Linear(1, 1)
    heard = [stopping.saw(n, loss, network) for n, loss in enumerate((1.0, 1.0, 1.0), start=1)]
    assert (heard, stopping.epoch) == ([False, False, True], 1)
