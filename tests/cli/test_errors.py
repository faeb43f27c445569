"""Wrong use through the installed command: one line, the documented code, at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import qwd

WRONG = {
    "train --wd -1": "--wd '-1': expected a finite number of at least 0",
    "train --wd nan": "--wd 'nan': expected a finite number",
    "train --wd 1e400": "--wd '1e400': expected a finite number",
    "train --epochs 1.5": "--epochs '1.5': expected a whole number",
    "train --form decopled": "decay form (did you mean 'decoupled'?)",
    "train --optimizer sdg": "did you mean 'sgd'?",
    "train --model resnet19": "--model 'resnet19': expected a known model",
    "train --data imagefolder:": "--data 'imagefolder:': expected a known data set",
    "train --no-decay (": "--no-decay",
    "train --epocs 3": "--epocs",
    "train --warmup 60": "--warmup 60: must be less than --epochs 60",
    "train --mean 0.5": "--mean and --std go together",
    "train --resume --out absent": "--resume: absent is no run folder",
    "train extra": "unexpected extra argument",
    "quantize-report --scheme affine-tenser": "did you mean 'affine-tensor'?",
    "quantize-report --bits 9": "--bits '9': expected a list with commas",
    "quantize-report --bits 8,x": "--bits '8,x'",
    "quantize-report --calibration-n 0": "--calibration-n '0': expected a whole",
    "quantize-report --top -1": "--top '-1': expected a whole number of at least 0",
    "quantize-report --json - --csv -": "only one of them can be -",
    "quantize-report --md .": "--md '.': expected a file",
    "compare a.json": "Missing argument 'HEAD'",
    "compare a b --fail-on int8_acuracy:-1pp": "did you mean 'int8_accuracy'?",
    "compare a b --fail-on int8_accuracy:0.5pp": "--fail-on",
    "compare a b --fail-on int8_accuracy": "--fail-on",
    "list model": "KIND 'model': expected one of models",
    "trian": "unknown command 'trian': did you mean 'train'?",
}


@pytest.mark.parametrize("command", WRONG)
def test_wrong_use_is_exit_2_and_one_line(command: str, tmp_path: Path) -> None:
    done = qwd(*command.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("qwd: error: ")
    assert done.stderr.count("\n") == 1
    assert WRONG[command] in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        "quantize-report",
        "quantize-report absent.pt",
        "quantize-report absent",
        "compare absent.json absent.json",
        "train --config absent.yaml",
        "train --data imagefolder:absent",
        "train --data mnist",
    ],
)
def test_inputs_that_are_not_there_are_exit_3_and_one_line(command: str, tmp_path: Path) -> None:
    done = qwd(*command.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("qwd: error: ")
    assert done.stderr.count("\n") == 1


def test_unknown_variables_and_keys_of_a_file_are_exit_2(tmp_path: Path) -> None:
    done = qwd("train", cwd=tmp_path, env={**os.environ, "QWD_WDD": "1"})
    assert (done.returncode, "did you mean 'QWD_WD'?" in done.stderr) == (2, True)
    (tmp_path / "c.yaml").write_text("wd: 1e-4\nepoch: 3\n")
    done = qwd("train", "--config", "c.yaml", cwd=tmp_path)
    assert (done.returncode, "did you mean 'epochs'?" in done.stderr) == (2, True)


def test_a_place_that_cannot_be_written_is_exit_4(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = qwd("train", "--out", "file/run", "--epochs", 1, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("qwd: error: cannot write")) == (4, 1)


def test_help_and_option_errors_do_not_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom qwd_cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "slow = {'torch', 'numpy', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    for args in (
        ["--help"],
        ["train", "--help"],
        ["quantize-report", "--help"],
        ["compare", "--help"],
        ["train", "--wd", "-1"],
        ["train", "--model", "nothing"],
        ["train", "--print-config"],
        ["quantize-report", "--scheme", "nothing"],
        ["compare", "a", "b", "--fail-on", "nothing"],
    ):
        command = [sys.executable, "-c", code, *args]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (args, done.stderr)


def test_importing_qwd_does_not_import_torch() -> None:
    code = "import sys, qwd; qwd.TrainConfig(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_print_config_is_a_config(tmp_path: Path) -> None:
    first = qwd("train", "--wd", "3e-4", "--no-decay", "conv,1", "--print-config", cwd=tmp_path)
    (tmp_path / "c.yaml").write_text(first.stdout)
    again = qwd("train", "--config", "c.yaml", "--print-config", cwd=tmp_path)
    assert again.stdout == first.stdout
    assert "wd: 0.0003" in again.stdout


@pytest.mark.parametrize(
    "kind", ["models", "data", "forms", "optimizers", "schedules", "backends", "outliers"]
)
def test_list_says_what_each_entry_is(kind: str, tmp_path: Path) -> None:
    done = qwd("list", kind, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(len(line.split()) > 1 for line in done.stdout.splitlines())


LOSING = """
import os, qwd_cli.main as command
def lose(*args, **kwargs):
    try:
        os.kill(os.getpid(), {signal})
    except BaseException:
        pass
    raise AttributeError("module 'sympy' has no attribute 'core'")
command.cli.main = lose
command.main([])
"""


@pytest.mark.parametrize(("name", "code"), [("interrupted", 130), ("terminated", 143)])
def test_a_signal_whose_exception_is_lost_is_still_its_cause(name: str, code: int) -> None:
    """As while torch is imported, which then fails in some other way."""
    number = {130: signal.SIGINT, 143: signal.SIGTERM}[code]
    script = LOSING.format(signal=int(number))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, f"qwd: error: {name}\n")
