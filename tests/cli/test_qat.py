"""Quantization-aware training through the installed command: from a run, reported, compared."""

from pathlib import Path

import pytest
import yaml

from qwd.report.load import load_report
from tests.commands import last_line, qwd

SHORT = ("--threads", 1, "--epochs")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in float, and 4-bit ones from it and from scratch, reported side by side."""
    folder = tmp_path_factory.mktemp("work")
    commands = (
        ("train", "--wd", "1e-3", *SHORT, 4, "--out", "float"),
        ("train", "--from", "float", "--qat", "--bits", 4, *SHORT, 3, "--out", "aware"),
        ("train", "--wd", "1e-3", "--qat", "--bits", 4, *SHORT, 4, "--out", "scratch"),
    )
    for command in commands:
        done = qwd(*command, cwd=folder)
        assert done.returncode == 0, done.stderr
        (folder / f"{command[-1]}.log").write_text(done.stderr)
    done = qwd(
        *("quantize-report", "float", "aware", "--scheme", "ao-static", "--bits", "8,6,4"),
        *("--json", "report.json"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    (folder / "printed.txt").write_text(done.stdout)
    return folder


def test_training_shows_the_accuracy_of_the_int8_model(runs: Path) -> None:
    log = (runs / "aware.log").read_text()
    assert "from float, affine-tensor-w4-a8-qat" in log
    assert " int8 " in log
    assert "Warning" not in log
    assert "deprecat" not in log
    assert " int8 " not in (runs / "float.log").read_text()


def test_settings_that_are_not_given_are_those_of_the_run(runs: Path) -> None:
    config = yaml.safe_load((runs / "aware" / "config.yaml").read_text())
    assert (config["wd"], config["lr"]) == (1e-3, 0.01)
    assert (config["from"], config["qat"]) == ("float", True)
    assert config["mean"] == yaml.safe_load((runs / "float" / "config.yaml").read_text())["mean"]
    again = qwd("train", "--config", "aware/config.yaml", "--print-config", cwd=runs)
    assert yaml.safe_load(again.stdout) == config


def test_the_report_sets_float_after_and_aware_side_by_side(runs: Path) -> None:
    report = load_report(runs / "report.json")
    plain, aware = report.models
    assert "affine-tensor-w4-a8-qat" not in plain.schemes
    found = aware.schemes["affine-tensor-w4-a8-qat"]
    assert (found.qat, found.backend, found.weight_bits, found.left_float) == (True, "ao", 4, ())
    assert found.training_sqnr_db is not None
    assert found.converted_sqnr_db == pytest.approx(found.training_sqnr_db, abs=3)
    assert report.comparison is not None
    rows = {row.bits: row for row in report.comparison.quantized}
    assert set(rows) == {8, 6, 4}
    post_training, trained = rows[4].post_training, rows[4].qat
    assert post_training is not None
    assert trained is not None
    assert post_training.mean == plain.schemes["affine-tensor-w4-a8"].accuracy
    assert trained.mean == found.accuracy
    assert rows[4].gain_pp is not None
    assert rows[4].gain_pp.mean == pytest.approx(100 * (trained.mean - post_training.mean))
    assert rows[8].qat is None
    printed = (runs / "printed.txt").read_text()
    assert "QAT - PTQ" in printed
    assert "affine-tensor-w4-a8-qat" in printed


def test_from_scratch_the_default_folder_says_what_it_is(tmp_path: Path) -> None:
    done = qwd("train", "--qat", *SHORT, 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert last_line(done.stdout) == "runs/small_cnn-digits-wd1e-4-s0-w8-qat"


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (("--bits", 4), 2, "--bits 4: belongs to --qat"),
        (("--qat", "--bits", 9), 2, "--bits '9': expected a whole number"),
        (("--qat", "--weights", "minmax"), 2, "--weights 'minmax': expected one of affine"),
        (("--qat", "--qat-wd", "0.1x"), 2, "--qat-wd '0.1x': expected a coefficient of at least 0"),
        (("--qat", "--amp"), 2, "--amp: torch's fake quantization is float32"),
        (("--from", "nowhere"), 3, "nowhere is no run folder"),
        (("--from", "float", "--model", "mlp"), 2, "the run in float trained small_cnn"),
    ],
)
def test_wrong_use_is_one_line(runs: Path, options: tuple, code: int, line: str) -> None:
    done = qwd("train", *options, "--epochs", 2, "--out", "never", cwd=runs)
    assert (done.returncode, line in done.stderr) == (code, True), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (runs / "never").exists()


def test_commands_that_train_nothing_aware_do_not_take_its_options(tmp_path: Path) -> None:
    for command in ("find-lr", "dose", "cross-validate"):
        assert qwd(command, "--qat", cwd=tmp_path).returncode == 2
