"""torch.ao: real integer kernels on qwd's own codes, and the traps around them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import config
from torch.nn import functional as F

from qwd.quantize import ao, torch_ao
from qwd.quantize.arithmetic import code_range, quantize
from qwd.quantize.backend import LAYERS, NotQuantizableError
from qwd.quantize.backend import quantize as quantized
from qwd.quantize.schemes import AO_DEFAULT, AO_STATIC, Scheme, parse_scheme
from qwd.quantize.torch_ao import ENGINES
from qwd.registry import MODELS
from tests.quantize.deployed import batches, deployed, other_weights

BUILT = [e for e in ENGINES if e in torch.backends.quantized.supported_engines]


def stored_weights(made: Any) -> dict[str, torch.Tensor]:
    layers = ao.quantized_layers(made.converted.module)
    return {name: layer.weight() for name, layer in layers}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", MODELS.names())
def test_every_layer_runs_on_the_codes_of_affine_tensor(name: str, bits: int) -> None:
    network = deployed(name)
    made = quantized(network, replace(AO_STATIC, weight_bits=bits), batches())
    layers: dict[str, Any] = {n: m for n, m in network.named_modules() if isinstance(m, LAYERS)}
    assert made.description.left_float == other_weights(network)
    assert set(made.description.quantized) == set(layers)
    for path, stored in stored_weights(made).items():
        expected = quantize(layers[path].weight, kind="affine", bits=bits)
        assert torch.equal(stored.int_repr().int(), expected.codes)
        assert stored.q_scale() == expected.scale.item()
        assert stored.q_zero_point() == expected.zero_point.item()
    outputs = made(batches()[0])
    assert outputs.shape == (8, 10)
    assert torch.isfinite(outputs).all()


@pytest.mark.parametrize("engine", BUILT)
@pytest.mark.parametrize("kind", ["affine", "symmetric"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_engines_run_the_schemes_they_accept(engine: str, kind: str, granularity: str) -> None:
    scheme = Scheme(kind, granularity, 6, 8, "ao", engine)  # type: ignore[arg-type]
    network = deployed("small_cnn")
    if engine == "onednn" and kind == "affine":
        with pytest.raises(NotQuantizableError, match="oneDNN takes symmetric weights only"):
            quantized(network, scheme, batches())
        return
    made = quantized(network, scheme, batches())
    assert made.description.engine == engine
    lowest, highest = code_range(6)
    for stored in stored_weights(made).values():
        assert lowest <= stored.int_repr().min()
        assert stored.int_repr().max() <= highest
    with torch.no_grad():
        expected, found = network(batches()[0]), made(batches()[0])
    assert (found - expected).square().mean() < 0.03 * expected.square().mean()


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        (Scheme("affine", "tensor", 8, 8, "ao", "vnni"), "no engine 'vnni'; it has x86, fbgemm"),
        (Scheme("affine", "tensor", 8, 4, "ao"), "take 8-bit activations, not 4 bits"),
        (Scheme("affine", "tensor", 8, None, "ao"), "take 8-bit activations, not float"),
        (Scheme("minmax", "tensor", 8, 8, "ao"), "runs affine and symmetric weights"),
        (Scheme("pow2", "channel", 8, 8, "ao"), "pow2-channel-w8-a8 runs on the backend"),
        (Scheme("affine", "tensor", 8, 8, "ao", clip="mse"), "without clipping"),
    ],
)
def test_schemes_beyond_the_kernels_are_refused(scheme: Scheme, reason: str) -> None:
    with pytest.raises(NotQuantizableError, match=reason):
        quantized(deployed("small_cnn"), scheme, batches())


def test_an_engine_that_is_not_built_in_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(ao.torch_ao, "ENGINES", ("x86", "hexagon"))
    with pytest.raises(NotQuantizableError, match="this build of torch has no engine hexagon"):
        quantized(deployed("small_cnn"), replace(AO_STATIC, engine="hexagon"), batches())


def test_a_layer_of_tiny_weights_keeps_its_true_scale() -> None:
    """torch's observer would floor the scale at 1.19e-7 and leave three codes of this layer."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 10)).eval()
    layer: Any = network[1]
    with torch.no_grad():
        layer.weight.mul_(1e-6)
    images = [torch.randn(8, 3, 2, 2)]
    made = quantized(network, AO_STATIC, images)
    expected = quantize(layer.weight, kind="affine")
    assert expected.scale < 1.19e-7
    assert torch.equal(stored_weights(made)["1"].int_repr().int(), expected.codes)
    assert made.description.warnings == ()
    warnings = quantized(network, AO_DEFAULT, images).description.warnings
    assert "the smallest scale of torch's observer" in warnings[0]
    assert "coarsens 1 (10 of 10 channels)" in warnings[0]


@pytest.mark.parametrize("name", ["ao-static", "affine-channel-w8-a8", "symmetric-channel-w8-a8"])
def test_dead_channels_and_denormal_weights_do_not_stop_it(name: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 10)).eval()
    with torch.no_grad():
        network[0].weight[0] = 0  # type: ignore[operator]
        network[0].weight[1] *= 1e-39  # type: ignore[operator]
        network[2].weight *= 1e-39  # type: ignore[operator]
    made = quantized(network, parse_scheme(name), [torch.randn(8, 3, 2, 2)])
    assert len(made.description.quantized) == 2
    assert torch.isfinite(made(torch.randn(8, 3, 2, 2))).all()


def test_torchs_own_default_is_symmetric_per_channel_with_7_bit_activations_on_x86() -> None:
    found = quantized(deployed("small_cnn"), AO_DEFAULT, batches()).description
    assert found.activation_bits == (7 if found.engine in ("x86", "fbgemm") else 8)
    assert found.observer == "HistogramObserver (activations), PerChannelMinMaxObserver (weights)"


def test_activations_are_observed_by_their_extremes() -> None:
    made = quantized(deployed("small_cnn"), AO_STATIC, batches())
    images = torch.cat(batches())
    a, b = min(images.min().item(), 0), max(images.max().item(), 0)
    assert float(made.converted.module.conv1_input_scale_0) == pytest.approx((b - a) / 255)
    assert made.description.observer == "MinMaxObserver (activations), MinMaxObserver (weights)"


def test_an_unquantizable_layer_is_named() -> None:
    class Own(nn.Conv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * 2

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), Own(4, 4, 3), nn.Flatten()).eval()
    found = quantized(network, AO_STATIC, batches()).description
    assert found.quantized == ("0",)
    assert found.left_float == ("1",)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shared(torch.relu(self.shared(self.first(x))))


def test_a_layer_that_is_called_twice_is_refused_by_name() -> None:
    """torch.ao would apply the ReLU behind its first call to the second one, too."""
    with pytest.raises(NotQuantizableError, match="shared is called several times"):
        quantized(Twice().eval(), AO_STATIC, batches())


@pytest.mark.parametrize("scheme", [AO_STATIC, AO_DEFAULT, replace(AO_STATIC, engine="qnnpack")])
def test_transposed_convolutions_stay_in_float(scheme: Scheme) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, 2)).eval()
    made = quantized(network, scheme, batches())
    assert made.description.left_float == ("2",)
    with torch.no_grad():
        expected, found = network(batches()[0]), made(batches()[0])
        assert torch.equal(found, made(batches()[0]))
    assert (found - expected).square().mean() < 0.01 * expected.square().mean()


def test_weights_are_packed_for_the_engine_that_runs() -> None:
    """Large weights in a depthwise layer, on the one engine that never loses their sums."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 3, groups=64, padding=1)).eval()
    with torch.no_grad():
        for layer in network:
            layer.weight.uniform_(0.5, 1)  # type: ignore[union-attr, operator]
    images = [torch.rand(8, 3, 16, 16)]
    made = quantized(network, replace(AO_STATIC, engine="qnnpack"), images)
    with torch.no_grad():
        expected, found = network(images[0]), made(images[0])
    assert (found - expected).square().mean() < 1e-3 * expected.square().mean()


def test_relu6_never_falls_to_an_engine_that_clamps_it_wrongly() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 3, groups=64), nn.ReLU6())
    assert quantized(network.eval(), AO_STATIC, batches()).description.engine != "qnnpack"


def test_a_network_with_control_flow_is_refused_with_the_reason() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(12, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.flatten(1)) if x.sum() > 0 else self.linear(-x.flatten(1))

    with pytest.raises(
        NotQuantizableError, match="torch.ao cannot quantize this network: .*control flow"
    ):
        quantized(Branching().eval(), AO_STATIC, [torch.ones(2, 3, 2, 2)])


class Functional(nn.Module):
    """A convolution and a linear layer of its own, beside torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.kernel = nn.Parameter(0.1 * torch.randn(8, 8, 3, 3))
        self.linear = nn.Linear(8, 10)
        self.matrix = nn.Parameter(0.3 * torch.randn(10, 10))

    def forward(self, x: Any) -> Any:
        x = F.relu(F.conv2d(F.relu(self.conv(x)), self.kernel, padding=1))
        return F.linear(self.linear(x.mean((2, 3))), self.matrix)


@pytest.mark.parametrize("scheme", [AO_STATIC, AO_DEFAULT])
def test_functions_with_weights_of_their_own_stay_in_float_and_are_named(scheme: Scheme) -> None:
    torch.manual_seed(0)
    network = Functional().eval()
    found = quantized(network, scheme, batches())
    assert set(found.description.quantized) == {"conv", "linear"}
    assert found.description.left_float == ("kernel", "matrix")
    images = batches()[0]
    with torch.no_grad():
        expected = network(images)
    error = (found(images) - expected).square().mean()
    assert 0 < error < 1e-3 * expected.square().mean()


class Normalised(nn.Module):
    """The function behind `nn.InstanceNorm2d`, called by itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.instance_norm(x)


@pytest.mark.parametrize("scheme", [AO_STATIC, AO_DEFAULT])
@pytest.mark.parametrize(
    "between", [nn.PReLU(8, init=-0.2), nn.InstanceNorm2d(8, affine=True), Normalised()], ids=repr
)
def test_what_torchs_kernels_compute_wrongly_stays_in_float(
    between: nn.Module, scheme: Scheme
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), between, nn.Conv2d(8, 8, 3), nn.Flatten(), nn.LazyLinear(10))
    ).eval()
    images = torch.randn(64, 3, 8, 8)
    expected = network(images)
    made = quantized(network, scheme, [images])
    error = (made(images) - expected).square().mean() / expected.var()
    assert error < 0.02
    assert any("compute something else" in note for note in made.description.warnings)


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_quiet_leaves_torch_as_it_was_also_where_it_fails(mode: int) -> None:
    def state() -> tuple[int, bool]:
        traces = getattr(config, "do_not_emit_stack_traces", False)
        return torch.get_deterministic_debug_mode(), traces

    before, inside = state(), []

    def fails() -> None:
        with torch_ao.quiet():
            inside.append(state())
            raise KeyError

    torch.set_deterministic_debug_mode(mode)
    try:
        with pytest.raises(KeyError):
            fails()
        assert inside == [(0, True)]
        assert state() == (mode, before[1])
    finally:
        torch.set_deterministic_debug_mode(before[0])
