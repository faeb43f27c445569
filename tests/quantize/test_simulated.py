"""The simulated backend: what can be selected, what stays exact, and hard cases."""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from qwd.quantize.arithmetic import quantize
from qwd.quantize.backend import NotQuantizableError
from qwd.quantize.backend import quantize as quantized
from qwd.quantize.schemes import KINDS, Scheme, parse_scheme
from qwd.quantize.simulated import SimulatedNetwork
from qwd.registry import MODELS
from qwd.train.devices import without_tf32
from tests.quantize.deployed import batches, deployed
from tests.quantize.networks import Wired
from tests.quantize.simulating import STATIC, exact_when_off, grid_of, made, small_images


@pytest.mark.parametrize("name", MODELS.names())
def test_with_everything_off_it_is_the_float_network_to_the_last_bit(name: str) -> None:
    network = deployed(name)
    exact_when_off(quantized(network, STATIC, batches()), network, batches()[0])


def test_only_the_selected_parts_are_quantized() -> None:
    network, images = deployed("small_cnn"), batches()
    found = quantized(network, STATIC, images)
    simulated: SimulatedNetwork = found.converted
    grids = {grid.name: grid for grid in simulated.grids}
    x = images[0]

    def weights_quantized() -> list[str]:
        pairs = ((n, network.get_submodule(n).weight) for n in simulated.layers)
        changed = lambda n, w: not torch.equal(simulated.get_submodule(n).weight, w)  # type: ignore[arg-type]  # noqa: E731
        return [name for name, weight in pairs if changed(name, weight)]

    with torch.no_grad():
        whole, floats = found(x), network(x)
        with simulated.selected(["conv2"], ["input", "linear"]):
            assert weights_quantized() == ["conv2"]
            changed = copy.deepcopy(network)
            conv2: Any = changed.get_submodule("conv2")
            used: Any = simulated.get_submodule("conv2")
            conv2.weight.copy_(used.weight)
            conv2.bias.copy_(used.bias)
            expected = grids["linear"](changed(grids["input"](x)))
            assert torch.equal(found(x), expected)
            with simulated.selected(None, ()):
                assert weights_quantized() == list(simulated.layers)
                assert not any(grid.quantizing for grid in simulated.grids)
            assert torch.equal(found(x), expected)
        assert torch.equal(found(x), whole)
        with simulated.selected((), ()):
            assert torch.equal(found(x), floats)
        with pytest.raises(TypeError), simulated.selected((), ()):
            found("no image")
        assert torch.equal(found(x), whole)
    for names in ((["conv9"], None), (None, ["conv9"])):
        with pytest.raises(ValueError, match="has no 'conv9'"), simulated.selected(*names):
            pass
    assert torch.equal(found(x), whole)


def test_a_copy_lives_on_its_own() -> None:
    found = quantized(deployed("resnet20"), STATIC, batches())
    copied = copy.deepcopy(found)
    images = batches()[0]
    with torch.no_grad():
        expected = found(images)
        assert torch.equal(copied(images), expected)
        with copied.converted.selected((), ()):
            assert torch.equal(found(images), expected)
            assert not torch.equal(copied(images), expected)
        assert torch.equal(copied(images), expected)
    assert copied.converted.layers == found.converted.layers


def test_the_order_of_calibration_does_not_matter() -> None:
    images = [small_images(seed=seed) * seed for seed in (1, 2, 3)]
    network = deployed("small_cnn", image_size=8)
    for name in ("simulated-static", "minmax-channel-w4-a4"):
        scheme = parse_scheme(name)
        outputs = [
            quantized(network, scheme, order)(images[0])
            for order in (images, images[::-1], [torch.cat(images)])
        ]
        # A batch of another size may take another kernel, whose sums round otherwise.
        assert torch.equal(outputs[0], outputs[1])
        assert torch.allclose(outputs[0], outputs[2], atol=0.05)


def test_extremes_are_of_all_batches_and_clipping_sees_them_all() -> None:
    images: Sequence[Tensor] = [small_images() * size for size in (1, 5, 2)]
    network = nn.Sequential(nn.Conv2d(3, 2, 3)).eval()
    found = quantized(network, STATIC, images)
    everything = torch.cat(list(images))
    with torch.no_grad():
        seen = network(everything)
    for name, values in (("input", everything), ("0", seen)):
        expected = (values.max() - values.min()) / 255
        assert float(grid_of(found, name).scale) == pytest.approx(float(expected))
    clipped = quantized(network, parse_scheme("minmax-tensor-percentile-w8-a8"), images)
    lo, hi = np.percentile(everything.double().numpy(), [0.01, 99.99])
    grid = grid_of(clipped, "input")
    assert float(grid.offset) == pytest.approx(lo, rel=1e-6)
    assert float(grid.scale) == pytest.approx((hi - lo) / 255, rel=1e-6)


def test_dead_channels_tiny_weights_and_constant_activations() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 1),
        nn.Flatten(),
        nn.Linear(64, 5),
    ).eval()
    first: Any = network[0]
    tiny: Any = network[2]
    dead: Any = network[3]
    with torch.no_grad():
        first.weight[0] = 0
        first.bias[0] = -1
        tiny.weight.mul_(1e-6)
        tiny.bias.zero_()
        dead.weight.zero_()
        dead.bias.zero_()
    for kind, clip in itertools.product(KINDS, ("none", "percentile", "mse")):
        for granularity in ("tensor", "channel"):
            scheme = Scheme(kind, granularity, 8, 8, "simulated", clip=clip)  # type: ignore[arg-type]
            found = made(network, scheme)
            assert len(found.description.quantized) == 4
            outputs = found(small_images(seed=5))
            assert torch.isfinite(outputs).all()
            assert torch.isfinite(found(100 * small_images(seed=5))).all()
            axis = 0 if granularity == "channel" else None
            if clip == "none":
                weight = quantize(tiny.weight, kind=kind, axis=axis)
                assert (weight.scale < 1e-8).all()
                assert torch.equal(found.converted.get_submodule("2").weight, weight.values.float())
                # Of an activation of this size, too, the scale has no floor.
                assert 0 < float(grid_of(found, "2").scale) < 1e-7


def test_a_network_that_gives_zeros() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    for name in ("simulated-static", "minmax-tensor-w8-a8", "pow2-channel-mse-w4-a4"):
        found = made(network, parse_scheme(name))
        assert not found(small_images(seed=2)).any()


def test_a_bias_too_large_for_its_steps_stays_float() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1)).eval()
    layer: Any = network[0]
    with torch.no_grad():
        layer.weight.mul_(1e-9)
        layer.bias.copy_(torch.tensor([1.0, -2.0]))
    used: Any = made(network).converted.get_submodule("0")
    assert torch.equal(used.bias, layer.bias)
    with torch.no_grad():
        layer.weight.mul_(1e9)
    used = made(network).converted.get_submodule("0")
    assert not torch.equal(used.bias, layer.bias)


def test_the_network_given_is_left_alone() -> None:
    network = deployed("resnet20")
    network.get_submodule("conv1").weight.requires_grad_(True)  # type: ignore[union-attr]
    modules = [(name, type(module)) for name, module in network.named_modules()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = quantized(network, parse_scheme("affine-channel-mse-w4-a4"), batches())
    with torch.no_grad(), found.converted.selected((), ()):
        found(batches()[0])
    assert [(name, type(module)) for name, module in network.named_modules()] == modules
    assert all(torch.equal(tensor, before[n]) for n, tensor in network.state_dict().items())
    assert network.get_submodule("conv1").weight.requires_grad
    held = {tensor.data_ptr() for tensor in network.state_dict().values() if tensor.numel()}
    assert not held & {tensor.data_ptr() for tensor in found.converted.state_dict().values()}


def test_pruned_and_parametrized_weights_are_quantized_as_they_are_at_inference() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 3)).eval()
    prune.l1_unstructured(network[0], "weight", amount=0.5)
    parametrizations.weight_norm(network[1])
    prune.l1_unstructured(network[2], "bias", amount=0.5)
    with torch.no_grad():
        network(small_images())
    for module in network.modules():  # what a forward pass leaves behind cannot be copied
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                setattr(module, name, value.detach())
    found = made(network)
    assert found.converted.layers == ("0", "1", "2")
    for name in found.converted.layers:
        weight: Any = network.get_submodule(name).weight
        expected = quantize(weight, kind="affine").values
        assert torch.equal(found.converted.get_submodule(name).weight, expected)
    exact_when_off(found, network, small_images())


def test_layers_that_may_compute_anything_stay_float_and_are_named() -> None:
    class Own(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 2

    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.own = Own(4, 4, 3)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.linear = nn.Linear(4, 3)
            self.unused = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.own(self.conv(x)).flatten(2).transpose(1, 2)
            mixed, _ = self.attention(tokens, tokens, tokens)
            return self.linear(mixed.mean(1))

    torch.manual_seed(0)
    network = Attentive().eval()
    found = made(network)
    assert found.description.quantized == ("conv", "linear")
    left = ("own", "attention.out_proj", "unused", "attention.in_proj_weight")
    assert found.description.left_float == left
    assert torch.isfinite(found(small_images())).all()
    exact_when_off(found, network, small_images())


def test_options_of_forward_are_at_their_defaults() -> None:
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(192, 4)

        def forward(self, x: Tensor, double: bool = False, scale: float = 1.0) -> Tensor:
            y = self.linear(x.flatten(1)) * scale
            return 2 * y if double else y

    network = Optional()
    found = made(network)
    assert found.converted.layers == ("linear",)
    exact_when_off(found, network, small_images())


@pytest.mark.parametrize(
    ("network", "scheme", "reason"),
    [
        (
            Wired(lambda net, x: net.conv(x) if x.sum() > 0 else x, conv=nn.Conv2d(3, 3, 1)),
            "simulated-static",
            "torch.fx cannot trace Wired .*control flow",
        ),
        (
            nn.Conv2d(3, 3, 1),
            "affine-tensor@simulated",
            "weights alone run on the backend 'weights'",
        ),
        (nn.Conv2d(3, 3, 1), "affine-tensor-a8@simulated:fast", "has no engine 'fast'"),
    ],
)
def test_what_is_refused(network: nn.Module, scheme: str, reason: str) -> None:
    with pytest.raises(NotQuantizableError, match=reason) as refused:
        made(network, parse_scheme(scheme))
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["simulated-static", "minmax-channel-mse-w4-a6"])
def test_on_a_gpu_it_computes_the_same(name: str) -> None:
    network, images = deployed("resnet20"), batches()[0]
    found = quantized(network, parse_scheme(name), batches())
    with torch.no_grad(), without_tf32():
        expected = found(images)
        moved = copy.deepcopy(found).cuda()
        outputs = moved(images.cuda())
        assert torch.equal(outputs, moved(images.cuda()))
        # Sums round otherwise, and a code here and there is the next one.
        error = (outputs.cpu() - expected).square().mean() / expected.square().mean()
        assert error < 1e-3
        with moved.converted.selected((), ()):
            assert torch.equal(moved(images.cuda()), copy.deepcopy(network).cuda()(images.cuda()))
