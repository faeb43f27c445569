"""`qwd sweep` through the installed command: the verdict, interruptions, two at once, wrong use."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from qwd.errors import StorageError
from qwd.files import sole_user
from qwd.report.load import load_report
from tests.commands import PATIENCE, last_line, qwd, started, wait_for

SMALL = ("--model", "mlp", "--batch-size", 128, "--scheme", "affine-tensor")

WRONG = {
    "--wd -1": "--wd '-1': expected a list with commas of numbers",
    "--wd 1e-5..3e-3": "--wd '1e-5..3e-3': expected a list with commas",
    "--wd 1e-4,1e-4": "none of them twice",
    "--seeds 0": "--seeds '0': expected a count of seeds",
    "--seed 3": "--seed",
    "--lr 0.1,x": "--lr '0.1,x'",
    "--optimizer sgd,adamww": "did you mean 'adamw'?",
    "--optimizer sgd,adamw --nesterov": "cell wd1e-5-adamw-s0: --nesterov: belongs to",
    "--no-decay (": "--no-decay '(': expected a regular expression",
    "--executor ray": "--executor 'ray': expected a known executor",
    "--jobs 0": "--jobs '0': expected a whole number",
    "--name a/b": "--name 'a/b': expected letters, digits",
    "--name a --out b": "--name a and --out b: give one of them",
    "--reference 1": "--reference 1: expected one of --wd 1e-5,1e-4",
    "--scheme affine-tenser": "did you mean 'affine-tensor'?",
    "--resume": "--resume: sweeps/small_cnn-digits is no sweep folder",
    "--cell wd1e-4-s0": "--cell wd1e-4-s0: trains a cell of a sweep again, and needs --resume",
}


def is_free(claim: Path) -> bool:
    try:
        with sole_user(claim):
            return True
    except StorageError:
        return False


@pytest.mark.parametrize("options", WRONG)
def test_wrong_use_is_exit_2_and_one_line(options: str, tmp_path: Path) -> None:
    done = qwd("sweep", *options.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert WRONG[options] in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_and_the_grid_do_not_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom qwd_cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "slow = {'torch', 'numpy', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    for args in (["--help"], ["--print-config"], ["--print-config", "--placebo", "--lr", "1..2:9"]):
        command = [sys.executable, "-c", code, "sweep", *args]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (args, done.stderr)


def test_print_config_is_a_config(tmp_path: Path) -> None:
    args = ("sweep", "--wd", "0,1e-4..1e-2", "--lr", "0.1,0.2", "--seeds", "3,5", "--no-decay", "a")
    first = qwd(*args, "--print-config", cwd=tmp_path)
    (tmp_path / "c.yaml").write_text(first.stdout)
    again = qwd("sweep", "--config", "c.yaml", "--print-config", cwd=tmp_path)
    assert again.stdout == first.stdout
    content = yaml.safe_load(first.stdout)
    assert (content["wd"], content["seeds"]) == ([0.0, 1e-4, 1e-3, 1e-2], [3, 5])
    variables = {**os.environ, "QWD_SEEDS": "2", "QWD_LR": "0.3"}
    other = qwd("sweep", "--config", "c.yaml", "--print-config", cwd=tmp_path, env=variables)
    content = yaml.safe_load(other.stdout)
    assert (content["lr"], content["seeds"]) == (0.3, [0, 1])


def test_a_dry_run_shows_cells_doses_and_time_and_writes_nothing(tmp_path: Path) -> None:
    args = ("sweep", *SMALL, "--wd", "1e-3,1", "--seeds", 2, "--epochs", 50, "--dry-run")
    done = qwd(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "sweeps/mlp-digits"
    rows = [line.split() for line in lines if line.startswith("wd")]
    assert [row[0] for row in rows] == ["wd1e-3-s0", "wd1-s0", "wd1e-3-s1", "wd1-s1"]
    assert float(rows[1][2]) == pytest.approx(1000 * float(rows[0][2]), rel=0.01)
    assert "4 trainings, about" in done.stdout
    assert "as if none slowed another down" in " ".join(done.stdout.split())
    assert list(tmp_path.iterdir()) == []


def test_the_question_and_its_answer(tmp_path: Path) -> None:
    base = ("sweep", *SMALL, "--wd", "0,1e-2", "--seeds", 2, "--executor", "processes")
    args = (*base, "--epochs", 1)
    done = qwd(*args, "--name", "q", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    heard = done.stderr.splitlines()
    assert heard[0].startswith("sweeps/q: 4 cells; processes, ")
    assert [line.partition(" ")[0] for line in heard[1:]] == [f"[{i}/4]" for i in range(1, 5)]
    assert "Warning" not in done.stderr
    assert done.stdout.rindex("Verdict") > done.stdout.index("wd0-s0")
    report = load_report(tmp_path / "sweeps" / "q")
    assert len(report.models) == 4
    assert report.verdict is not None
    again = qwd(*args, "--name", "q", cwd=tmp_path)
    assert (again.returncode, "sweeps/q exists" in again.stderr) == (2, True)
    files = ("--md", "q.md", "--html", "q.html", "--json", "q.json", "--csv", "q.csv")
    resumed = qwd(*args, "--name", "q", "--resume", *files, cwd=tmp_path)
    assert resumed.stderr == "sweeps/q: 4 cells, 4 of them finished\n"
    assert resumed.stdout == done.stdout
    assert "\n## Verdict\n" in (tmp_path / "q.md").read_text()
    assert "<h2>Verdict</h2>" in (tmp_path / "q.html").read_text()
    stored = (tmp_path / "sweeps" / "q" / "report.json").read_text()
    assert (tmp_path / "q.json").read_text() == stored
    assert "wd0-s0" in (tmp_path / "q.csv").read_text()
    other = qwd(*base, "--name", "q", "--resume", "--epochs", 2, cwd=tmp_path)
    assert (other.returncode, "--epochs 2: the sweep in sweeps/q has 1" in other.stderr) == (
        2,
        True,
    )


def test_where_every_cell_diverged_it_is_exit_6(tmp_path: Path) -> None:
    args = ("--lr", "1e12", "--wd", "0,1", "--seeds", 1, "--html", "q.html")
    done = qwd("sweep", *SMALL, *args, cwd=tmp_path)
    assert done.returncode == 6
    assert "every cell diverged, the first wd0-s0" in last_line(done.stderr)
    assert "wd1-s0" in done.stdout
    assert "there is no report for --html" in done.stderr
    assert not (tmp_path / "q.html").exists()


@pytest.mark.parametrize(
    ("stop", "code"),
    [(signal.SIGKILL, -9), pytest.param(signal.SIGINT, 130, marks=pytest.mark.long)],
)
def test_a_sweep_that_is_stopped_leaves_nobody_at_work_and_goes_on(
    stop: signal.Signals, code: int, tmp_path: Path
) -> None:
    args = ("--out", "s", "--wd", "0,1e-2", "--seeds", 1, "--epochs", 1000, "--jobs", 2)
    process = started("sweep", *SMALL, *args, cwd=tmp_path)
    cells = [tmp_path / "s" / "cells" / name for name in ("wd0-s0", "wd0.01-s0")]
    claims = [tmp_path / "s" / ".claims" / path.name for path in cells]
    wait_for(lambda: any((path / "metrics.csv").is_file() for path in cells), process)
    process.send_signal(stop)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert said.endswith("qwd: error: interrupted\n") == (code == 130)
    last = time.monotonic() + PATIENCE
    while not all(is_free(claim) for claim in claims):
        assert time.monotonic() < last
    assert not any((path / "model.safetensors").is_file() for path in cells)
    done = qwd("sweep", "--out", "s", "--resume", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    states = {row.split()[-1] for row in done.stdout.splitlines() if row.startswith("wd")}
    assert "begun" in states
    assert "finished" not in states


def test_two_on_one_folder_share_the_work(tmp_path: Path) -> None:
    args = ("--out", "s", "--wd", "0,1e-3,1e-2", "--seeds", 2, "--epochs", 4, "--jobs", 1)
    first = started("sweep", *SMALL, *args, cwd=tmp_path)
    wait_for(lambda: (tmp_path / "s" / "sweep.yaml").is_file(), first)
    second = started("sweep", *SMALL, *args, "--resume", cwd=tmp_path)
    said = [process.communicate(timeout=PATIENCE)[1] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    trained = [line.split()[1] for text in said for line in text.splitlines() if ": float " in line]
    epochs = [
        (tmp_path / "s" / "cells" / name.rstrip(":") / "metrics.csv").read_text().count("\n")
        for name in trained
    ]
    assert {name.rstrip(":") for name in trained} == {
        f"wd{wd}-s{seed}" for wd in ("0", "1e-3", "0.01") for seed in (0, 1)
    }
    assert epochs == [5] * len(trained)
    assert len(load_report(tmp_path / "s").models) == 6


def test_executors_can_be_listed(tmp_path: Path) -> None:
    done = qwd("list", "executors", cwd=tmp_path)
    assert (done.returncode, done.stdout.split()[0]) == (0, "processes")
    assert "bitwise" in done.stdout
