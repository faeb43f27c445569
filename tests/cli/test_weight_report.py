"""The options of `qwd quantize-report` for checkpoints without their class."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from qwd_cli import weight_progress
from qwd_cli.main import cli
from torch import nn

from qwd.errors import UsageError


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = nn.ModuleDict({"conv1": nn.Conv2d(3, 8, 3), "bn1": nn.BatchNorm2d(8)})
    model["conv2"], model["bn2"] = nn.Conv2d(8, 24, 3), nn.BatchNorm2d(24)
    path = tmp_path_factory.mktemp("file") / "net.pt"
    torch.save(model.state_dict(), path)
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["quantize-report", *map(str, words)])


def test_sort_top_and_filter(file: Path):
    by_name = run(file, "--sort", "numel", "--top", 1).stdout
    assert "conv2.weight" in by_name
    assert "conv1.weight" not in by_name.split("kind ")[1].split("The first 1 of 2")[0]
    assert "The first 1 of 2 tensors by numel; --top N shows more." in by_name
    filtered = json.loads(run(file, "--filter", "^conv1", "--json", "-").stdout)
    assert [t["name"] for t in filtered["models"][0]["tensors"]] == ["conv1.weight"]


def test_eps_and_pairs_that_are_stated(file: Path):
    done = run(file, "--bn-eps", "0.5", "--fold", r"conv(\d)=bn\1", "--json", "-")
    assert done.exit_code == 0
    (model,) = json.loads(done.stdout)["models"]
    assert [t["norm"] for t in model["tensors"]] == ["bn1", "bn2"]
    raw, folded = model["tensors"][0]["range"], model["tensors"][0]["folded"]["range"]
    assert folded == pytest.approx(raw / 1.5**0.5, rel=1e-6)


def test_widths_beside_8_bits(file: Path):
    (model,) = json.loads(run(file, "--bits", "8,6,4", "--json", "-").stdout)["models"]
    assert [w["bits"] for w in model["tensors"][0]["widths"]] == [6, 4]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sort", "size"), "--sort 'size': expected one of sqnr, range, range_over_std"),
        (("--filter", "("), "--filter '(': expected a regular expression that compiles"),
        (("--fold", "conv1"), "--fold 'conv1': expected LAYER=NORM"),
        (("--fold", "conv9=bn1"), "--fold 'conv9=bn1': matches no layer; there are conv1"),
        (("--fold", "conv1=bn2"), "does not give the 24 channels of bn2"),
        (
            ("--fold", "a=b", "--model", "mlp", "--data", "digits"),
            "belongs to checkpoints without their network",
        ),
        (("--bn-eps", "-1"), "--bn-eps '-1': expected"),
        (("--bits", "8,9"), "--bits '8,9': expected"),
    ],
)
def test_wrong_use_is_one_line(file: Path, words: tuple[str, ...], message: str):
    done = run(file, *words)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


def test_progress_counts_bytes_of_large_files(capsys: pytest.CaptureFixture[str]):
    progress = weight_progress.WeightProgress()
    for done in range(0, 2_000_000_001, 50_000_000):
        progress(done, 2_000_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == weight_progress.LINES
    assert lines[0].startswith("weights: 200 MB of 2.00 GB read")
    assert lines[-1] == "weights: 2.00 GB of 2.00 GB read"
    progress(1, 1000)
    assert capsys.readouterr().err == ""


def test_the_time_of_the_first_tensor_counts_for_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    progress = weight_progress.WeightProgress()
    for second, done in enumerate((0, 400_000_000, 600_000_000)):
        monkeypatch.setattr(weight_progress.time, "monotonic", lambda now=10 * second + 1: now)
        progress(done, 1_000_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(", ")[2] for line in lines] == ["about 15 s left", "about 13 s left"]
