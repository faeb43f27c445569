"""`qwd export` through the installed command: files that run elsewhere, and what they say."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from safetensors import safe_open

import qwd as toolkit
from qwd.quantize.folding import deploy
from qwd.report.load import load_report
from qwd.report.subject import Subjects
from qwd.train.data import load
from tests.cli.exported import RUN, graph_grids, right_elsewhere
from tests.commands import last_line, qwd

ONNX = f"{RUN}/model-affine-tensor-w8-a8.onnx"
CODES = f"{RUN}/model-affine-tensor-w8.safetensors"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training, reported, and exported to ONNX and to codes."""
    folder = tmp_path_factory.mktemp("work")
    for args in (
        ("train", "--wd", "1e-4", "--epochs", 2, "--threads", 1),
        ("quantize-report", RUN, "--scheme", "affine-tensor", "--scheme", "onnx-static"),
        ("export", RUN, "--json", "facts.json"),
        ("export", RUN, "--format", "safetensors"),
    ):
        done = qwd(*args, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        (folder / f"{args[0]}.txt").write_text(done.stdout)
        (folder / f"{args[0]}.err").write_text(done.stderr)
        if args[0] == "export" and "facts.json" in args:
            (folder / "onnx.txt").write_text(done.stdout)
    return folder


def test_the_file_runs_where_only_numpy_and_onnxruntime_are(work: Path, tmp_path: Path) -> None:
    (model,) = load_report(work / RUN).models
    promised = model.schemes["onnx-static"].accuracy * 360
    # An image whose pixels are normalised in another order of operations may round differently.
    assert abs(right_elsewhere(work / ONNX, tmp_path) - promised) <= 1


def test_the_table_and_the_facts_say_what_was_checked(work: Path) -> None:
    printed = (work / "onnx.txt").read_text()
    assert last_line(printed) == ONNX
    facts = json.loads((work / "facts.json").read_text())
    (model,) = load_report(work / RUN).models
    assert facts["float_accuracy"] == model.float_accuracy
    stored = model.schemes["onnx-static"].accuracy
    assert facts["report"] == {
        "scheme": "onnx-static",
        "accuracy": stored,
        "source": "report.json",
        "note": None,
        "tolerance_pp": 0.1,
    }
    assert (facts["accuracy"], facts["difference_pp"], facts["agree_n"]) == (stored, 0, 360)
    assert facts["ao"]["scheme"] == "ao-static"
    assert facts["ao"]["n"] >= 350
    assert facts["bytes"] == (work / ONNX).stat().st_size < facts["float_bytes"] / 2
    assert facts["benchmark"] is None
    for words in (f"{100 * stored:.2f} %", "+0.00 pp", "360 of 360", "report.json", "ao-static"):
        assert words in printed
    err = (work / "export.err").read_text()
    assert "checking" in err


def test_metadata_are_what_a_deployer_needs(work: Path) -> None:
    model = onnx.load(work / ONNX)
    onnx.checker.check_model(model, full_check=True)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    (report,) = load_report(work / RUN).models
    data = load("digits")
    assert report.data is not None
    assert facts["scheme"] == "affine-tensor-w8-a8@onnx"
    assert (float(facts["wd"]), facts["form"], facts["seed"]) == (1e-4, "l2", "0")
    assert float(facts["dose"]) == report.dose
    assert (facts["model"], facts["data"]) == ("small_cnn", "digits")
    assert facts["data_sha256"] == report.data.sha256
    assert json.loads(facts["mean"]) == pytest.approx(data.mean)
    assert json.loads(facts["std"]) == pytest.approx(data.std)
    assert json.loads(facts["input_shape"]) == ["N", 1, 8, 8]
    assert len(json.loads(facts["classes"])) == 10
    assert float(facts["float_accuracy"]) == report.float_accuracy
    assert float(facts["accuracy"]) == report.schemes["onnx-static"].accuracy
    assert facts["qwd_version"]
    assert facts["formula"] == "w = (q - zero_point) * scale"
    assert str(work) not in json.dumps(facts)


def test_the_scales_in_the_metadata_are_those_in_the_graph(work: Path) -> None:
    model = onnx.load(work / ONNX)
    (props,) = [e.value for e in model.metadata_props if e.key == "scales"]
    said = json.loads(props)
    graph = graph_grids(model)
    network = deploy(trained(work)).module
    assert len(graph) == len(said) == 4
    for name, entry in said.items():
        assert graph[entry["codes"]] == ([entry["scale"]], [entry["zero_point"]])
        assert entry["axis"] is None
        # (b - a) / 255 of the folded weights, by hand.
        w = network.get_parameter(name).detach()
        a, b = w.min().clamp(max=0), w.max().clamp(min=0)
        assert entry["scale"] == ((b - a) / 255).item()


def trained(work: Path) -> torch.nn.Module:
    subject = Subjects({}).open(work / RUN)
    assert subject.model is not None
    return subject.model


def test_codes_load_back_to_w_prime(work: Path) -> None:
    found = toolkit.export.load(work / CODES)
    network = deploy(trained(work)).module
    assert set(found) == set(network.state_dict())
    for name, weight in network.named_parameters():
        w = weight.detach()
        if w.ndim < 2:
            assert torch.equal(found[name], w)
            continue
        a, b = w.min().clamp(max=0), w.max().clamp(min=0)
        scale = (b - a) / 255
        zero_point = -128 - (a / scale).round()
        codes = ((w / scale).round() + zero_point).clamp(-128, 127)
        assert torch.equal(found[name], (codes - zero_point) * scale)
    with safe_open(work / CODES, framework="pt") as file:
        facts = file.metadata()
    assert (facts["scheme"], facts["wd"]) == ("affine-tensor-w8@weights", "0.0001")


def test_a_pt2_file_is_checked_and_its_facts_are_inside(work: Path) -> None:
    done = qwd("export", RUN, "--format", "pt2", "--out", "net.pt2", "--json", "-", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    facts = json.loads(done.stdout)
    assert (facts["path"], facts["scheme"]) == ("net.pt2", "pt2e-default")
    assert (facts["agree_n"], facts["difference_pp"]) == (360, 0)
    assert facts["ao"]["scheme"] == "ao-default"
    extra = {"qwd.json": ""}
    torch.export.load(work / "net.pt2", extra_files=extra)
    inside = json.loads(extra["qwd.json"])
    assert inside["scheme"] == "symmetric-channel-w8-a8@pt2e"
    assert json.loads(inside["scales"]) == facts["metadata"]["scales"]
    assert len(json.loads(inside["scales"])) == 4


@pytest.mark.long
def test_an_export_is_repeated_over_its_own_file(work: Path) -> None:
    before = (work / ONNX).read_bytes()
    done = qwd("export", RUN, "--json", "-", cwd=work)
    assert done.returncode == 0
    facts = json.loads(done.stdout)
    assert facts["path"] == ONNX
    assert (work / ONNX).read_bytes() == before


def test_the_trained_weights_are_not_overwritten(work: Path) -> None:
    weights = work / RUN / "model.safetensors"
    before = weights.read_bytes()
    out = f"{RUN}/model.safetensors"
    done = qwd("export", RUN, "--format", "safetensors", "--out", out, cwd=work)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is no file of `qwd export`: choose another --out" in done.stderr
    assert weights.read_bytes() == before


def test_a_checkpoint_with_its_network_and_images(work: Path) -> None:
    weights = f"{RUN}/model.safetensors"
    args = ("--format", "safetensors", "--scheme", "minmax-channel-w4")
    given = ("--model", "small_cnn", "--data", "digits")
    done = qwd("export", weights, *args, *given, cwd=work)
    assert done.returncode == 0, done.stderr
    assert last_line(done.stdout) == "model-minmax-channel-w4.safetensors"
    with safe_open(work / last_line(done.stdout), framework="pt") as file:
        facts = file.metadata()
    assert (facts["wd"], facts["model"]) == ("null", "small_cnn")
    alone = qwd("export", weights, *args, cwd=work)
    assert (alone.returncode, "so give --model and --data" in alone.stderr) == (2, True)


def test_a_file_that_breaks_the_reports_promise_is_not_written(work: Path) -> None:
    file = work / RUN / "report.json"
    before = file.read_text()
    report = json.loads(before)
    scheme = report["models"][0]["schemes"]["onnx-static"]
    scheme["accuracy"] -= 2 / 360
    try:
        file.write_text(json.dumps(report))
        done = qwd("export", RUN, "--out", "new/fresh.onnx", cwd=work)
    finally:
        file.write_text(before)
    assert (done.returncode, done.stdout) == (5, "")
    assert "nothing was written: the file's accuracy is" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("qwd: error: ")
    assert not (work / "new").exists()


@pytest.mark.long
def test_a_benchmark_has_every_time_and_no_judgement(work: Path) -> None:
    args = ("--benchmark", "--repetitions", 3, "--batch-size", "1,4")
    done = qwd("export", RUN, *args, "--threads", 1, "--json", "-", cwd=work)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)["benchmark"]
    assert (measured["repetitions"], measured["threads"]) == (3, 1)
    assert [latency["batch_size"] for latency in measured["latencies"]] == [1, 4]
    for latency in measured["latencies"]:
        names = [timed["name"] for timed in latency["timed"]]
        assert names == ["torch float32", "onnxruntime float32", "onnxruntime int8"]
        for timed in latency["timed"]:
            for figure in (timed["seconds"], timed["ratio"]):
                assert 0 < figure["low"] <= figure["median"] <= figure["high"]
    codes = qwd("export", RUN, "--format", "safetensors", *args, cwd=work)
    assert codes.returncode == 0
    for words in (
        "what runs",
        "codes, dequantized",
        "3 interleaved repetitions",
        "reading the file",
    ):
        assert words in codes.stdout
