"""The contract of every registered executor: the cells of `qwd.train`, whatever goes wrong."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from qwd.config import TrainConfig
from qwd.files import sole_user
from qwd.registry import EXECUTORS
from qwd.report.load import load_report
from qwd.sweep import Task
from qwd.sweep.work import compute
from qwd.train.layout import CHECKPOINT, is_finished
from qwd.train.session import train
from tests.sweep.small import same, tasks, weights

pytestmark = pytest.mark.parametrize("name", EXECUTORS.names())

FILES = {"config.yaml", "decay.json", "environment.json", "metrics.csv", "model.safetensors"}


def broken(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """A user's model that fails in its second epoch, and only in a training."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))
    steps = 0

    def count(module: nn.Module, args: object) -> None:
        nonlocal steps
        steps += module.training
        if steps > 12:
            raise RuntimeError("the user's own fault")

    net.register_forward_pre_hook(count)
    return net


def deadly(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """A user's model that ends its process, as running out of memory does."""
    import os

    net = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))
    net.register_forward_pre_hook(lambda module, args: os._exit(9) if module.training else None)
    return net


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float) -> bool:
    """Within the tolerance that an executor states; bitwise where that is 0."""
    if tolerance == 0:
        return same(a, b)
    return a.keys() == b.keys() and all(
        (a[n].double() - b[n].double()).abs().max() <= tolerance * b[n].double().abs().max()
        for n in a
    )


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The norm of the difference."""
    return sum(float((a[n].double() - b[n].double()).square().sum()) for n in a) ** 0.5


def test_it_says_what_it_is(name: str) -> None:
    executor = EXECUTORS.get(name)()
    assert len(executor.summary.splitlines()) == 1
    assert 0 <= executor.tolerance < 1
    some: Sequence[Task] = tasks(Path("nowhere"), seeds=5)
    assert 1 <= executor.jobs(some, None) <= len(some)
    assert executor.jobs(some, 3) <= 3


def test_cells_are_those_of_train_in_any_order(name: str, tmp_path: Path) -> None:
    executor = EXECUTORS.get(name)()
    wanted = tasks(tmp_path / "a", wd="0,1e-3,1e-2", seeds=1, model="small_cnn", epochs=2)
    outcomes = list(executor.run(wanted, 2))
    assert {outcome.cell for outcome in outcomes} == {task.cell for task in wanted}
    assert all(outcome.status == "done" for outcome in outcomes)
    backwards = tasks(tmp_path / "b", wd="0,1e-3,1e-2", seeds=1, model="small_cnn", epochs=2)[::-1]
    assert [outcome.status for outcome in executor.run(backwards, 1)] == ["done"] * 3
    for task, again in zip(wanted, backwards[::-1], strict=True):
        assert {path.name for path in task.folder.iterdir()} >= {*FILES, "report.json"}
        run = train(task.config, out=tmp_path / "alone" / task.cell)
        assert close(weights(task.folder), weights(run.path), executor.tolerance)
        assert close(weights(again.folder), weights(task.folder), executor.tolerance)
        (model,) = load_report(task.folder).models
        assert (model.name, model.seed, list(model.schemes)) == (task.cell, 0, ["affine-tensor"])


def test_in_bfloat16_cells_are_those_of_train_but_for_its_rounding(
    name: str, tmp_path: Path
) -> None:
    """Where channels come last."""
    executor = EXECUTORS.get(name)()
    given = {"model": "small_cnn", "image_size": 16, "amp": True, "seeds": 1}
    wanted = tasks(tmp_path / "a", **given)
    assert [outcome.status for outcome in executor.run(wanted, 1)] == ["done", "done"]
    for task in wanted:
        run = train(task.config, out=tmp_path / "alone" / task.cell)
        exact = train(replace(task.config, amp=False), out=tmp_path / "exact" / task.cell)
        rounding = distance(weights(run.path), weights(exact.path))
        apart = distance(weights(task.folder), weights(run.path))
        assert apart <= (2 * rounding if executor.tolerance else 0)


def test_one_that_fails_does_not_stop_the_others(name: str, tmp_path: Path) -> None:
    executor = EXECUTORS.get(name)()
    module = "tests.sweep.test_executors"
    wanted = [
        *tasks(tmp_path, model=f"{module}:broken", wd=0, seeds=1, epochs=3),
        *tasks(tmp_path, model="mlp", lr=1e12, wd=1e-4, seeds=1),
        *tasks(tmp_path, model=f"{module}:deadly", wd=1e-3, seeds=1),
        *tasks(tmp_path, model="mlp", wd=1e-2, seeds=2),
    ]
    found = {outcome.cell: outcome for outcome in executor.run(wanted, 1)}
    assert len(found) == len(wanted) == 5
    assert found["wd0-s0"].status == "failed"
    assert "the user's own fault" in str(found["wd0-s0"].error)
    assert (found["wd1e-4-s0"].status, found["wd1e-4-s0"].exit_code) == ("diverged", 6)
    assert found["wd1e-3-s0"].status == "failed"
    assert "exit code 9" in str(found["wd1e-3-s0"].error)
    assert {found[f"wd0.01-s{seed}"].status for seed in (0, 1)} == {"done"}


def test_what_is_stopped_halfway_goes_on_to_the_same_weights(name: str, tmp_path: Path) -> None:
    executor = EXECUTORS.get(name)()
    first, *_ = long = tasks(tmp_path / "a", wd="0,1e-2", seeds=1, epochs=30)
    (short,) = tasks(tmp_path / "a", wd=1, seeds=1)
    running = executor.run([short, *long], 1)
    assert next(running).cell == short.cell
    while not (first.folder / CHECKPOINT).is_file():  # the next cell is in its first epochs
        assert not is_finished(first.folder)
        time.sleep(0.01)
    running.close()  # type: ignore[attr-defined]
    with sole_user(first.claim):  # nobody is at it any more
        assert not is_finished(first.folder)
    assert [outcome.status for outcome in executor.run(long, 1)] == ["done", "done"]
    run = train(first.config, out=tmp_path / "alone")
    assert close(weights(first.folder), weights(run.path), executor.tolerance)


def test_a_cell_in_other_hands_is_left_alone(name: str, tmp_path: Path) -> None:
    executor = EXECUTORS.get(name)()
    wanted = tasks(tmp_path, seeds=1)
    with sole_user(wanted[0].claim):
        found = {outcome.cell: outcome.status for outcome in executor.run(wanted, 1)}
    assert found == {wanted[0].cell: "busy", wanted[1].cell: "done"}
    assert not wanted[0].folder.exists()


def test_nothing_to_do_is_nothing_done(name: str) -> None:
    assert list(EXECUTORS.get(name)().run([])) == []


def test_one_thread_is_the_default_whatever_the_caller_has(name: str, tmp_path: Path) -> None:
    (task,) = tasks(tmp_path, wd=0, seeds=1)
    assert isinstance(task.config, TrainConfig)
    assert task.config.threads == 1
    before = torch.get_num_threads()
    assert compute(task).status == "done"
    assert torch.get_num_threads() == before
    assert '"threads": 1' in (task.folder / "environment.json").read_text()
