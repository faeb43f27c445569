"""`qwd dose`, and what `train` and the report say of decay, through the installed command."""

import csv
import io
import json
from pathlib import Path

import pytest

from tests.commands import last_line, qwd

WRONG = {
    "dose --wd -1": "--wd '-1': expected a list with commas of numbers",
    "dose --wd 1e-4,1e-4": "--wd '1e-4,1e-4': expected",
    "dose --wd nan": "--wd 'nan': expected",
    "dose --target 0": "--target '0': expected a finite number greater than 0",
    "dose --images 0": "--images '0': expected a whole number of at least 1",
    "dose --convert-lr -1": "--convert-lr '-1': expected a finite number greater than 0",
    "dose --json - --csv -": "only one of them can be -",
    "dose --form l3": "--form 'l3': expected a known decay form",
    "train --cautious": "--cautious: belongs to --form decoupled, not to l2",
    "train --decay conv1": "--decay 'conv1': expected PATTERN=VALUE",
    "train --decay convx=2": "--decay 'convx' matches no parameter: did you mean 'conv3.weight'",
    "train --no-decay wieght$": "--no-decay 'wieght$' matches no parameter: did you mean",
    "train --no-decay .": "every parameter is excluded from decay",
    "train --optimizer adamx": "--optimizer 'adamx': expected a known optimizer",
    "train --optimizer torch.optim:LBFGS": "--optimizer torch.optim:LBFGS",
    "train --optimizer torch.optim:NAdamm": "cannot be imported",
    "train --lr-schedule plateu": "did you mean 'plateau'",
    "train --lr-min 1": "--lr-min 1",
    "train --lr-gamma 0.5": "--lr-gamma 0.5: belongs to --lr-schedule step, multistep or plateau",
    "train --wd-schedule piecewise": "needs --wd-at",
    "train --wd-at 1=2": "--wd-at 1=2: belongs to --wd-schedule piecewise, not to constant",
}


@pytest.mark.parametrize("command", WRONG)
def test_wrong_use_is_exit_2_one_line_and_no_file(command: str, tmp_path: Path) -> None:
    done = qwd(*command.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.rstrip().count("\n") == 0
    assert WRONG[command] in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_table_and_its_advice(tmp_path: Path) -> None:
    """50,000 images, 390 steps an epoch, 10 epochs at 0.1: D = 3,900 * 0.1 * 10 * wd."""
    common = ("--images", 50_000, "--batch-size", 128, "--epochs", 10, "--lr-schedule", "constant")
    done = qwd("dose", "--wd", "1e-6,1e-5", *common, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1e-6  0.00390" in done.stdout
    assert "warning: doses below 0.05: these runs cannot differ through decay; for D = 0.5" in (
        done.stdout
    )
    assert "use --wd 1.28e-4" in done.stdout
    written = qwd("dose", "--wd", "1e-5..1e-3", *common, "--csv", "-", cwd=tmp_path)
    rows = list(csv.DictReader(io.StringIO(written.stdout)))
    assert [float(row["dose"]) for row in rows] == pytest.approx([0.039, 0.39, 3.9])
    content = json.loads(qwd("dose", *common, "--json", "-", cwd=tmp_path).stdout)
    assert content["conversions"]["torch.optim.AdamW"] == [pytest.approx(1e-3)]


def test_a_run_tells_its_decay_before_and_after(tmp_path: Path) -> None:
    settings = ("--optimizer", "adamw", "--cautious", "--wd", "0.01", "--epochs", 1, "--threads", 1)
    done = qwd("train", *settings, "--no-decay", "linear", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "23,184 under decoupled decay 0.01, adamw" in done.stderr
    assert "below 0.05, too small to show; for a dose of 0.5 use --wd" in done.stderr
    folder = last_line(done.stdout)
    reported = qwd("quantize-report", folder, "--scheme", "minmax-tensor", cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
    assert "96.37 % of the parameters are decayed, verified by a step" in reported.stdout
    report = json.loads((tmp_path / folder / "report.json").read_text())
    table = {p["name"]: p["form"] for p in report["models"][0]["decay"]["parameters"]}
    assert table["conv1.weight"] == "cautious"
    assert table["linear.weight"] is None


def test_a_decay_too_small_for_float32_is_said(tmp_path: Path) -> None:
    settings = ("--optimizer", "adamw", "--wd", "1e-5", "--epochs", 1, "--threads", 1)
    done = qwd("train", *settings, "--out", "run", cwd=tmp_path)
    assert "decoupled by 1e-05 at a rate of 0.001 is too small for float32 weights" in done.stderr
    reported = qwd("quantize-report", "run", "--scheme", "minmax-tensor", cwd=tmp_path)
    assert "warning: decay: conv1.weight and 3 more" in reported.stdout
