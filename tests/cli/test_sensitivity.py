"""`qwd quantize-report --sensitivity` and `--fix` through the installed command."""

import json
import os
from pathlib import Path

import pytest

from qwd.report.load import load_report
from tests.commands import last_line, qwd

STUDIES = ("--sensitivity", "--fix", "0.5", "--threads", 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on the embedded digits."""
    folder = tmp_path_factory.mktemp("work")
    done = qwd("train", "--epochs", 4, "--threads", 1, "--out", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / last_line(done.stdout)


def test_a_run_is_studied_and_the_report_holds_it(run: Path) -> None:
    scheme = ("--scheme", "affine-tensor-w3-a8@simulated")
    done = qwd("quantize-report", "run", *scheme, *STUDIES, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    page = " ".join(done.stdout.split())
    for words in (
        "run: sensitivity",
        "affine-tensor-w3-a8@simulated on the backend simulated",
        "180 images of the validation split, each 0.56 pp",
        "weights only",
        "activations only",
        "all but it",
        "run: remedies",
        "limit 0.50 pp",
    ):
        assert words in page
    lines = done.stderr.splitlines()
    assert lines[0].startswith("sensitivity: 15 evaluations of 180 images, then at most")
    assert "sensitivity: 12 of 15" in lines
    assert any(line.startswith("fix: ") for line in lines)
    assert "Warning" not in done.stderr
    (model,) = load_report(run).models
    assert model.sensitivity is not None
    assert {part.name for part in model.sensitivity.layers} == {"conv1", "conv2", "conv3", "linear"}
    assert model.remedies is not None
    # In 3 bits the digits lose more than half a point, and per-channel scales lose less.
    assert model.remedies.before.scheme == "affine-tensor-w3-a8@simulated"
    assert model.remedies.before.effect is not None
    assert model.remedies.before.effect.drop_pp > 0.5
    assert model.remedies.hint == "qwd train --qat --from run --bits 3"
    assert model.remedies.hint in page


def test_within_the_limit_nothing_is_tried(run: Path) -> None:
    done = qwd("quantize-report", run, "--fix", 50, "--json", "-", "--threads", 1, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    (model,) = json.loads(done.stdout)["models"]
    assert (model["sensitivity"], model["remedies"]["entries"]) == (None, [])
    assert model["remedies"]["limit_pp"] == 50
    assert model["remedies"]["before"]["scheme"] == "ao-static"
    assert "then at most" in done.stderr


def test_fewer_images_are_said(run: Path) -> None:
    options = ("--sensitivity", "--sensitivity-n", 50, "--scheme", "affine-tensor", "--md", "-")
    done = qwd("quantize-report", run, *options, "--threads", 1, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert "simulated-static on the backend simulated" in done.stdout
    assert "50 images of the validation split, each 2.00 pp" in done.stdout


USER = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x):
        x = x.flatten(1)
        return self.linear(x if x.sum() > -1e9 else -x)
"""


def test_a_network_that_cannot_be_traced_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(USER)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    train = ("train", "--model", "mine:Net", "--epochs", 1, "--threads", 1, "--out", "run")
    assert qwd(*train, cwd=tmp_path, env=environment).returncode == 0
    done = qwd(
        "quantize-report", "run", "--scheme", "affine-tensor", *STUDIES, cwd=tmp_path,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning: no sensitivity: " in done.stdout
    assert "warning: no remedies: " in done.stdout
    assert "affine-tensor " in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--fix", "-1"), "--fix '-1': expected a finite number of at least 0 and at most 100"),
        (("--fix", "nan"), "--fix 'nan': expected a finite number"),
        (("--fix", "x"), "--fix 'x': expected a finite number"),
        (("--sensitivity-n", "9"), "--sensitivity-n '9': belongs to --sensitivity"),
        (("--sensitivity", "--sensitivity-n", "0"), "--sensitivity-n '0': expected a whole number"),
        (("--fix",), "--fix"),
    ],
)
def test_wrong_use_is_one_line(options: tuple[str, ...], says: str, tmp_path: Path) -> None:
    done = qwd("quantize-report", *options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("qwd: error: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


def test_a_bare_checkpoint_has_nothing_to_try(run: Path) -> None:
    done = qwd("quantize-report", run / "model.safetensors", *STUDIES, cwd=run.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "qwd: error: model.safetensors: sensitivity and remedies need the network and its images: "
        "give --model and --data\n"
    )
    known = ("--model", "small_cnn", "--data", "digits", "--scheme", "affine-tensor", *STUDIES)
    done = qwd("quantize-report", run / "model.safetensors", *known, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert "model.safetensors: sensitivity" in done.stdout
