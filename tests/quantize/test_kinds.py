"""What tensors are, by name and shape, against what their classes say."""

import pytest
import torch
from torch import nn

from qwd.quantize.kinds import model_kinds, output_axes, state_kinds
from qwd.quantize.pairing import find_norms, pair_norms
from qwd.train import vision
from qwd.train.models import build

NETWORKS = ["resnet18", "mobilenet_v2", "densenet121", "resnext50_32x4d"]


@pytest.mark.parametrize("name", [*NETWORKS, "squeezenet1_1"])
def test_names_and_shapes_say_what_classes_say(name: str):
    with torch.device("meta"):
        model = vision.models.get_model_builder(name)(weights=None)
    state = {n: torch.zeros(()).expand(t.shape) for n, t in model.state_dict().items()}
    for order in (state, dict(sorted(state.items()))):
        assert state_kinds(order, find_norms(order)) == model_kinds(model)


def test_built_in_models_of_pictures_with_one_channel():
    model = build("resnet20", in_channels=1, image_size=8, num_classes=10)
    state = model.state_dict()
    assert state_kinds(state, find_norms(state)) == model_kinds(model)
    assert state_kinds(state, find_norms(state))["conv1.weight"] == "convolution"


def test_one_depthwise_layer_behind_a_stem_for_colours():
    shapes = {"a.weight": (8, 3, 3, 3), "b.weight": (8, 1, 3, 3), "c.weight": (16, 8, 1, 1)}
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    assert state_kinds(state, ())["b.weight"] == "depthwise"
    del state["a.weight"]
    assert state_kinds(state, ())["b.weight"] == "convolution"


@pytest.mark.parametrize("name", ["b{}.conv{}.conv", "b{}.f.{}.0"])
def test_groups_of_a_convolution_in_a_module_of_its_own(name: str):
    shapes = {1: (48, 32, 1, 1), 2: (48, 8, 3, 3), 3: (32, 48, 1, 1)}
    state = {
        f"{name.format(block, n)}.weight": torch.zeros(shape)
        for block in range(2)
        for n, shape in shapes.items()
    }
    kinds = state_kinds(state, ())
    grouped = [f"{name.format(block, 2)}.weight" for block in range(2)]
    assert [n for n in state if kinds[n] == "grouped"] == grouped


def test_a_convolution_without_inputs():
    state = {"a.conv1.weight": torch.zeros(8, 3, 3, 3), "a.conv2.weight": torch.zeros(8, 0, 3, 3)}
    assert state_kinds(state, ())["a.conv2.weight"] == "convolution"


LAYERS = {"attn": (8, 24), "proj": (8, 8), "up": (8, 32), "down": (32, 8)}


@pytest.mark.parametrize("last", [True, False])
def test_linear_layers_that_are_stored_the_other_way_round(last: bool):
    state = {"head.weight": torch.zeros(100, 8)}
    for name, (inputs, outputs) in LAYERS.items():
        shape = (inputs, outputs) if last else (outputs, inputs)
        state |= {f"{name}.weight": torch.zeros(shape), f"{name}.bias": torch.zeros(outputs)}
    axes = output_axes(state, state_kinds(state, ()))
    assert axes == ({f"{name}.weight": 1 for name in LAYERS} if last else {})
    # With a layer of the usual sort the square one may be either.
    state |= {"score.weight": torch.zeros(5, 8), "score.bias": torch.zeros(5)}
    axes.pop("proj.weight", None)
    assert output_axes(state, state_kinds(state, ())) == axes


SHAPES = {
    "wte.weight": ((100, 8), "embedding"),
    "wpe.weight": ((32, 8), "position"),
    "h.0.ln_1.weight": ((8,), "norm"),
    "h.0.ln_1.bias": ((8,), "norm"),
    "h.0.attn.c_attn.weight": ((8, 24), "linear"),
    "h.0.attn.c_attn.bias": ((24,), "bias"),
    "bert.embeddings.word_embeddings.weight": ((100, 8), "embedding"),
    "bert.embeddings.position_embeddings.weight": ((32, 8), "position"),
    "decoder.embed_positions.weight": ((32, 8), "position"),
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": ((32, 4), "position"),
    "bert.embeddings.position_ids": ((32,), "statistics"),
    "vit.pos_embed": ((1, 17, 8), "position"),
    "vit.cls_token": ((1, 1, 8), "other"),
    "vit.patch_embed.proj.weight": ((8, 3, 4, 4), "convolution"),
    "model.layers.0.input_layernorm.weight": ((8,), "norm"),
    "model.embed_tokens.weight": ((100, 8), "embedding"),
    "lm_head.weight": ((100, 8), "linear"),
    "decoder.deconv1.weight": ((8, 4, 2, 2), "transposed"),
    "block.conv_dw.weight": ((8, 1, 3, 3), "depthwise"),
    "block2.conv1.weight": ((16, 16, 1, 1), "convolution"),
    "block2.conv2.weight": ((16, 4, 3, 3), "grouped"),
    "temperature": ((), "other"),
}


def test_names_of_language_models_and_transformers():
    state = {name: torch.zeros(shape) for name, (shape, _) in SHAPES.items()}
    found = state_kinds(state, find_norms(state))
    assert found == {name: kind for name, (_, kind) in SHAPES.items()}


def test_a_pair_along_axis_1_is_transposed():
    state = nn.Sequential(nn.ConvTranspose2d(9, 4, 4), nn.BatchNorm2d(4)).state_dict()
    pairs = pair_norms(state).pairs
    kinds = state_kinds(state, find_norms(state), [p.weight for p in pairs if p.axis == 1])
    assert kinds["0.weight"] == "transposed"
    assert kinds["1.weight"] == "norm"
