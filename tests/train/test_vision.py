"""torchvision comes up beside any build of torch, silently, or says what to install."""

import os
import subprocess
import sys
from pathlib import Path

# A stand-in for torchvision: `first` runs on every import of it.
PARTS = ("datasets", "models", "transforms", "transforms/v2", "transforms/v2/functional")
MATCHING = """
import torch
library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
WITHOUT_OPERATORS = """
import warnings, torch, torchvision.datasets
warnings.warn("the image extension does not load")
for name in ("nms", "qnms"):
    torch.library.register_fake("torchvision::" + name, lambda *boxes: boxes[0])
"""


def imported(code: str, stand_in: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter where every warning is an error."""
    environment = os.environ | {"TORCHVISION_WARN_WHEN_EXTENSION_LOADING_FAILS": "1"}
    if stand_in is not None:
        environment["PYTHONPATH"] = str(stand_in)
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def torchvision_that(first: str, folder: Path) -> Path:
    for part in ("", *PARTS):
        package = folder / "torchvision" / part
        package.mkdir()
        (package / "__init__.py").write_text("" if part else first)
    return folder


def test_real_torchvision_imports_silently():
    done = imported(
        "from qwd.train import vision\n"
        "import torchvision\n"
        "print(vision.models is torchvision.models, vision.datasets.FakeData.__name__)\n"
        "print(vision.transforms.v2.functional is vision.functional)"
    )
    assert (done.stderr, done.stdout.split()) == ("", ["True", "FakeData", "True"])


def test_operators_are_declared_only_where_absent(tmp_path: Path):
    code = "from qwd.train import vision; print(len(vision._declared))"
    for name, first, declared in (("a", MATCHING, "0"), ("b", WITHOUT_OPERATORS, "1")):
        (tmp_path / name).mkdir()
        done = imported(code, torchvision_that(first, tmp_path / name))
        assert (done.stderr, done.stdout.strip()) == ("", declared)


def test_absent_or_foreign_torchvision_is_explained(tmp_path: Path):
    # Both in one interpreter: a failed import leaves nothing behind.
    foreign = torchvision_that("raise RuntimeError('made for\\nanother CUDA')", tmp_path)
    done = imported(
        "import sys\n"
        "from qwd.errors import UsageError\n"
        "def attempt():\n"
        "    try: from qwd.train import vision\n"
        "    except UsageError as error: print(error)\n"
        "attempt()\n"
        "assert 'torchvision' not in sys.modules\n"
        "sys.modules['torchvision'] = None\n"
        "attempt()",
        foreign,
    )
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first.startswith("torchvision cannot be imported beside torch")
    assert first.endswith("pip install torchvision (made for another CUDA)")
    assert second == "torchvision is not installed: pip install torchvision"
