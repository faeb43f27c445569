"""Kernels that lose sums: which layers, which engine computes in their place, what is said."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from qwd.quantize import ao, ao_engines
from qwd.quantize.backend import quantize
from qwd.quantize.saturation import saturating_layers
from qwd.quantize.schemes import AO_STATIC
from qwd.quantize.torch_ao import ENGINES, running_on
from tests.quantize.deployed import batches, deployed

BUILT = [e for e in ENGINES if e in torch.backends.quantized.supported_engines]


def extreme(groups: int) -> nn.Conv2d:
    """The largest weights and, with images of ones, the largest activations."""
    layer = nn.Conv2d(32, 32, 3, padding=1, groups=groups)
    nn.init.constant_(layer.weight, 1.0)
    with torch.no_grad():
        layer.weight[:, :, 0, 0] = -1.0  # so that the range is symmetric
    return layer


@pytest.mark.parametrize("engine", BUILT)
@pytest.mark.parametrize("groups", [1, 32])
def test_what_is_named_is_what_an_extreme_layer_shows(engine: str, groups: int) -> None:
    """The probe against a real quantized network of such a layer, on this machine."""
    layer = extreme(groups)
    images = torch.ones(2, 32, 8, 8)
    observer, qscheme = ao.WEIGHT_QSCHEMES["symmetric", "tensor"]
    config = ao.torch_ao.QConfig(
        activation=ao.MinMaxObserver.with_args(dtype=torch.quint8, eps=ao.NO_FLOOR),
        weight=observer.with_args(dtype=torch.qint8, qscheme=qscheme, eps=ao.NO_FLOOR),
    )
    with running_on(engine):
        mapping = ao.torch_ao.QConfigMapping().set_global(config)
        network = nn.Sequential(layer).eval()
        prepared: Any = ao.torch_ao.prepare_fx(network, mapping, (images,))
        expected = prepared(images)
        found = ao.torch_ao.convert_fx(prepared)(images)
        lossy = saturating_layers(nn.Sequential(layer), affine=False, per_channel=False)
    wrong = bool((found - expected).abs().max() > 0.05 * expected.abs().max())
    assert bool(lossy) == wrong


def test_layers_of_every_kind_are_tried() -> None:
    network = nn.Sequential(
        nn.Conv1d(4, 4, 3),
        nn.Conv2d(8, 8, 3, groups=8, stride=2),
        nn.Conv3d(4, 4, 2),
        nn.Linear(9, 3),
    )
    with running_on(BUILT[0]):
        names = saturating_layers(network, affine=True, per_channel=True)
    assert set(names) <= {"0", "1", "2", "3"}


def lossy_on(*engines: str) -> Any:
    def stub(network: nn.Module, *, affine: bool, per_channel: bool) -> list[str]:
        lossy = torch.backends.quantized.engine in engines
        return ["conv1", "conv2", "conv3", "linear"] if lossy else []

    return stub


@pytest.mark.skipif(len(BUILT) < 4, reason="needs all four engines")
def test_another_engine_computes_where_the_first_one_saturates(monkeypatch) -> None:
    monkeypatch.setattr(ao_engines, "saturating_layers", lossy_on("x86", "fbgemm"))
    found = quantize(deployed("small_cnn"), AO_STATIC, batches()).description
    assert (found.engine, found.activation_bits) == ("qnnpack", 8)
    assert found.warnings == (
        "ao-static: 8-bit activations saturate in x86's kernels for conv1, conv2, conv3 and 1 "
        "more, so qnnpack computed",
    )


def test_activations_are_cut_to_7_bits_where_all_engines_saturate(monkeypatch) -> None:
    monkeypatch.setattr(ao_engines, "saturating_layers", lossy_on(*BUILT))
    found = quantize(deployed("small_cnn"), AO_STATIC, batches()).description
    assert found.activation_bits == 7
    assert found.engine == BUILT[0]
    assert "so activations were cut to 7 bits" in found.warnings[0]
    asked = quantize(deployed("small_cnn"), replace(AO_STATIC, engine="fbgemm"), batches())
    assert (asked.description.engine, asked.description.activation_bits) == ("fbgemm", 7)
