"""Backends behind an extra: a line with the install command without it, not a word with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import QWD, last_line, qwd

WITHOUT = """
import sys
sys.modules[{package!r}] = None
from qwd.errors import UsageError
from qwd.registry import BACKENDS
for name in BACKENDS.names():
    try:
        BACKENDS.get(name)()
    except UsageError as error:
        print(name, error.exit_code, error)
"""

QUANTIZE = """
import logging, sys
import torch
from torch import nn
from qwd.quantize.backend import NotQuantizableError, quantize
from qwd.quantize.schemes import parse_scheme

class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x

network = nn.Sequential(
    nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10)
).eval()
images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
outputs = []
for _ in range(2):
    made = quantize(network, parse_scheme({scheme!r}), [images, images])
    outputs += [made(images), made(images)]
try:
    quantize(Branching(), parse_scheme({scheme!r}), [images])
except NotQuantizableError:
    pass
assert all(torch.equal(outputs[0], each) for each in outputs), "not the same twice"
assert logging.getLogger().handlers == [], "a handler was installed"
"""

SCHEMES = ("onnx-static", "pt2e-default", "symmetric-channel-w8-a8@pt2e:inductor")


def python(script: str, *options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", script],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("package", "extra"),
    [("onnx", "onnx"), ("onnxruntime", "onnx"), ("onnxscript", "onnx"), ("torchao", "pt2e")],
)
def test_a_missing_package_is_named_with_the_install_command(package, extra, tmp_path) -> None:
    run = python(WITHOUT.format(package=package), cwd=tmp_path)
    assert run.stderr == ""
    (line,) = run.stdout.splitlines()  # the other backends are there
    assert line.startswith(f"{extra} 2 {package}")
    assert line.endswith(f" is not installed: pip install 'qwd[{extra}]'")


def test_a_torchao_of_another_torch_is_named_with_the_upgrade(tmp_path) -> None:
    package = tmp_path / "torchao"
    package.mkdir()
    (package / "__init__.py").write_text("import torch; torch.no_such_part")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + WITHOUT.format(package="none")
    run = python(script, cwd=tmp_path)
    assert run.stderr == ""
    (line,) = run.stdout.splitlines()
    assert line.startswith("pt2e 2 torchao ")
    assert line.endswith(": pip install --upgrade 'qwd[pt2e]'")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A network trained on the digits for one epoch."""
    folder = tmp_path_factory.mktemp("run")
    trained = qwd("train", "--epochs", 1, "--threads", 1, "--out", "net", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    return folder / last_line(trained.stdout)


@pytest.mark.parametrize(
    ("package", "scheme", "extra"),
    [("onnxruntime", "onnx-static", "onnx"), ("torchao", "pt2e-default", "pt2e")],
)
def test_the_command_says_so_in_one_line(package, scheme, extra, run_folder, tmp_path) -> None:
    script = f"import runpy, sys; sys.modules[{package!r}] = None; sys.argv = sys.argv[1:]; "
    script += "runpy.run_path(sys.argv[0], run_name='__main__')"
    arguments = [str(QWD), "quantize-report", str(run_folder), "--scheme", scheme]
    run = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert last_line(run.stderr).endswith(
        f"{package} is not installed: pip install 'qwd[{extra}]'"
    ), run.stderr
    assert run.stdout == ""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_libraries_say_nothing_and_give_the_same_twice(scheme: str, tmp_path) -> None:
    run = python(QUANTIZE.format(scheme=scheme), "-W", "always", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
    assert run.stderr == ""
    assert list(tmp_path.iterdir()) == []  # no files left either
