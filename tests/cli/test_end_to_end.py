"""The main job through the installed command, on the embedded data: train, report, compare."""

import csv
import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch.fx.config
import yaml
from safetensors.torch import load_file

from qwd.report.load import load_report
from tests.commands import QWD, last_line, qwd

SHORT = ("--threads", 1, "--epochs", 4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two decays, two seeds each, reported; with much decay, so that it shows in four epochs."""
    folder = tmp_path_factory.mktemp("work")
    for wd in ("1e-5", "1e-2"):
        for seed in (0, 1):
            done = qwd("train", "--wd", wd, "--seed", seed, *SHORT, cwd=folder)
            assert done.returncode == 0, done.stderr
    done = qwd("quantize-report", "--json", "report.json", "--bits", "8,4", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "printed.txt").write_text(done.stdout)
    return folder


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(path.read_text().splitlines()))


def test_train_prints_progress_a_hint_and_the_folder(tmp_path: Path) -> None:
    done = qwd("train", "--wd", "1e-4", *SHORT, cwd=tmp_path)
    assert done.returncode == 0
    folder = tmp_path / last_line(done.stdout)
    assert folder == tmp_path / "runs" / "small_cnn-digits-wd1e-4-s0"
    assert "next: qwd quantize-report runs/small_cnn-digits-wd1e-4-s0" in done.stderr
    for word in ("loss", "train", "val", "gap", "range", "folded", "dose"):
        assert word in done.stderr
    assert "Warning" not in done.stderr
    assert {p.name for p in folder.iterdir()} >= {
        *("config.yaml", "metrics.csv", "checkpoint.pt", "model.safetensors", "environment.json")
    }
    rows = table(folder / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert yaml.safe_load((folder / "config.yaml").read_text())["wd"] == 1e-4
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])


def test_an_existing_run_is_refused_and_a_finished_one_resumes_to_itself(runs: Path) -> None:
    args = ("train", "--wd", "1e-5", *SHORT)
    refused = qwd(*args, cwd=runs)
    assert (refused.returncode, "--resume" in refused.stderr) == (2, True)
    before = (runs / "runs/small_cnn-digits-wd1e-5-s0/model.safetensors").read_bytes()
    done = qwd(*args, "--resume", cwd=runs)
    assert (done.returncode, last_line(done.stdout)) == (0, "runs/small_cnn-digits-wd1e-5-s0")
    assert (runs / last_line(done.stdout) / "model.safetensors").read_bytes() == before
    folder = last_line(done.stdout)
    other = qwd("train", "--resume", "--out", folder, "--lr", "0.5", cwd=runs)
    assert (other.returncode, "--lr 0.5: the run" in other.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "stops"),
    [
        pytest.param((), (signal.SIGKILL, signal.SIGTERM), marks=pytest.mark.long),
        (("--qat", "--bits", "4"), (signal.SIGKILL,)),
    ],
)
def test_a_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, options: tuple[str, ...], stops: tuple[signal.Signals, ...]
) -> None:
    args = ["train", "--wd", "1e-4", "--threads", "1", "--epochs", "15", *options]
    assert qwd(*args, "--out", "whole", cwd=tmp_path).returncode == 0
    for stop in stops:
        name = f"killed-{stop.name}"
        with subprocess.Popen(
            [QWD, *args, "--out", name],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            metrics = tmp_path / name / "metrics.csv"
            deadline = time.monotonic() + 120
            while not metrics.exists() or metrics.read_text().count("\n") < 4:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(stop)
            process.communicate()
        assert process.returncode == (-signal.SIGKILL if stop == signal.SIGKILL else 143)
        assert not (tmp_path / name / "model.safetensors").exists()
        unfinished = qwd("quantize-report", name, cwd=tmp_path)
        assert (unfinished.returncode, "is unfinished" in unfinished.stderr) == (3, True)
        done = qwd("train", "--resume", "--out", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "resumed after epoch" in done.stderr
        stored = ["model.safetensors", *(["qat.safetensors"] if options else [])]
        for file in stored:
            whole, resumed = (tmp_path / n / file for n in ("whole", name))
            assert whole.read_bytes() == resumed.read_bytes()

        def without_seconds(path: Path) -> list[dict[str, str]]:
            return [{k: v for k, v in row.items() if k != "seconds"} for row in table(path)]

        assert without_seconds(metrics) == without_seconds(tmp_path / "whole" / "metrics.csv")


def test_divergence_is_exit_6(tmp_path: Path) -> None:
    done = qwd("train", "--lr", "1e12", "--epochs", 2, "--model", "mlp", cwd=tmp_path)
    assert done.returncode == 6
    assert "diverged in epoch 1: the loss is not finite; try a lower --lr" in done.stderr


def test_the_report_has_every_figure_and_prints_both_sides(runs: Path) -> None:
    report = load_report(runs / "report.json")
    assert [m.seed for m in report.models] == [0, 1, 0, 1]
    for model in report.models:
        assert set(model.schemes) == {
            *("minmax-tensor", "affine-tensor", "affine-channel", "ao-static", "ao-default"),
            *("minmax-tensor-w4", "affine-tensor-w4", "affine-channel-w4", "affine-tensor-w4-a8"),
        }
        assert model.schemes["ao-static"].left_float == ()
        assert model.schemes["ao-static"].quantized_ops == 4
        assert model.float_accuracy is not None
        assert model.float_accuracy > 0.8
        assert model.schemes["ao-static"].accuracy > model.float_accuracy - 0.05
        assert [t.folded is not None for t in model.tensors] == [True, True, True, False]
        assert load_report(runs / str(model.path)).models[0].name == model.name
    assert report.comparison is not None
    small, large = report.comparison.groups
    assert (small.name, large.name) == ("wd 1e-5", "wd 0.01")
    assert large.metrics["range"].mean < small.metrics["range"].mean  # type: ignore[union-attr]
    assert "the raw range is" in report.comparison.readings[0]
    printed = (runs / "printed.txt").read_text()
    for words in ("range, raw", "range, folded", "int8 accuracy", "dose", "±", "wd 1e-5"):
        assert words in printed
    assert "Warning" not in printed


def test_the_same_weights_reported_twice_give_the_same_report(runs: Path) -> None:
    path = "runs/small_cnn-digits-wd1e-5-s0"
    first, again = (qwd("quantize-report", path, "--json", "-", cwd=runs) for _ in range(2))
    assert first.stdout == again.stdout
    assert json.loads(first.stdout)["schema_version"] == 1


@pytest.mark.skipif(
    not hasattr(torch.fx.config, "do_not_emit_stack_traces"),
    reason="before 2.12 torch imports it to quantize a network",
)
def test_a_report_does_not_import_the_compiler(runs: Path) -> None:
    path = "runs/small_cnn-digits-wd1e-5-s0"
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = qwd("quantize-report", path, "--json", "-", cwd=runs, env=environment)
    assert "torch.ao.quantization" in done.stderr
    assert "torch._dynamo" not in done.stderr


def test_a_checkpoint_alone_gets_weight_figures_and_with_its_network_the_accuracies(
    runs: Path,
) -> None:
    weights = "runs/small_cnn-digits-wd1e-5-s0/model.safetensors"
    alone = qwd("quantize-report", weights, "--json", "alone.json", cwd=runs)
    assert alone.returncode == 0
    assert "give --model and --data" in alone.stdout
    model = load_report(runs / "alone.json").models[0]
    assert model.float_accuracy is None
    assert model.parameters > 0
    args = ("--model", "small_cnn", "--data", "digits", "--json", "whole.json")
    assert qwd("quantize-report", weights, *args, cwd=runs).returncode == 0
    whole = load_report(runs / "whole.json").models[0]
    original = load_report(Path(runs, weights).parent).models[0]
    assert whole.float_accuracy == original.float_accuracy
    # BatchNorms are paired by names and shapes as the network pairs them.
    assert model.summary.folded_range == original.summary.folded_range is not None
    assert whole.schemes["ao-static"] == original.schemes["ao-static"]
    assert {t.name: t.figures for t in whole.tensors} == {
        # The run's report was asked for other widths as well.
        t.name: replace(t.figures, widths=())
        for t in original.tensors
    }
    wrong = qwd("quantize-report", weights, "--model", "mlp", "--data", "digits", cwd=runs)
    assert (wrong.returncode, "does not fit --model mlp" in wrong.stderr) == (3, True)


def test_compare_exit_codes(runs: Path) -> None:
    base, head = (f"runs/small_cnn-digits-wd{wd}-s0" for wd in ("1e-5", "1e-2"))
    head = head.replace("1e-2", "0.01")
    same = qwd("compare", base, base, "--fail-on", "int8_accuracy:-0pp", cwd=runs)
    assert same.returncode == 0
    assert "int8_accuracy" in same.stdout
    changed = qwd("compare", base, head, "--fail-on", "range:-1%", "--md", "-", cwd=runs)
    assert changed.returncode == 1
    assert "exceeded: " in changed.stderr
    assert "| range |" in changed.stdout
    assert qwd("compare", base, head, "--fail-on", "range:+1%", cwd=runs).returncode == 0
    lacking = qwd(
        "compare", base, base, "--fail-on", "schemes.affine-tensor-w3.accuracy:-1pp", cwd=runs
    )
    assert lacking.returncode == 3
    report = json.loads((runs / base / "report.json").read_text())
    report["models"][0]["data"]["sha256"] = "0" * 64
    (runs / "other.json").write_text(json.dumps(report))
    assert qwd("compare", base, "other.json", cwd=runs).returncode == 3
    report["models"][0]["summary"]["range"] = float("nan")
    (runs / "nan.json").write_text(json.dumps(report))
    assert qwd("compare", base, "nan.json", cwd=runs).returncode == 3


def test_outputs_to_files_and_stdout(runs: Path) -> None:
    path = "runs/small_cnn-digits-wd1e-5-s0"
    done = qwd("quantize-report", path, "--csv", "t.csv", "--md", "-", cwd=runs)
    assert done.stdout.startswith("#")
    rows = table(runs / "t.csv")
    weights = load_file(runs / path / "model.safetensors")
    conv = next(row for row in rows if "conv1.weight" in row.values())
    a, b = weights["conv1.weight"].double().aminmax()
    assert float(conv["range"]) == (b - a).item()


def test_stdout_closed_early_is_no_error(runs: Path) -> None:
    command = f"{QWD} quantize-report runs/small_cnn-digits-wd1e-5-s0 | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=runs,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_variables_and_files_set_the_run(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("wd: 1e-3\nepochs: 1\nmodel: mlp\n")
    environment = {**os.environ, "QWD_SEED": "7"}
    done = qwd("train", "--config", "c.yaml", "--wd", "2e-3", cwd=tmp_path, env=environment)
    assert last_line(done.stdout) == "runs/mlp-digits-wd2e-3-s7"
