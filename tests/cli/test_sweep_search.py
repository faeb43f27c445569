"""`qwd sweep --search` through the installed command: results, kills, two at once, wrong use."""

import os
import shlex
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from qwd.report.load import load_report
from tests.commands import PATIENCE, last_line, qwd, started, wait_for
from tests.sweep.small import same, weights

SMALL = ("--model", "mlp", "--batch-size", 128, "--lr", "1e-2..1e-1")

WRONG = {
    "--search 0": "--search '0': expected a whole number",
    "--search x": "--search 'x': expected a whole number",
    "--search 4 --sampler grid": "--sampler 'grid': expected one of random, tpe",
    "--search 4 --lr 0.1,0.2": "--lr '0.1,0.2': expected a value, or a range to draw from",
    "--search 4 --wd 1e-2..1e-4": "--wd '1e-2..1e-4': expected a value, or a range to draw from",
    "--search 4 --lr 1e-3..x": "--lr '1e-3..x': expected a value, or a range to draw from",
    "--search 4 --seeds 8": "--seeds 8: belongs to a grid, not to --search",
    "--search 4 --reference 1e-4": "--reference 1e-4: belongs to a grid, not to --search",
    "--search 4 --placebo": "--placebo: belongs to a grid, not to --search",
    "--search 4 --cell t0": "--cell t0: belongs to a grid, not to --search",
    "--search 4 --executor processes": "--executor processes: belongs to a grid, not to --search",
    "--search 4 --scheme ao-static": "--scheme ao-static: belongs to a grid, not to --search",
    "--search 4 --lr 0.1 --wd 0 --momentum 0.9": "nothing to draw",
    "--search 4 --model mlp,small_cnn": "--model 'mlp,small_cnn'",
    "--search 4 --optimizer adamw --nesterov": "--nesterov: belongs to --optimizer sgd",
    "--search 4 --bits 4": "--bits 4: belongs to --qat",
    "--search 4 --jobs 0": "--jobs '0': expected a whole number",
    "--search 4 --resume": "--resume: sweeps/small_cnn-digits-search is no search",
    "--search 4 --storage nowhere": "--storage: expected the URL of a database",
    "--search 4 --name a --out b": "--name a and --out b: give one of them",
    "--sampler tpe": "--sampler 'tpe': belongs to --search",
    "--storage sqlite:///a.db": "--storage 'sqlite:///a.db': belongs to --search",
    "--seed 3": "--seed '3': belongs to --search; a grid has --seeds",
}


def states(database: Path) -> list[str]:
    with sqlite3.connect(database) as file:
        return [row[0] for row in file.execute("select state from trials order by number")]


@pytest.mark.parametrize("options", WRONG)
def test_wrong_use_is_exit_2_and_one_line(options: str, tmp_path: Path) -> None:
    done = qwd("sweep", *options.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1
    assert WRONG[options] in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_best_trial_and_the_command_that_trains_it(tmp_path: Path) -> None:
    args = ("sweep", "--search", 3, *SMALL, "--epochs", 1, "--no-decay", "4[.]w|a b", "--out", "s")
    done = qwd(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    heard = done.stderr.splitlines()
    # Not a word of Optuna, nor a warning.
    assert heard[0].startswith("s: 3 trials; ")
    assert "study in sqlite:///" in heard[0]
    # Two that end together are counted together.
    counts = [line.partition(" ")[0] for line in heard[1:]]
    assert (len(counts), counts) == (3, sorted(counts))
    assert counts[-1] == "[3/3]"
    best = load_report(tmp_path / "s").models[0].name
    rows = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("t")]
    assert rows[:2] == ["trial", best]
    assert f"{best} on the test split, which is read for this trial alone: float" in done.stdout
    command = last_line(done.stdout)
    assert command.startswith("qwd train --model mlp ")
    again = qwd(*shlex.split(command)[1:], "--out", "again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert same(weights(tmp_path / "again"), weights(tmp_path / "s" / "cells" / best))
    resumed = qwd("sweep", "--search", 3, "--out", "s", "--resume", cwd=tmp_path)
    assert (resumed.returncode, resumed.stdout) == (0, done.stdout)
    refused = qwd(*args, cwd=tmp_path)
    assert (refused.returncode, "s exists: continue it with" in refused.stderr) == (2, True)


def test_where_every_trial_diverged_it_is_exit_6(tmp_path: Path) -> None:
    done = qwd("sweep", "--search", 2, *SMALL[:-1], "1e12..1e13", "--out", "s", cwd=tmp_path)
    assert done.returncode == 6
    assert "every trial diverged, the first t0: training diverged" in last_line(done.stderr)
    assert "0 trials; 2 more diverged." in done.stdout


@pytest.mark.long
@pytest.mark.parametrize(("stop", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_search_that_is_stopped_goes_on_and_keeps_its_number(
    stop: signal.Signals, code: int, tmp_path: Path
) -> None:
    args = (*SMALL, "--epochs", 12, "--search", 3, "--jobs", 2)
    process = started("sweep", *args, "--out", "s", cwd=tmp_path)
    cells = tmp_path / "s" / "cells"
    wait_for(lambda: (cells / "t1" / "metrics.csv").is_file(), process)
    process.send_signal(stop)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert said.endswith("qwd: error: interrupted\n") == (code == 130)
    assert "RUNNING" in states(tmp_path / "s" / "search.db")
    done = qwd("sweep", "--search", 3, "--out", "s", "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert states(tmp_path / "s" / "search.db") == ["COMPLETE"] * 3
    if code == 130:
        return
    whole = qwd("sweep", *args, "--out", "w", cwd=tmp_path)
    assert whole.stdout == done.stdout
    for name in ("t0", "t1", "t2"):
        assert same(weights(cells / name), weights(tmp_path / "w" / "cells" / name))


@pytest.mark.long
def test_two_on_one_folder_share_the_trials(tmp_path: Path) -> None:
    args = (*SMALL, "--epochs", 40, "--search", 5, "--jobs", 1, "--out", "s")
    first = started("sweep", *args, cwd=tmp_path)
    wait_for(lambda: (tmp_path / "s" / "cells" / "t0").is_dir(), first)
    second = started("sweep", *args, "--resume", cwd=tmp_path)
    said = [process.communicate(timeout=PATIENCE)[1] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    trained = [line.split()[1] for text in said for line in text.splitlines() if ": lr " in line]
    assert sorted(trained) == [f"t{i}:" for i in range(5)]
    assert states(tmp_path / "s" / "search.db") == ["COMPLETE"] * 5
    assert len(load_report(tmp_path / "s").models) == 1


@pytest.mark.long
def test_two_folders_share_one_study(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
    args = (*SMALL, "--epochs", 5, "--search", 5, "--jobs", 1, "--name", "s")
    shared = ("--storage", f"sqlite:///{tmp_path}/shared.db")
    both = [started("sweep", *args, *shared, cwd=tmp_path / place) for place in ("a", "b")]
    said = [process.communicate(timeout=PATIENCE) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert states(tmp_path / "shared.db").count("COMPLETE") == 5
    folders = [sorted((tmp_path / place / "sweeps" / "s").glob("cells/t*")) for place in "ab"]
    assert all(folders)
    names = [path.name for found in folders for path in found]
    assert len(names) == len(set(names)) >= 5
    # Nothing that one machine needs is in the other's folder.
    assert not (tmp_path / "a" / "sweeps" / "s" / "search.db").exists()
    again = qwd(*("sweep", *args, *shared, "--resume"), cwd=tmp_path / "a")
    assert again.returncode == 0, again.stderr
    refused = qwd(*("sweep", *args, "--resume"), cwd=tmp_path / "a")
    assert refused.returncode == 2
    assert "is in a storage of its own: name it with --storage" in refused.stderr


def test_a_dry_run_shows_ranges_doses_and_time_and_writes_nothing(tmp_path: Path) -> None:
    done = qwd("sweep", "--search", 9, *SMALL, "--epochs", 50, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
    assert rows["lr"] == ["0.01", "0.1"]
    assert rows["momentum"] == ["0.9", "0.999"]
    assert float(rows["dose"][0]) < 1e-3 < float(rows["dose"][1])
    assert "9 trials by the random sampler, about" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_print_config_is_a_config(tmp_path: Path) -> None:
    args = ("sweep", "--search", 4, "--lr", "1e-4..1e-1", "--wd", "1e-3", "--sampler", "tpe")
    first = qwd(*args, "--seed", 5, "--print-config", cwd=tmp_path)
    (tmp_path / "c.yaml").write_text(first.stdout)
    again = qwd("sweep", "--search", 4, "--config", "c.yaml", "--print-config", cwd=tmp_path)
    assert again.stdout == first.stdout
    content = yaml.safe_load(first.stdout)
    assert (content["lr"], content["wd"], content["seed"]) == ("1e-4..0.1", 1e-3, 5)
    assert (content["sampler"], content["momentum"]) == ("tpe", "0.9..0.999")


def test_without_optuna_a_line_names_the_install_command(tmp_path: Path) -> None:
    code = (
        "import sys\nsys.modules['optuna'] = None\nfrom qwd_cli.main import main\n"
        "main(['sweep', '--search', '2'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("qwd: error: optuna is not installed: pip install 'qwd[search]'\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_process_that_is_killed_alone_is_named_and_its_trial_taken_over(tmp_path: Path) -> None:
    """As by a kernel that is out of memory."""
    args = (*SMALL, "--epochs", 300, "--search", 1, "--out", "s")
    process = started("sweep", *args, cwd=tmp_path)
    wait_for(lambda: (tmp_path / "s" / "cells" / "t0" / "metrics.csv").is_file(), process)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 70
    assert "a process ended: signal 9; --resume goes on" in last_line(said)
    assert states(tmp_path / "s" / "search.db") == ["RUNNING"]
