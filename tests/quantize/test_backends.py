"""The backends: what they quantize, with which codes, and what they refuse."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from qwd.errors import VerificationError
from qwd.quantize import ao
from qwd.quantize.arithmetic import quantize
from qwd.quantize.backend import LAYERS, NotQuantizableError
from qwd.quantize.folding import deploy
from qwd.quantize.schemes import AO_DEFAULT, AO_STATIC, parse_scheme
from qwd.registry import BACKENDS, MODELS
from qwd.train.models import build


def deployed(name: str, image_size: int = 16) -> nn.Module:
    """A built-in model in deployed form, with BatchNorm statistics unlike the initial ones."""
    torch.manual_seed(0)
    model = build(name, in_channels=3, image_size=image_size, num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.3, 3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return deploy(model.eval()).module


def batches(image_size: int = 16, n: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 3, image_size, image_size, generator=generator) for _ in range(n)]


@pytest.mark.parametrize("name", MODELS.names())
def test_ao_static_runs_every_layer_on_the_codes_of_affine_tensor(name: str) -> None:
    network = deployed(name)
    made = BACKENDS.get("ao")().quantize(network, AO_STATIC, batches())
    layers = {n: m for n, m in network.named_modules() if isinstance(m, LAYERS)}
    assert made.left_float == ()
    assert made.quantized_ops == len(layers)
    for path, module in made.network.named_modules():
        if isinstance(module, ao.WeightedQuantizedModule):
            own = layers[path.removeprefix("converted.")].weight
            stored = module.weight()  # type: ignore[operator]
            expected = quantize(own, kind="affine")
            assert torch.equal(stored.int_repr().int(), expected.codes)
            assert stored.q_scale() == expected.scale.item()
            assert stored.q_zero_point() == expected.zero_point.item()
    outputs = made.network(batches()[0])
    assert outputs.shape == (8, 10)
    assert torch.isfinite(outputs).all()


@pytest.mark.parametrize("backend", BACKENDS.names())
def test_contract_the_network_given_is_left_alone_and_the_result_is_close(backend: str) -> None:
    network = deployed("small_cnn")
    before = {n: t.clone() for n, t in network.state_dict().items()}
    scheme = AO_STATIC if backend == "ao" else parse_scheme("affine-tensor")
    made = BACKENDS.get(backend)().quantize(network, scheme, batches())
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    images = batches()[0]
    with torch.no_grad():
        reference, outputs = network(images), made.network(images)
    error = (reference - outputs).square().mean() / reference.square().mean()
    assert 0 < error < 0.01
    assert made.quantized_ops == 4


@pytest.mark.parametrize("name", ["minmax-tensor", "affine-channel", "symmetric-tensor-w4"])
def test_weights_alone_are_replaced_by_the_arithmetic(name: str) -> None:
    scheme = parse_scheme(name)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 6, 2), nn.BatchNorm2d(6))
    made = BACKENDS.get("weights")().quantize(network, scheme, [])
    for index in (0, 1):
        layer: Any = network[index]
        copied: Any = made.network.get_submodule(str(index))
        axis = index if scheme.granularity == "channel" else None
        expected = quantize(layer.weight, kind=scheme.kind, bits=scheme.weight_bits, axis=axis)  # type: ignore[arg-type]
        assert torch.equal(copied.weight, expected.values.float())
        assert torch.equal(copied.bias, layer.bias)
    assert made.quantized_ops == 2


def test_attention_and_embeddings_are_weights_and_positions_are_not() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(9, 4)
            self.attention = nn.MultiheadAttention(4, 2)
            self.positions = nn.Parameter(torch.randn(5, 4))

    network = Net()
    made = BACKENDS.get("weights")().quantize(network, parse_scheme("minmax-tensor-w4"), [])
    changed = {
        n
        for n, p in made.network.named_parameters()
        if not torch.equal(p, network.get_parameter(n))
    }
    assert changed == {"embedding.weight", "attention.in_proj_weight", "attention.out_proj.weight"}


def test_a_layer_of_tiny_weights_keeps_its_true_scale_under_ao() -> None:
    """torch's observer would floor the scale at 1.19e-7 and leave three codes of this layer."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 10)).eval()
    with torch.no_grad():
        network[1].weight.mul_(1e-6)  # type: ignore[operator]
    made = BACKENDS.get("ao")().quantize(network, AO_STATIC, [torch.randn(8, 3, 2, 2)])
    converted: Any = made.network.get_submodule("converted.1")
    stored = converted.weight()
    layer: Any = network[1]
    expected = quantize(layer.weight, kind="affine")
    assert expected.scale < 1.19e-7
    assert torch.equal(stored.int_repr().int(), expected.codes)


@pytest.mark.parametrize("name", ["ao-static", "affine-channel-w8-a8", "symmetric-channel-w8-a8"])
def test_dead_channels_and_denormal_weights_do_not_stop_ao(name: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 10)).eval()
    with torch.no_grad():
        network[0].weight[0] = 0  # type: ignore[operator]
        network[0].weight[1] *= 1e-39  # type: ignore[operator]
        network[2].weight *= 1e-39  # type: ignore[operator]
    made = BACKENDS.get("ao")().quantize(network, parse_scheme(name), [torch.randn(8, 3, 2, 2)])
    assert made.quantized_ops == 2
    assert torch.isfinite(made.network(torch.randn(8, 3, 2, 2))).all()


def test_torchs_own_default_is_symmetric_per_channel_with_7_bit_activations_on_x86() -> None:
    made = BACKENDS.get("ao")().quantize(deployed("small_cnn"), AO_DEFAULT, batches())
    assert made.activation_bits == (7 if made.engine in ("x86", "fbgemm") else 8)
    assert made.observer == "HistogramObserver (activations), PerChannelMinMaxObserver (weights)"


def test_saturating_accumulators_cut_the_activations_to_7_bits(monkeypatch) -> None:
    monkeypatch.setattr(ao, "accumulators_saturate", lambda: True)
    made = BACKENDS.get("ao")().quantize(deployed("small_cnn"), AO_STATIC, batches())
    assert made.activation_bits == 7
    assert "cut to 7 bits" in made.warnings[0]


def test_the_saturation_probe_computes_a_sum_that_integers_hold() -> None:
    with ao.running_on(torch.backends.quantized.engine):
        assert ao.accumulators_saturate() in (True, False)
    assert math.log2(255 * 127 * 32 * 9) < 31


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1)) if x.sum() > 0 else self.linear(-x.flatten(1))


def test_what_ao_cannot_carry_is_refused_with_the_reason() -> None:
    with pytest.raises(
        NotQuantizableError, match="torch.ao cannot quantize this network: .*control flow"
    ):
        BACKENDS.get("ao")().quantize(Untraceable().eval(), AO_STATIC, [torch.ones(2, 3, 2, 2)])
    flat = nn.Sequential(nn.Flatten()).eval()
    with pytest.raises(VerificationError, match="ao-static: torch.ao quantized nothing"):
        BACKENDS.get("ao")().quantize(flat, AO_STATIC, [torch.ones(2, 3, 2, 2)])
