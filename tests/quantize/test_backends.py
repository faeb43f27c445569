"""The contract of the backends: what every registered one does, and refuses."""

import contextlib
from functools import cache

import pytest
import torch
from torch import nn

from qwd.errors import VerificationError
from qwd.quantize.backend import LAYERS, NotQuantizableError, QuantizedNetwork, quantize
from qwd.quantize.schemes import Scheme, parse_scheme
from qwd.registry import BACKENDS
from tests.quantize.deployed import batches, deployed

CANDIDATES = ("affine-tensor", "affine-tensor-w8-a8", "symmetric-channel-w8-a8")


class Plain(nn.Module):
    """No layer in it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1)) if x.sum() > 0 else self.linear(-x.flatten(1))


@cache
def scheme_of(backend: str) -> Scheme:
    """The first candidate that the backend takes."""
    for name in CANDIDATES:
        scheme = parse_scheme(f"{name}@{backend}")
        with contextlib.suppress(NotQuantizableError):
            BACKENDS.get(backend)().check(scheme)
            return scheme
    raise AssertionError(f"{backend} takes none of {CANDIDATES}")


@cache
def made(backend: str, model: str = "small_cnn") -> QuantizedNetwork:
    return quantize(deployed(model), scheme_of(backend), batches())


def outputs_or_refusal(network: nn.Module, scheme: Scheme) -> torch.Tensor | str:
    try:
        return quantize(network, scheme, batches())(batches()[0])
    except NotQuantizableError as error:
        return str(error)


every_backend = pytest.mark.parametrize("backend", BACKENDS.names())


@every_backend
def test_the_network_given_is_left_alone(backend: str) -> None:
    network = deployed("small_cnn")
    before = {n: t.clone() for n, t in network.state_dict().items()}
    quantize(network, scheme_of(backend), batches())
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    assert network.state_dict().keys() == before.keys()
    assert not network.training


@every_backend
def test_the_result_is_close_and_not_the_same(backend: str) -> None:
    images = batches()[0]
    with torch.no_grad():
        expected, found = deployed("small_cnn")(images), made(backend)(images)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    error = (found - expected).square().mean() / expected.square().mean()
    assert 0 < error < 0.01


@every_backend
def test_the_same_images_give_the_same_outputs_in_any_batch(backend: str) -> None:
    images = batches()[0]
    with torch.no_grad():
        whole = made(backend)(images)
        again = torch.cat([made(backend)(images[:3]), made(backend)(images[3:])])
        assert torch.equal(whole, made(backend)(images))
    # Another batch may take another kernel, whose sums round otherwise; codes absorb almost all.
    assert (whole - again).abs().max() <= 0.05 * whole.abs().max()


@every_backend
def test_it_says_what_ran(backend: str) -> None:
    description = made(backend).description
    layers = {n for n, m in deployed("small_cnn").named_modules() if isinstance(m, LAYERS)}
    assert {name.removesuffix(".weight") for name in description.quantized} == layers
    assert description.left_float == ()
    assert description.observer
    assert "\n" not in description.observer
    scheme = scheme_of(backend)
    if scheme.activation_bits is None:
        assert description.activation_bits is None
    else:
        assert description.activation_bits in (7, 8)
    assert isinstance(description.engine, str | None)


@every_backend
def test_residual_depthwise_and_attention_networks_run(backend: str) -> None:
    for model in ("resnet20", "mobilenet", "vit"):
        outputs = made(backend, model)(batches()[0])
        assert outputs.shape == (8, 10)
        assert torch.isfinite(outputs).all()


@every_backend
def test_dead_channels_and_tiny_weights_are_no_trouble(backend: str) -> None:
    network = deployed("small_cnn")
    with torch.no_grad():
        network.get_submodule("conv1").weight[0] = 0  # type: ignore[index]
        network.get_submodule("conv2").weight.mul_(1e-6)  # type: ignore[operator]
        network.get_submodule("conv3").weight[1] *= 1e-39  # type: ignore[index]
        outputs = quantize(network, scheme_of(backend), batches())(batches()[0])
    assert torch.isfinite(outputs).all()


@every_backend
def test_nothing_quantized_is_an_error(backend: str) -> None:
    with pytest.raises(VerificationError, match="nothing was quantized"):
        quantize(Plain().eval(), scheme_of(backend), batches())


@every_backend
def test_a_network_that_cannot_be_traced_is_refused_or_runs(backend: str) -> None:
    outcome = outputs_or_refusal(Untraceable().eval(), scheme_of(backend))
    if isinstance(outcome, str):
        assert "\n" not in outcome
        assert len(outcome) < 400
    else:
        assert outcome.shape == (8, 10)


@every_backend
def test_a_scheme_beyond_it_is_refused_in_one_line(backend: str) -> None:
    names = ("minmax-tensor", "pow2-channel-mse-w3-a5", "affine-tensor-w8-a8")
    schemes = [parse_scheme(f"{name}@{backend}") for name in names]
    outcomes = [outputs_or_refusal(deployed("small_cnn"), scheme) for scheme in schemes]
    refusals = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert refusals
    assert all("\n" not in text for text in refusals)
