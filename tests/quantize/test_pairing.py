"""Which layer a BatchNorm folds into, from names and shapes, against the traced graph."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from qwd.checkpoints import read_weights
from qwd.errors import UsageError
from qwd.quantize.folding import norm_pairs
from qwd.quantize.pairing import BEFORE, Pair, pair_norms
from qwd.train import vision
from qwd.train.models import build

BUILT_IN = ("small_cnn", "resnet20", "resnet56", "mobilenet", "repvgg", "vit", "mlp")
TORCHVISION = (
    *("resnet18", "resnext50_32x4d", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"),
    *("densenet121", "inception_v3", "googlenet", "vgg11_bn", "regnet_y_400mf"),
    *("shufflenet_v2_x1_0", "squeezenet1_0", "mnasnet1_0", "convnext_tiny"),
)
MAYBE_MISSING = {"repvgg": 6}
"""where an alphabetical file leaves pairs open"""


def built(name: str) -> nn.Module:
    if name in BUILT_IN:
        return build_on_cpu(name)
    # RegNet computes its widths with tensors.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        return vision.models.get_model_builder(name)(weights=None, **options)


def build_on_cpu(name: str) -> nn.Module:
    return build(name, in_channels=3, image_size=32, num_classes=10)


def shapes(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.zeros(()).expand(t.shape) for name, t in model.state_dict().items()}


def shuffled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    names = list(state)
    random.Random(0).shuffle(names)
    return {name: state[name] for name in names}


def found(state: dict[str, Tensor], *stated: str) -> dict[str, str]:
    return {pair.norm: pair.weight for pair in pair_norms(state, stated).pairs}


@pytest.mark.parametrize("name", [*BUILT_IN, *TORCHVISION])
def test_pairs_are_those_of_the_traced_graph_whatever_the_order_of_the_file(name: str):
    model = built(name).eval()
    truth = {norm: f"{layer}.weight" for layer, norm in norm_pairs(model)}
    state = shapes(model)
    # Evaluation does not call the auxiliary heads, so the graph does not have them.
    own = {n: t for n, t in state.items() if not n.lower().startswith("aux")}
    assert found(own) == truth
    for other in (dict(sorted(own.items())), shuffled(own)):
        guessed = found(other)
        assert guessed.items() <= truth.items()
        assert len(truth) - len(guessed) <= MAYBE_MISSING.get(name, 0)


def test_a_safetensors_file_loses_the_order_and_no_pair(tmp_path: Path):
    model = build_on_cpu("resnet20").eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    state = read_weights(tmp_path / "model.safetensors")
    assert list(state) != list(model.state_dict())
    truth = {norm: f"{layer}.weight" for layer, norm in norm_pairs(model)}
    assert found(state) == truth


def state_of(**modules: tuple[int, ...] | int) -> dict[str, Tensor]:
    """Weights by shape and BatchNorms by channels, in the order of definition."""
    state: dict[str, Tensor] = {}
    for given, shape in modules.items():
        name = given.replace("__", ".")
        if isinstance(shape, int):
            parts = {p: torch.ones(shape) for p in ("weight", "bias", "running_mean")}
            parts["running_mean"] = torch.linspace(-1, 1, shape)
            parts["running_var"] = torch.ones(shape)
            state |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
        else:
            state[f"{name}.weight"] = torch.ones(shape)
    return state


def orders(state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    return [state, dict(sorted(state.items())), shuffled(state)]


def test_norms_before_their_layers_fold_into_the_layer_before():
    state = state_of(b__bn1=8, b__conv1=(16, 8, 3, 3), b__bn2=16, b__conv2=(32, 16, 3, 3), bn=32)
    for each in orders(state):
        assert found(each) == {"b.bn2": "b.conv1.weight"}


def test_norms_before_the_layers_of_their_block_are_said_to_be_those():
    state = state_of(b__bn1=8, b__conv1=(16, 8, 3, 3), b__bn2=16, b__conv2=(32, 16, 3, 3))
    for each in orders(state):
        assert pair_norms(each).unpaired == {"b.bn1": BEFORE}
    # Behind another scope's layer, and alone: a norm of which less is known.
    assert pair_norms(state_of(conv=(8, 3, 3, 3), b__bn=8)).unpaired != {"b.bn": BEFORE}


def test_a_stem_for_pictures_of_one_channel_is_not_depthwise():
    gray = state_of(conv1=(16, 1, 3, 3), bn1=16, b__conv=(8, 16, 3, 3), b__bn=8, fc=(10, 8))
    for each in orders(gray):
        assert found(each)["bn1"] == "conv1.weight"
    # With a stem for colours the norm may as well stand before a depthwise layer.
    colour = state_of(stem__conv=(16, 3, 3, 3), bn1=16, conv1=(16, 1, 3, 3), fc=(10, 16))
    assert "bn1" not in found(dict(sorted(colour.items())))


def test_what_two_readings_fit_stays_unpaired():
    square = dict.fromkeys(("conv1", "conv2"), (8, 8, 3, 3))
    state = state_of(**square, bn1=8, bn2=8)
    made = pair_norms(dict(sorted(state.items())))
    assert made.pairs == ()
    assert set(made.unpaired) == {"bn1", "bn2"}
    # With the order of definition there is one reading.
    state = state_of(conv1=(8, 8, 3, 3), bn1=8, conv2=(8, 8, 3, 3), bn2=8)
    assert found(state) == {"bn1": "conv1.weight", "bn2": "conv2.weight"}


def test_layers_of_other_blocks_are_never_paired():
    state = state_of(conv1=(64, 3, 3, 3), block__conv=(64, 64, 3, 3), bn1=64, fc=(10, 64))
    for each in orders(state):
        assert found(each) == {}


def test_sequences_pair_neighbours_alone():
    layers = {"f.0": (8, 3, 3, 3), "f.1": 8, "f.3": (8, 8, 3, 3), "f.5": 8}
    state = state_of(**{name.replace(".", "__"): shape for name, shape in layers.items()})
    for each in orders(state):
        assert found(each) == {"f.1": "f.0.weight"}


def test_a_norm_within_its_layer():
    state = state_of(conv1=(8, 3, 3, 3), conv1__norm=8, conv2=(4, 8, 3, 3), conv2__norm=4)
    for each in orders(state):
        assert found(each) == {"conv1.norm": "conv1.weight", "conv2.norm": "conv2.weight"}


def test_transposed_convolutions_fold_along_axis_1():
    layers = {"g.0": (100, 64, 4, 4), "g.1": 64, "g.3": (64, 64, 4, 4), "g.4": 64}
    state = state_of(**{name.replace(".", "__"): shape for name, shape in layers.items()})
    for each in orders(state):
        assert {(p.weight, p.axis) for p in pair_norms(each).pairs} == {
            ("g.0.weight", 1),
            ("g.3.weight", 1),
        }


def test_means_that_are_all_positive_stand_behind_a_relu():
    state = state_of(conv1=(32, 3, 3, 3), bn1=32)
    assert found(state) == {"bn1": "conv1.weight"}
    state["bn1.running_mean"] = torch.rand(32) + 0.1
    assert "ReLU" in pair_norms(state).unpaired["bn1"]
    assert found(state, "conv1=bn1") == {"bn1": "conv1.weight"}


def test_pairs_can_be_stated():
    square = {f"convs__{i}": (8, 8, 3, 3) for i in range(3)}
    state = state_of(**square, **{f"bns__{i}": 8 for i in range(3)})
    assert found(state) == {}
    made = pair_norms(state, [r"convs\.(\d)=bns.\1"])
    assert made.pairs[2] == Pair(weight="convs.2.weight", norm="bns.2", axis=0)
    assert made.unpaired == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("other=bn1", "matches no layer; there are conv1"),
        ("conv1=bn7", "no BatchNorm is called 'bn7'; there are bn1"),
        ("conv2=bn1", "conv2 of shape 9x7x3x3 does not give the 8 channels of bn1"),
        ("conv(=bn1", "no regular expression"),
        (r"conv1=bn\2", "no regular expression"),
        (r"conv\d=bn1", "conv2 of shape 9x7x3x3 does not"),
    ],
)
def test_wrong_statements_are_wrong_use(text: str, why: str):
    state = state_of(conv1=(8, 3, 3, 3), bn1=8, conv2=(9, 7, 3, 3))
    with pytest.raises(UsageError) as caught:
        pair_norms(state, [text])
    assert why in str(caught.value)
    assert str(caught.value).startswith("--fold ")


def test_a_file_of_one_norm_or_none():
    assert pair_norms({}).pairs == ()
    alone = {name.removeprefix("bn."): t for name, t in state_of(bn=4).items()}
    assert list(pair_norms(alone).unpaired) == [""]


def test_a_norm_behind_a_stem_of_several_layers():
    deep = {"conv1.0": (8, 3, 3, 3), "conv1.1": 8, "conv1.3": (16, 8, 3, 3), "bn1": 16}
    deep |= {"layer1.0.conv1": (4, 16, 3, 3), "layer1.0.bn1": 4}
    state = state_of(**{name.replace(".", "__"): shape for name, shape in deep.items()})
    for each in orders(state):
        assert found(each)["bn1"] == "conv1.3.weight"
        assert not pair_norms(each).unpaired
    # The norm may as well stand before the sequence, or belong to what follows an inner norm.
    square = {"conv1.0": (8, 8, 3, 3), "conv1.2": (8, 8, 3, 3), "bn1": 8}
    ended = {"conv1.0": (8, 3, 3, 3), "conv1.1": 8, "bn1": 8}
    for modules in (square, ended):
        state = state_of(**{name.replace(".", "__"): shape for name, shape in modules.items()})
        assert "bn1" not in found(dict(sorted(state.items())))


def test_norms_before_layers_of_two_groups_are_no_norms_behind_them():
    widths = {"norm1": 64, "conv1": (64, 64, 1, 1), "norm2": 64, "norm3": 64}
    widths |= {"conv2": (64, 32, 3, 3), "conv3": (64, 64, 1, 1)}
    state = state_of(**{f"b__{name}": shape for name, shape in widths.items()})
    assert found(dict(sorted(state.items()))) == {}
    state = state_of(**{f"b__{name}": shape for name, shape in {**widths, "norm1": 32}.items()})
    state["b.conv1.weight"] = torch.ones(64, 32, 1, 1)
    assert found(dict(sorted(state.items()))) == {
        "b.norm2": "b.conv1.weight",
        "b.norm3": "b.conv2.weight",
    }
