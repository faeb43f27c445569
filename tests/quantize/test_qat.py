"""Quantization-aware training: which grids it trains on, what stays exact, what is converted."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qwd.quantize import qat
from qwd.quantize.arithmetic import code_range, quantize
from qwd.quantize.backend import NotQuantizableError
from qwd.quantize.fake import FakeQuantize
from qwd.quantize.folding import branches_fused, deploy
from qwd.quantize.schemes import AO_STATIC, Scheme
from qwd.registry import MODELS
from qwd.train.models import build

SCHEMES = [
    Scheme(kind, granularity, bits, 8, "ao", qat=True)
    for kind in ("affine", "symmetric")
    for granularity in ("tensor", "channel")
    for bits in (8, 4)
]
W4 = replace(AO_STATIC, weight_bits=4, qat=True)
W8 = replace(W4, weight_bits=8)


def images(n: int = 16) -> Tensor:
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def trained(name: str, scheme: Scheme, steps: int = 3) -> tuple[nn.Module, Any]:
    """A model and its twin after some steps on noise."""
    torch.manual_seed(0)
    network = branches_fused(build(name, in_channels=3, image_size=16, num_classes=10))
    twin = qat.prepare(network, scheme, images(2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    labels = torch.arange(16) % 10
    twin.train()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(twin(images()), labels).backward()
        optimizer.step()
    return network, twin.eval()


def folded_weights(network: nn.Module) -> dict[str, Tensor]:
    deployed = deploy(network.eval()).module
    return {name: p.detach() for name, p in deployed.named_parameters() if p.ndim >= 2}


@pytest.mark.parametrize("name", MODELS.names())
def test_the_twin_shares_all_that_is_trained(name: str) -> None:
    network, twin = trained(name, W4)
    ours = {id(t) for t in network.parameters()}
    assert {id(t) for t in twin.parameters()} == ours
    assert all(p.grad is not None for p in network.parameters())
    statistics = {n: b for n, b in network.named_buffers() if "running" in n}
    shared = {id(b) for b in twin.buffers()}
    assert all(id(b) in shared for b in statistics.values())


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_weights_are_trained_and_converted_on_the_grid_of_qwds_arithmetic(scheme: Scheme) -> None:
    network, twin = trained("small_cnn", scheme)
    converted: Any = qat.convert(twin, scheme).network.converted.module
    for name, weight in folded_weights(network).items():
        axis = 0 if scheme.granularity == "channel" else None
        own = quantize(weight, kind=scheme.kind, bits=scheme.weight_bits, axis=axis)
        stored = converted.get_submodule(name.removesuffix(".weight")).weight()
        codes = stored.int_repr().int()
        scale = stored.q_scale() if axis is None else stored.q_per_channel_scales()
        assert torch.as_tensor(scale, dtype=torch.float64).allclose(own.scale, rtol=1e-5)
        # torch folds in another order and multiplies by a reciprocal: the last bit of a weight
        # may differ, and so the code of one that is half way between two.
        shape = [-1 if d == axis else 1 for d in range(weight.ndim)]
        position = weight / own.scale.reshape(shape if axis is not None else ())
        tie = (position - position.floor() - 0.5).abs() < 1e-3
        assert torch.equal(codes[~tie], own.codes[~tie])
        lowest, highest = code_range(scheme.weight_bits)
        assert codes.min() >= lowest
        assert codes.max() <= highest


def test_the_range_is_that_of_the_present_weights() -> None:
    """torch's own observers would remember the wider weights of the past."""
    network, twin = trained("small_cnn", W4)
    with torch.no_grad():
        network.get_submodule("linear").weight.mul_(0.1)  # type: ignore[operator]
    twin.train()(images())
    weight: Any = network.get_submodule("linear").weight
    scale = twin.get_submodule("linear").weight_fake_quant.scale
    assert torch.allclose(scale.double(), quantize(weight, kind="affine", bits=4).scale, rtol=1e-6)


def test_tiny_weights_keep_their_true_scale() -> None:
    """torch's fused kernel floors scales at 6.1e-5, its observers at 1.19e-7."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    with torch.no_grad():
        network[1].weight.mul_(1e-7)  # type: ignore[operator]
    twin = qat.prepare(network, W4, torch.randn(2, 3, 2, 2))
    twin(torch.randn(4, 3, 2, 2))
    (layer,) = [m for m in twin.modules() if hasattr(m, "weight_fake_quant")]
    expected = quantize(network[1].weight, kind="affine", bits=4).scale  # type: ignore[arg-type]
    assert expected < 1.19e-8
    assert torch.allclose(layer.weight_fake_quant.scale.double(), expected, rtol=1e-6)


def test_frozen_ranges_and_statistics_stay() -> None:
    _, twin = trained("small_cnn", W4)
    twin.train()
    qat.freeze(twin, ranges=True, norms=True)
    grids = qat.state(twin)
    statistics = {n: b.clone() for n, b in twin.named_buffers() if "running" in n}
    twin(10 * images())
    assert all(torch.equal(v, grids[k]) for k, v in qat.state(twin).items())
    assert all(torch.equal(b, statistics[n]) for n, b in twin.named_buffers() if n in statistics)
    _, awake = trained("small_cnn", W4)
    awake.train()
    before = {k: v.clone() for k, v in qat.state(awake).items()}
    awake(10 * images())
    assert any(not torch.equal(v, before[k]) for k, v in qat.state(awake).items())


def test_images_seen_at_rest_move_no_range() -> None:
    _, twin = trained("small_cnn", W4)
    before = {k: v.clone() for k, v in qat.state(twin).items()}
    with torch.no_grad(), qat.unobserved(twin):
        twin(100 * images())
    assert all(torch.equal(v, before[k]) for k, v in qat.state(twin).items())
    with torch.no_grad():
        twin(100 * images())
    assert any(not torch.equal(v, before[k]) for k, v in qat.state(twin).items())


@pytest.mark.parametrize("name", MODELS.names())
def test_int8_kernels_and_the_reference_compute_what_was_trained(name: str) -> None:
    _, twin = trained(name, replace(W4, weight_bits=8))
    with torch.no_grad():
        twin(images())  # ranges of the weights as they are now
        with qat.unobserved(twin):
            expected = twin(images())
        found = qat.convert(twin, replace(W4, weight_bits=8)).network(images())
        same = qat.reference(twin)(images())
    step = (expected.max() - expected.min()) / 255
    # A code half way between two may fall to either side, and that moves what follows.
    assert (found - expected).abs().mean() <= 2 * step
    assert (same - expected).abs().mean() <= step


def test_the_reference_is_plain_layers_on_grids() -> None:
    network, twin = trained("small_cnn", W4)
    made = qat.reference(twin)
    assert not any(type(m).__module__.startswith("torch.ao") for m in made.modules())
    grids = [m for m in made.modules() if isinstance(m, FakeQuantize)]
    weights = [g for g in grids if g.qmin == -8]
    assert len(weights) == len(folded_weights(network))
    assert {(g.qmin, g.qmax) for g in grids} == {(-8, 7), (0, 255)}


def test_conversion_leaves_the_training_as_it_is_and_states_both_sqnr() -> None:
    _, twin = trained("small_cnn", W4)
    before = {k: v.clone() for k, v in twin.state_dict().items()}
    made = qat.convert(twin, W4)
    assert all(torch.equal(v, before[k]) for k, v in twin.state_dict().items())
    assert made.network.description.engine is not None
    assert made.network.description.observer == qat.OBSERVER
    assert 10 < made.sqnr["training_sqnr_db"] < 25  # type: ignore[operator]
    assert 10 < made.sqnr["converted_sqnr_db"] < 25  # type: ignore[operator]
    # Ranges that were frozen early no longer hold the weights: conversion inherits the damage.
    qat.freeze(twin, ranges=True, norms=True)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if name == "linear.weight":
                parameter.mul_(5)
    worse = qat.convert(twin, W4)
    converted: Any = worse.network.converted.module
    assert converted.linear.weight().int_repr().max() <= 7
    assert worse.sqnr["converted_sqnr_db"] < made.sqnr["converted_sqnr_db"] - 3  # type: ignore[operator]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_grids_are_stored_and_restored(scheme: Scheme) -> None:
    network, twin = trained("small_cnn", scheme)
    stored = {k: v.clone() for k, v in qat.state(twin).items()}
    fresh = qat.prepare(copy.deepcopy(network), scheme, images(2)).eval()
    qat.load_state(fresh, stored)
    with torch.no_grad(), qat.unobserved(twin), qat.unobserved(fresh):
        assert torch.equal(fresh(images()), twin(images()))
    missing = dict(stored)
    name = next(iter(missing))
    del missing[name]
    with pytest.raises(RuntimeError, match="is missing"):
        qat.load_state(fresh, missing)
    with pytest.raises(RuntimeError, match="belongs to no layer"):
        qat.load_state(fresh, {**stored, "other.scale": torch.ones(1)})


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)) if x.sum() > 0 else self.linear(-x.flatten(1))


def test_what_torch_cannot_trace_is_refused() -> None:
    network = Untraceable().eval()
    with pytest.raises(NotQuantizableError, match="torch.ao cannot quantize this network"):
        qat.prepare(network, W4, torch.ones(2, 3, 2, 2))
    assert not network.training


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_training_on_a_gpu_converts_on_the_cpu() -> None:
    network = build("small_cnn", in_channels=3, image_size=16, num_classes=10).cuda()
    twin = qat.prepare(network, W4, images(2).cuda())
    twin.train()(images().cuda()).sum().backward()
    assert qat.convert(twin, W4).network(images()).device.type == "cpu"


def test_what_torchs_kernels_compute_wrongly_is_converted_in_float() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU(8), nn.Conv2d(8, 8, 3)),
        *(nn.InstanceNorm2d(8, affine=True), nn.Flatten(), nn.LazyLinear(10)),
    )
    network(images())
    twin = qat.prepare(network, W8, images(2))
    twin.train()(images())
    expected = twin.eval()(images()).detach()
    made = qat.convert(twin, W8).network
    assert (made(images()) - expected).square().mean() < 0.02 * expected.var()
    assert made.description.warnings[-1].endswith("something else: 2, 4")
