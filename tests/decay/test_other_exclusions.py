"""Who is decayed, against timm, on timm's and torchvision's models."""

from typing import Any

import pytest
import torch
from torch import nn

import qwd.train.vision
from qwd import decay
from tests.decay.classifier import WD

TIMM_MODELS: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "mobilenetv3_small_100": {},
    "efficientnet_b0": {},
    # What the models list in `no_weight_decay` is tokens and positions.
    "vit_tiny_patch16_224": {"decay_embedding": False},
    "swin_tiny_patch4_window7_224": {},
    # timm leaves out every vector, the factors of layers (layer scale) among them.
    "convnext_atto": {"no_decay": [r"\.gamma$"]},
    "cait_xxs24_224": {"decay_embedding": False, "no_decay": [r"\.gamma_\d$"]},
}


TORCHVISION_MODELS: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "mobilenet_v2": {},
    "shufflenet_v2_x0_5": {},
    "convnext_tiny": {},
    # By its name a bias; timm goes by the number of axes, and torchvision's Swin lists nothing.
    "swin_t": {"factors": {"relative_position_bias_table": 1.0}},
}


def decayed_by_timm(timm, model: nn.Module) -> set[str]:
    names = {id(p): n for n, p in model.named_parameters()}
    listed = getattr(model, "no_weight_decay", lambda: set())()
    groups = timm.optim.param_groups_weight_decay(model, WD, no_weight_decay_list=listed)
    return {names[id(p)] for g in groups if g["weight_decay"] for p in g["params"]}


def decayed_by_qwd(model: nn.Module, **options: Any) -> set[str]:
    groups = decay.param_groups(model, WD, **options)
    return {name for g in groups if g["decay"] for name, _ in g["params"]}


@pytest.mark.parametrize("name", TIMM_MODELS)
def test_exclusions_are_those_of_timm(timm, name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert decayed_by_qwd(model, **TIMM_MODELS[name]) == decayed_by_timm(timm, model)


@pytest.mark.parametrize("name", TORCHVISION_MODELS)
def test_exclusions_on_torchvision_models_are_those_of_timm(timm, name: str) -> None:
    with torch.device("meta"):
        model = getattr(qwd.train.vision.models, name)()
    options = TORCHVISION_MODELS[name]
    assert decayed_by_qwd(model, **options) == decayed_by_timm(timm, model)
