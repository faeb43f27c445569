"""Clipped weights and corrected biases: float networks whose quantized versions lose less."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from qwd.quantize.arithmetic import quantize
from qwd.quantize.backend import quantize as quantized
from qwd.quantize.clipping import clipped_range
from qwd.quantize.correction import biases_corrected, weights_clipped
from qwd.quantize.schemes import Clip, Scheme, parse_scheme

SCHEME = parse_scheme("affine-tensor-w4-a8@simulated")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, bias=False)
        self.up = nn.ConvTranspose2d(6, 4, 2)
        self.conv2 = nn.Conv2d(4, 8, 3)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1(x))
        x = torch.relu(self.conv2(self.up(x)))
        return self.linear(x.mean((2, 3)))


def network() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def batches(n: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(16, 3, 10, 10, generator=generator) for _ in range(n)]


LAYERS = ("conv1", "up", "conv2", "linear")


def layer_means(module: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Mean per channel of every layer's output."""
    found: dict[str, Tensor] = {}

    def hook_of(name: str):
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> None:
            found[name] = y.mean((0, 2, 3)) if y.ndim == 4 else y.mean(0)

        return hook

    handles = [module.get_submodule(n).register_forward_hook(hook_of(n)) for n in LAYERS]
    with torch.no_grad():
        module(images)
    for handle in handles:
        handle.remove()
    return found


def errors(float_network: nn.Module, made_of: nn.Module, scheme: Scheme) -> dict[str, float]:
    """By how much the means of the quantized network are off, relative to those in float."""
    images = torch.cat(batches())
    expected = layer_means(float_network, images)
    made = quantized(made_of, scheme, batches())
    found = layer_means(made.converted, images)
    return {n: ((found[n] - y).norm() / y.norm()).item() for n, y in expected.items()}


def test_every_layer_of_the_quantized_version_has_the_mean_of_the_float_one() -> None:
    plain = network()
    corrected = biases_corrected(plain, SCHEME, batches())
    before, after = errors(plain, plain, SCHEME), errors(plain, corrected, SCHEME)
    # Ranges of activations move a little with the biases, and the rounding with them.
    assert all(before[name] > 0.005 for name in LAYERS)
    assert all(after[name] < 0.02 * before[name] for name in LAYERS)


def test_the_correction_is_of_biases_alone_and_of_a_copy() -> None:
    plain = network()
    state = copy.deepcopy(plain.state_dict())
    corrected = biases_corrected(plain, SCHEME, batches())
    assert all(torch.equal(state[n], tensor) for n, tensor in plain.state_dict().items())
    assert plain.conv1.bias is None
    new = corrected.state_dict()
    assert set(new) == {*state, "conv1.bias"}
    for name in state:
        assert torch.equal(new[name], state[name]) != name.endswith("bias"), name
    assert not any(module._forward_hooks for module in corrected.modules())
    with torch.no_grad():
        assert not torch.equal(corrected(batches()[0]), plain(batches()[0]))


def test_the_shift_of_one_layer_is_the_mean_error_of_its_weights() -> None:
    layer = nn.Linear(6, 3)
    torch.manual_seed(2)
    nn.init.normal_(layer.weight)
    one = nn.Sequential(layer).eval()
    x = [torch.rand(40, 6)]
    scheme = parse_scheme("affine-tensor-w3-a8@simulated")
    corrected = biases_corrected(one, scheme, x)
    error = layer.weight - quantize(layer.weight, kind="affine", bits=3).values
    found = corrected.get_parameter("0.bias") - layer.bias
    # The input is quantized too, in 256 steps, and its error has no direction.
    assert found.detach() == pytest.approx((error @ x[0].mean(0)).detach(), abs=2e-3)
    assert found.abs().max() > 0.02


def test_an_8_bit_network_hardly_needs_it() -> None:
    plain = network()
    corrected = biases_corrected(plain, replace(SCHEME, weight_bits=8), batches())
    assert plain.linear.bias is not None
    assert (corrected.get_parameter("linear.bias") - plain.linear.bias).abs().max() < 1e-2


def test_other_backends_get_the_same_correction() -> None:
    plain = network()
    ours = biases_corrected(plain, SCHEME, batches()).state_dict()
    theirs = biases_corrected(plain, replace(SCHEME, backend="ao"), batches()).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(6, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.shared(torch.relu(self.shared(x)))))


def test_a_layer_that_is_called_twice_keeps_its_bias() -> None:
    torch.manual_seed(0)
    plain = Twice().eval()
    corrected = biases_corrected(plain, SCHEME, [torch.rand(32, 6)])
    assert torch.equal(corrected.get_parameter("shared.bias"), plain.shared.bias)
    assert not torch.equal(corrected.get_parameter("last.bias"), plain.last.bias)


@pytest.mark.parametrize("clip", ["mse", "percentile"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_clipped_weights_have_the_range_that_was_found(clip: Clip, granularity: str) -> None:
    plain = network()
    with torch.no_grad():
        plain.conv2.weight[0, 0, 0, 0] = 4
    state = copy.deepcopy(plain.state_dict())
    scheme = replace(SCHEME, granularity=granularity)
    clipped = weights_clipped(plain, scheme, clip)
    assert all(torch.equal(state[n], tensor) for n, tensor in plain.state_dict().items())
    for name in LAYERS:
        weight = plain.get_parameter(f"{name}.weight")
        axis = None if granularity == "tensor" else 1 if name == "up" else 0
        lo, hi = clipped_range(weight, clip=clip, kind="affine", bits=4, axis=axis)
        found = clipped.get_parameter(f"{name}.weight")
        assert torch.equal(found, weight.clamp(lo, hi))
    assert not torch.equal(clipped.get_parameter("conv2.weight"), state["conv2.weight"])
    assert torch.equal(clipped.get_parameter("conv2.bias"), state["conv2.bias"])


def test_mse_clipping_lessens_the_error_of_the_weights() -> None:
    plain = nn.Sequential(nn.Linear(64, 64))
    weight = plain.get_parameter("0.weight")
    torch.manual_seed(0)
    nn.init.normal_(weight)
    with torch.no_grad():
        weight[0, 0] = 20
    clipped = weights_clipped(plain, SCHEME, "mse")

    def error(of: nn.Module) -> float:
        rounded = quantize(of.get_parameter("0.weight"), kind="affine", bits=4).values
        return (rounded - weight).square().sum().item()

    assert error(clipped) < 0.8 * error(plain)
