"""Real images, torchvision's and a user's own networks, through the installed command."""

from pathlib import Path

import pytest
import torch

from qwd.report.load import load_report
from tests.commands import last_line, qwd

OPTIONS = ("--epochs", 1, "--batch-size", 40, "--lr", 0.02, "--threads", 1)

USER = """
import torch
import torchvision
from torch import nn
from torch.utils.data import TensorDataset


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 4
    images = torch.randn(200, 3, 12, 12, generator=generator) + labels[:, None, None, None]
    return TensorDataset(images[:160], labels[:160]), TensorDataset(images[160:], labels[160:])
"""


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        ("resnet20", 20),
        ("torchvision:resnet18", 21),
        pytest.param("torchvision:mobilenet_v2", 53, marks=pytest.mark.long),
    ],
)
def test_training_and_report_on_real_images(
    cifar: Path, tmp_path: Path, model: str, layers: int
) -> None:
    data = f"imagefolder:{cifar}"
    done = qwd("train", "--wd", "1e-4", "--data", data, "--model", model, *OPTIONS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "normalisation: mean" in done.stderr
    folder = last_line(done.stdout)
    schemes = ("--scheme", "affine-tensor", "--scheme", "ao-static")
    done = qwd("quantize-report", folder, *schemes, "--calibration-n", 32, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (report,) = load_report(tmp_path / folder).models
    assert report.data is not None
    assert report.data.n == 160
    static = report.schemes["ao-static"]
    assert (static.quantized_ops, static.left_float) == (layers, ())
    assert sum(t.folded is not None for t in report.tensors) == layers - 1
    assert "Warning" not in done.stderr


def test_a_users_own_model_and_data(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(USER)
    args = ("--model", "mine:Net", "--data", "mine:data")
    done = qwd("train", "--wd", "1e-4", *args, *OPTIONS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = qwd("quantize-report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (report,) = load_report(tmp_path / "runs" / "mine-Net-mine-data-wd1e-4-s0").models
    assert report.data is not None
    assert report.data.n == 40
    assert report.float_accuracy is not None


def test_a_checkpoint_trained_elsewhere(cifar: Path, tmp_path: Path) -> None:
    """The published form: DataParallel names in a state dict beside the training's state."""
    from qwd.train.models import build

    torch.manual_seed(0)
    state = build("resnet20", in_channels=3, image_size=32, num_classes=10).state_dict()
    published = {"state_dict": {f"module.{n}": t for n, t in state.items()}, "best_prec1": 91.7}
    torch.save(published, tmp_path / "resnet20.th", _use_new_zipfile_serialization=False)
    normalisation = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    args = ("--model", "resnet20", "--data", f"imagefolder:{cifar}", *normalisation)
    done = qwd("quantize-report", "resnet20.th", *args, "--json", "r.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (report,) = load_report(tmp_path / "r.json").models
    conv = next(t for t in report.tensors if t.name == "layer1.0.conv1.weight")
    assert conv.figures.a == state["layer1.0.conv1.weight"].min().item()
    assert conv.folded is not None
    alone = qwd("quantize-report", "resnet20.th", "--json", "-", cwd=tmp_path)
    assert alone.returncode == 0
    assert "layer1.0.conv1.weight" in alone.stdout
