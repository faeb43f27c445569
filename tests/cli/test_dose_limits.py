"""Doses that are upper bounds, and settings that leave no decay, through the installed command."""

from pathlib import Path

import pytest

from tests.commands import qwd

WRONG = {
    "train --wd-until 0.001": "--wd-until 0.001: leaves no step to --wd 0.0001",
    "dose --wd-until 0.001": "--wd-until 0.001: leaves no step to --wd 0.0001",
    "train --wd-until 61": "--wd-until 61: must be at most --epochs 60",
    "train --wd-schedule piecewise --wd-at 0=0": "--wd-at 0=0: leaves no step to --wd 0.0001",
    "dose --wd-schedule piecewise --wd-at 60=0": "--wd-at 60=0: must be before the end of --epochs",
    "train --wd-schedule piecewise --wd-at 2=0,2=1": "two of the entries are for step",
    "train --form decoupled --lr-corrected @norm": "--lr-corrected '@norm' matches only parameters",
    "train --optimizer torch.optim:SparseAdam": "--optimizer torch.optim:SparseAdam: SparseAdam",
}


@pytest.mark.parametrize("command", WRONG)
def test_wrong_use_is_exit_2_one_line_and_no_file(command: str, tmp_path: Path) -> None:
    done = qwd(*command.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.rstrip().count("\n") == 0
    assert WRONG[command] in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("early", [pytest.param(True, marks=pytest.mark.long), False])
def test_at_most_is_said_of_bounds_alone(early: bool, tmp_path: Path) -> None:
    settings = ("--epochs", 1, "--threads", 1, *(("--early-stop", 1) if early else ()))
    table = qwd("dose", "--images", 1000, *settings, cwd=tmp_path)
    assert ("dose, at most" in table.stdout) is early
    assert ("or more" in " ".join(table.stdout.split())) is early
    trained = qwd("train", *settings, "--out", "run", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert ("dose at most 0." in trained.stderr) is early
    assert ("or more" in trained.stderr) is early


@pytest.mark.long
def test_both_doses_where_some_weights_are_corrected(tmp_path: Path) -> None:
    settings = ("--form", "decoupled", "--lr-corrected", "auto", "--epochs", 1, "--threads", 1)
    table = qwd("dose", "--images", 1000, *settings, cwd=tmp_path)
    assert "dose of others" in table.stdout
    trained = qwd("train", *settings, "--out", "run", cwd=tmp_path)
    assert " where lr-corrected, 0." in trained.stderr
    assert "dose of others" not in qwd("dose", "--images", 1000, cwd=tmp_path).stdout
