"""A quantization-aware run goes into ONNX with the grids that it was trained with."""

import json
from pathlib import Path

import onnx
import pytest

from qwd.quantize import qat
from qwd.quantize.fake import FakeQuantize
from qwd.report.load import load_report
from qwd.report.subject import Subjects
from tests.cli.exported import RUN, graph_grids, right_elsewhere
from tests.commands import last_line, qwd

TRAINED = "affine-tensor-w4-a8-qat"
FILE = f"{RUN}/model-{TRAINED}.onnx"


@pytest.fixture(scope="module")
def aware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantization-aware training with 4-bit weights, reported, and exported to ONNX."""
    folder = tmp_path_factory.mktemp("aware")
    short = ("--wd", "1e-4", "--epochs", 2, "--threads", 1)
    for args in (
        ("train", "--qat", "--bits", 4, *short, "--out", RUN),
        ("quantize-report", RUN, "--scheme", "affine-tensor"),
        ("export", RUN, "--json", "facts.json"),
    ):
        done = qwd(*args, cwd=folder)
        assert done.returncode == 0, done.stderr
        (folder / "out.txt").write_text(done.stdout)
    return folder


def test_the_file_runs_where_only_numpy_and_onnxruntime_are(aware: Path, tmp_path: Path) -> None:
    (model,) = load_report(aware / RUN).models
    promised = model.schemes[TRAINED].accuracy * 360
    assert abs(right_elsewhere(aware / FILE, tmp_path) - promised) <= 1


def test_the_grids_in_the_file_are_those_of_the_training(aware: Path) -> None:
    assert last_line((aware / "out.txt").read_text()) == FILE
    facts = json.loads((aware / "facts.json").read_text())
    (report,) = load_report(aware / RUN).models
    promised = report.schemes[TRAINED].accuracy
    assert facts["report"] == {
        "scheme": TRAINED,
        "accuracy": promised,
        "source": "report.json",
        "note": None,
        "tolerance_pp": pytest.approx(100 / 360),
    }
    assert facts["accuracy"] == facts["metadata"]["accuracy"]
    assert abs(facts["accuracy"] - promised) * 360 <= 1 + 1e-9
    assert (facts["scheme"], facts["agree_n"] >= 355) == (f"{TRAINED}@onnx", True)
    assert facts["metadata"]["scheme"] == f"{TRAINED}@onnx"
    subject = Subjects({}).open(aware / RUN)
    grids = {
        name.replace(".0.parametrizations", ".parametrizations"): module.scale.item()
        for name, module in qat.reference(subject.twin).named_modules()
        if isinstance(module, FakeQuantize) and "parametrizations" in name
    }
    said = facts["metadata"]["scales"]
    assert {
        f"{name.removesuffix('.weight')}.parametrizations.weight.0": entry["scale"]
        for name, entry in said.items()
    } == grids
    assert set(said) == {f"{name}.weight" for name in ("conv1", "conv2", "conv3", "linear")}
    graph = graph_grids(onnx.load(aware / FILE))
    assert graph == {e["codes"]: ([e["scale"]], [e["zero_point"]]) for e in said.values()}


def test_other_formats_say_that_they_quantize_after_training(aware: Path) -> None:
    after = ("--format", "safetensors", "--out", "after.safetensors")
    done = qwd("export", RUN, *after, cwd=aware)
    assert done.returncode == 0, done.stderr
    assert "warning: the run was quantization-aware, and this file is not" in done.stdout
