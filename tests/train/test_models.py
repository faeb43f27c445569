"""One contract for every registered model, and what is special about some of them."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, fx, nn

from qwd.errors import UsageError
from qwd.registry import MODELS
from qwd.train import models
from qwd.train.models.repvgg import RepBranches
from qwd.train.models.resnet import Subsample
from qwd.train.models.vit import patch_size

NAMES = MODELS.names()
SIZES = [(1, 8), (3, 32), (3, 36)]


def built(name: str, channels: int = 3, size: int = 32, classes: int = 10, seed: int = 0):
    torch.manual_seed(seed)
    return models.build(name, in_channels=channels, image_size=size, num_classes=classes)


def images(channels: int = 3, size: int = 32, n: int = 4) -> Tensor:
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "size"), SIZES)
def test_maps_images_to_logits_and_traces(name: str, channels: int, size: int):
    model = built(name, channels, size, classes=7).eval()
    x = images(channels, size)
    with torch.no_grad():
        logits = model(x)
        traced = fx.symbolic_trace(model)(x)
    assert logits.shape == (4, 7)
    assert logits.isfinite().all()
    assert torch.equal(traced, logits)


@pytest.mark.parametrize("name", NAMES)
def test_states_its_size_and_source(name: str):
    info = models.info(name)
    assert info is not None
    model = built(name, info.in_channels, info.image_size, info.num_classes)
    assert sum(p.numel() for p in model.parameters()) == info.parameters
    assert info.source
    assert f"{info.parameters:,}" in MODELS.get(name).summary


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_parameter(name: str):
    model = built(name, size=16).train()
    labels = torch.tensor([0, 1, 2, 3])
    nn.functional.cross_entropy(model(images(size=16)), labels).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


@pytest.mark.parametrize("name", NAMES)
def test_weights_follow_from_the_seed_and_survive_a_round_trip(name: str):
    first, same, other = built(name), built(name), built(name, seed=1)
    weights = first.state_dict()
    assert all(torch.equal(v, same.state_dict()[k]) for k, v in weights.items())
    assert not all(torch.equal(v, other.state_dict()[k]) for k, v in weights.items())
    other.load_state_dict(weights)
    with torch.no_grad():
        assert torch.equal(first.eval()(images()), other.eval()(images()))


def test_the_package_does_not_import_torch():
    code = "import sys, qwd.train.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---- RepVGG


def randomize_batch_norm(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 3.0)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)


@pytest.mark.parametrize(("channels", "wider", "stride"), [(8, 8, 1), (8, 8, 2), (5, 8, 1)])
def test_deploy_form_equals_the_branches(channels: int, wider: int, stride: int):
    torch.manual_seed(0)
    branches = RepBranches(channels, wider, stride=stride).double().eval()
    randomize_batch_norm(branches)
    before = torch.get_rng_state()
    conv = branches.deploy_form()
    assert torch.equal(torch.get_rng_state(), before)
    assert (branches.bn0 is not None) == (channels == wider and stride == 1)
    assert (type(conv), conv.kernel_size, conv.stride) == (nn.Conv2d, (3, 3), (stride, stride))
    assert conv.bias is not None
    assert conv.weight.requires_grad
    assert branches.conv3.bias is None
    x = images(channels, 9).double()
    with torch.no_grad():
        torch.testing.assert_close(conv(x), branches(x), rtol=1e-12, atol=1e-12)


def test_repvgg_deploys_as_seven_convolutions():
    model = built("repvgg").double().eval()
    randomize_batch_norm(model)
    x = images().double()
    with torch.no_grad():
        logits = model(x)
        for name, module in list(model.named_children()):
            if isinstance(module, RepBranches):
                setattr(model, name, module.deploy_form())
        torch.testing.assert_close(model(x), logits, rtol=1e-10, atol=1e-10)
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 7
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


# ---- ResNet


def test_resnet20_has_the_names_of_published_checkpoints():
    names = [name for name, _ in built("resnet20").named_parameters()]
    expected = ["conv1.weight", "bn1.weight", "bn1.bias"]
    for stage in (1, 2, 3):
        for block in range(3):
            prefix = f"layer{stage}.{block}."
            for i in (1, 2):
                expected += [prefix + f"conv{i}.weight", prefix + f"bn{i}.weight"]
                expected += [prefix + f"bn{i}.bias"]
    assert names == [*expected, "linear.weight", "linear.bias"]


def test_option_a_subsamples_and_pads_on_both_sides():
    x = images(4, 5)
    out = Subsample(4, 8)(x)
    assert out.shape == (4, 8, 3, 3)
    assert torch.equal(out[:, 2:6], x[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 6:].any()


# ---- ViT


@pytest.mark.parametrize(
    ("size", "patch"),
    [(4, 2), (8, 2), (9, 3), (16, 2), (28, 4), (32, 4), (36, 4), (64, 8), (224, 16)],
)
def test_patches_divide_the_image(size: int, patch: int):
    assert patch_size(size) == patch


@pytest.mark.parametrize("size", [13, 31, 121])
def test_an_image_without_patches_is_refused(size: int):
    with pytest.raises(UsageError, match=rf"--image-size {size}: .* for example {size + 1}"):
        built("vit", size=size)
    assert patch_size(size + 1)


# ---- names


def test_channels_needed():
    assert models.channels_needed("torchvision:resnet18") == 3
    assert models.channels_needed("small_cnn") is None
    assert models.channels_needed("package.module:net") is None


def test_unknown_name():
    with pytest.raises(UsageError, match="unknown model 'resnet21': did you mean 'resnet"):
        built("resnet21")
