"""torchvision's models and the user's own: what they are given, and how mistakes are explained."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from qwd.errors import UsageError
from qwd.train import models
from qwd.train.user_code import imported


def built(name: str, channels: int = 3, size: int = 32, classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return models.build(name, in_channels=channels, image_size=size, num_classes=classes)


def images(size: int) -> Tensor:
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))


# ---- torchvision


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 32), ("mobilenet_v2", 32), ("squeezenet1_1", 32), ("googlenet", 32)],
)
def test_torchvision_classifiers(name: str, size: int):
    model = built(f"torchvision:{name}", size=size, classes=5)
    with torch.no_grad():
        assert model.train()(images(size)).shape == (4, 5)


def test_image_size_reaches_families_that_fix_it(monkeypatch: pytest.MonkeyPatch):
    from qwd.train.models import external
    from qwd.train.vision import models as zoo

    given = {}
    monkeypatch.setattr(zoo, "get_model_builder", lambda name: lambda **options: given | options)
    sizes = {"image_size": 64, "num_classes": 5}
    basic = {"weights": None, "num_classes": 5}
    assert external.from_torchvision("vit_b_16")(**sizes) == basic | {"image_size": 64}
    assert external.from_torchvision("maxvit_t")(**sizes) == basic | {"input_size": (64, 64)}
    assert external.from_torchvision("resnet18")(**sizes) == basic


@pytest.mark.parametrize(
    ("name", "channels", "size", "message"),
    [
        ("resnet81", 3, 32, "no such classifier; it has resnet18"),
        ("zzz", 3, 32, "no such classifier; it has resnet18"),
        ("fasterrcnn_resnet50_fpn", 3, 32, "no such classifier"),
        ("", 3, 32, "no such classifier"),
        ("resnet18", 1, 32, "takes 3 channels, the data has 1"),
        ("squeezenet1_1", 3, 8, r"fails on 2 images of \[3, 8, 8\]: .* too small"),
        ("vit_b_16", 3, 24, "cannot be built for .*image_size=24.*patch size"),
    ],
)
def test_torchvision_mistakes_are_explained(name: str, channels: int, size: int, message: str):
    with pytest.raises(UsageError, match=message) as caught:
        built(f"torchvision:{name}", channels, size)
    assert "\n" not in str(caught.value)


# ---- the user's own

USER_MODULE = """
import torch
from torch import nn

def flat(*, in_channels, image_size, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))

def any_size(num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(num_classes))

def everything(**sizes):
    assert sorted(sizes) == ["image_size", "in_channels", "num_classes"]
    return flat(**sizes)

class Net(nn.Module):
    def __init__(self, in_channels, num_classes, width=4):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3)
        self.frozen = nn.BatchNorm2d(width).eval()
        self.head = nn.Linear(width, num_classes)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.calls = self.calls + torch.rand(())
        return self.head(self.frozen(self.conv(x)).mean((2, 3)))

class Outer:
    net = Net

def raises(num_classes):
    raise ValueError("needs a\\nlicence")

def wrong_shape():
    return nn.Flatten()

def wrong_type(in_channels, image_size):
    return "a network"

def needs_more(num_classes, depth):
    return nn.Flatten()

class Pair(nn.Module):
    def forward(self, x):
        return x, x

class Votes(nn.Module):
    def forward(self, x):
        return torch.zeros(len(x), 10, dtype=torch.long)

class Fails(nn.Module):
    def forward(self, x):
        raise KeyError("x")

instance = nn.Flatten()
number = 3
"""


@pytest.fixture
def user_module(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """A module in the current directory, imported and forgotten with the test."""
    (tmp_path / "qwd_user_nets.py").write_text(USER_MODULE)
    (tmp_path / "qwd_user_broken.py").write_text("import qwd_no_such_package")
    (tmp_path / "qwd_user_syntax.py").write_text("def (")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield "qwd_user_nets"
    for name in ("qwd_user_nets", "qwd_user_broken", "qwd_user_syntax"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["flat", "everything", "any_size", "Net", "Outer.net"])
def test_a_callable_gets_the_sizes_it_accepts(user_module: str, name: str):
    model = built(f"{user_module}:{name}", size=8)
    assert model(images(8)).shape == (4, 10)


def test_the_trial_leaves_no_trace(user_module: str):
    torch.manual_seed(0)
    model = built(f"{user_module}:Net", size=8)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    built_alone = sys.modules[user_module].Net(in_channels=3, num_classes=10)
    assert torch.equal(torch.get_rng_state(), after)
    assert model.calls == 0
    assert [m.training for m in model.modules()] == [m.training for m in built_alone.modules()]
    assert all(p.grad is None for p in model.parameters())
    expected = built_alone.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("qwd_user_nets:raises", "cannot be built for .*: ValueError: needs a licence"),
        ("qwd_user_nets:needs_more", "cannot be built for .*: TypeError: .*'depth'"),
        ("qwd_user_nets:wrong_type", r"returned str; expected a torch\.nn\.Module"),
        ("qwd_user_nets:wrong_shape", r"shape \[2, 192\] for .*; expected .* \[2, 10\]"),
        ("qwd_user_nets:Pair", r"returns tuple for .*; expected .* \[2, 10\]"),
        ("qwd_user_nets:Votes", r"a tensor of torch\.int64 .*; expected a float tensor"),
        ("qwd_user_nets:Fails", r"fails on 2 images of \[3, 8, 8\]: 'x'"),
        ("qwd_user_nets:instance", "a model already built; expected a class or function"),
        ("qwd_user_nets:number", "is int; expected a class or function"),
        ("qwd_user_nets:absent", "AttributeError: .*absent"),
        ("qwd_user_missing:net", "cannot be imported .*No module named 'qwd_user_missing'"),
        ("qwd_user_broken:net", "cannot be imported .*No module named 'qwd_no_such_package'"),
        ("qwd_user_syntax:net", "cannot be imported .*SyntaxError"),
    ],
)
def test_mistakes_of_the_user_are_one_line(user_module: str, path: str, message: str):
    with pytest.raises(UsageError, match=f"^--model {path}: .*{message}") as caught:
        built(path, size=8)
    assert "\n" not in str(caught.value)


def test_a_strangers_run_names_no_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "theirs"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("model: runs.theirs.evil:net\n")
    (folder / "evil.py").write_text("open('canary', 'w')\n")
    with pytest.raises(UsageError, match=r"the module lies in the run folder .*theirs"):
        imported("--model", "runs.theirs.evil:net")
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match="the module lies in the run folder"):
        imported("--data", "evil:data")
    for name in ("os:abort", "builtins:input", "os.path:join", "antigravity:x"):
        with pytest.raises(UsageError, match="is Python's own"):
            imported("--data", name)
    assert not list(tmp_path.rglob("canary"))
