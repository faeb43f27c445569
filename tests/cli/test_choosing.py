"""`qwd find-lr` and `qwd cross-validate` through the installed command."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import last_line, qwd

FIND = ("find-lr", "--threads", 1, "--model", "mlp", "--steps", 100)
CROSS = ("cross-validate", "--threads", 1, "--model", "mlp", "--epochs", 2, "--batch-size", 64)

WRONG = {
    "find-lr --from 0": "--from '0': expected a finite number greater than 0",
    "find-lr --from 1 --to 1e-3": "--to 1e-3: expected a rate greater than --from 1",
    "find-lr --steps 5": "--steps '5': expected a whole number from 50 to 100000",
    "find-lr --plot a.jpg": "--plot 'a.jpg': expected a file ending in .png, .svg, .pdf",
    "find-lr --json - --csv -": "only one of them can be -",
    "find-lr --csv .": "--csv '.': expected a file",
    "find-lr --wd -1": "--wd '-1': expected a finite number of at least 0",
    "find-lr --device tpu": "--device 'tpu'",
    "cross-validate": "Missing option '--wd'",
    "cross-validate --wd 1e-5..3e-3": "--wd '1e-5..3e-3': expected a list with commas of numbers",
    "cross-validate --wd -1": "--wd '-1': expected a list with commas of numbers",
    "cross-validate --wd 1e-4 --folds 1": "--folds '1': expected a whole number from 2 to 100",
    "cross-validate --wd 1e-4 --metric f1": "--metric 'f1': expected one of accuracy, loss",
    "cross-validate --wd 1e-4 --json - --csv -": "only one of them can be -",
    "cross-validate --wd 1e-4 --early-stop 3": "--early-stop",
}


@pytest.mark.parametrize("command", WRONG)
def test_wrong_use_is_exit_2_and_one_line(command: str, tmp_path: Path) -> None:
    done = qwd(*command.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert WRONG[command] in last_line(done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_help_does_not_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys, qwd_cli.find_lr, qwd_cli.cross_validate\n"
        "sys.exit(bool({'torch', 'numpy', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for name in ("find-lr", "cross-validate"):
        assert name in qwd(name, "--help", cwd=tmp_path).stdout


def test_find_lr_prints_a_curve_and_the_suggestion_and_draws_it(tmp_path: Path) -> None:
    done = qwd(*FIND, "--csv", "a.csv", "--json", "a.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 0.01 < float(last_line(done.stdout)) < 1
    assert "lr" in done.stdout.splitlines()[0]
    assert "falls fastest at" in done.stdout
    assert done.stderr == "range test: mlp on digits, sgd\nplotted in find-lr.png\n"
    assert {p.name for p in tmp_path.iterdir()} == {"a.csv", "a.json", "find-lr.png"}
    assert json.loads((tmp_path / "a.json").read_text())["suggestion"] == float(
        last_line(done.stdout)
    )
    (tmp_path / "find-lr.png").write_text("old")
    again = qwd(*FIND, "--csv", "-", cwd=tmp_path)
    assert again.stdout == (tmp_path / "a.csv").read_text()
    assert (tmp_path / "find-lr.png").read_bytes().startswith(b"\x89PNG")


def test_find_lr_reads_files_and_variables(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("seed: 3\nmodel: mlp\n")
    args = ("find-lr", "--steps", 60, "--config", "c.yaml", "--json", "-", "--plot", "p.svg")
    done = qwd(*args, cwd=tmp_path, env={**os.environ, "QWD_THREADS": "1", "QWD_WD": "0.01"})
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)["config"]
    assert [config[name] for name in ("seed", "model", "wd", "threads")] == [3, "mlp", 0.01, 1]
    assert (tmp_path / "p.svg").is_file()


def test_find_lr_without_a_rate_is_exit_6(tmp_path: Path) -> None:
    done = qwd(*FIND, "--from", "1e-9", "--to", "1e-8", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (6, "")
    assert "no rate from 1e-09 to 1e-08 lowered the loss" in last_line(done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_cross_validate_prints_the_table_and_the_choice(tmp_path: Path) -> None:
    grid = "2^-12,1e-4..1e-2"
    done = qwd(
        *CROSS, "--wd", grid, "--folds", 3, "--csv", "c.csv", "--json", "c.json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "12 trainings of mlp on digits, 4 wd x 3 folds, 2 epochs each"
    assert [line.partition(":")[0] for line in lines[1:4]] == [
        f"wd 2.441e-4, fold {fold}" for fold in (1, 2, 3)
    ]
    assert len(lines) == 13
    for word in ("wd", "dose", "accuracy", "loss", "±", "best", "chosen", "one standard error"):
        assert word in done.stdout
    found = json.loads((tmp_path / "c.json").read_text())
    assert [arm["wd"] for arm in found["arms"]] == [2.0**-12, 1e-4, 1e-3, 1e-2]
    assert found["chosen"] == float(last_line(done.stdout))
    rows = list(csv.DictReader((tmp_path / "c.csv").read_text().splitlines()))
    assert len(rows) == 12
    assert {p.name for p in tmp_path.iterdir()} == {"c.csv", "c.json"}


def test_cross_validate_where_every_decay_diverges_is_exit_6(tmp_path: Path) -> None:
    done = qwd(*CROSS, "--wd", "0,1e-4", "--folds", 2, "--lr", "1e12", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (6, "")
    assert "wd 0, fold 1: diverged" in done.stderr
    assert "a training diverged under every decay" in last_line(done.stderr)
