"""`qwd export` refuses in one line, with the documented code, and leaves everything as it was."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.exported import RUN
from tests.commands import last_line, qwd


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and a file that is none."""
    folder = tmp_path_factory.mktemp("work")
    done = qwd("train", "--model", "mlp", "--epochs", 1, "--threads", 1, "--out", RUN, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "facts.json").write_text("{}")
    return folder


WRONG = {
    f"export {RUN} --format onx": (2, "--format 'onx': did you mean 'onnx'?"),
    f"export {RUN} --scheme affine-tenser": (2, "did you mean 'affine-tensor'?"),
    f"export {RUN} --scheme affine-tensor": (2, "--format onnx takes <affine|symmetric>"),
    f"export {RUN} --format pt2 --scheme ao-static": (2, "--format pt2 takes symmetric-"),
    f"export {RUN} --batch-size 0": (2, "--batch-size '0'"),
    f"export {RUN} --repetitions x": (2, "--repetitions 'x': expected a whole number"),
    f"export {RUN} --calibration-n 0": (2, "--calibration-n '0'"),
    f"export {RUN} --out x.pt": (2, "--out 'x.pt': expected a file that ends in .onnx"),
    f"export {RUN} --json .": (2, "--json '.': expected a file"),
    f"export {RUN} --out facts.json/x.onnx": (4, "cannot write facts.json/x.onnx: Not a directory"),
    "export": (2, "Missing argument 'RUN'"),
    "export absent": (3, "absent does not exist"),
    "export runs": (3, "runs is no run folder"),
    "export facts.json --model mlp --data digits": (3, "expected a file ending in .safetensors"),
}


@pytest.mark.parametrize("command", WRONG)
def test_wrong_use_is_one_line_and_writes_nothing(work: Path, command: str) -> None:
    before = sorted(work.rglob("*"))
    done = qwd(*command.split(), cwd=work)
    code, words = WRONG[command]
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("qwd: error: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert sorted(work.rglob("*")) == before


def test_an_unfinished_run_is_exit_3(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("epochs: 2\n")
    done = qwd("export", ".", cwd=tmp_path)
    assert (done.returncode, "is unfinished" in done.stderr) == (3, True)


def without(modules: str, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command where some packages are not installed."""
    code = (
        "import sys\n"
        f"for name in {modules.split()!r}: sys.modules[name] = None\n"
        "from qwd_cli.main import main\nmain(sys.argv[1:])"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *args], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("missing", "format", "extra"),
    [
        ("onnx", "onnx", "onnx"),
        ("onnxruntime", "onnx", "onnx"),
        ("onnxscript", "onnx", "onnx"),
        ("torchao", "pt2", "pt2e"),
    ],
)
def test_without_the_extra_the_install_command_is_named(
    work: Path, missing: str, format: str, extra: str
) -> None:
    done = without(missing, "export", RUN, "--format", format, cwd=work)
    assert (done.returncode, done.stdout) == (2, "")
    assert missing in done.stderr
    assert f"is not installed: pip install 'qwd[{extra}]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_codes_need_no_extra(work: Path) -> None:
    everything = "onnx onnxruntime onnxscript torchao"
    done = without(everything, "export", RUN, "--format", "safetensors", cwd=work)
    assert done.returncode == 0, done.stderr
    assert last_line(done.stdout) == f"{RUN}/model-affine-tensor-w8.safetensors"


def test_help_and_errors_do_not_import_torch(work: Path) -> None:
    for args, code in ((["--help"], 0), ([RUN, "--format", "onx"], 2), ([RUN, "--scheme", "x"], 2)):
        done = without("torch numpy", "export", *args, cwd=work)
        assert done.returncode == code, done.stderr
