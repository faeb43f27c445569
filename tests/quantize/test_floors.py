"""Scale floors: which layers they touch, and what they cost."""

import math

import pytest
import torch
from torch import nn

from qwd.quantize.arithmetic import quantize
from qwd.quantize.fake import FakeQuantize
from qwd.quantize.floors import floor_warning, floored_layers
from qwd.quantize.schemes import Scheme, parse_scheme

PER_CHANNEL = parse_scheme("symmetric-channel-w8-a8@pt2e")
FLOOR = 2.0**-12


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ConvTranspose2d(8, 4, 3),
        nn.Flatten(),
        nn.LayerNorm(4),
        nn.Linear(4, 10),
    )


def scale(module: nn.Module, scheme: Scheme) -> torch.Tensor:
    axis = None
    if scheme.granularity == "channel":
        axis = int(isinstance(module, nn.ConvTranspose2d))
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    return quantize(weight, kind=scheme.kind, bits=scheme.weight_bits, axis=axis).scale


def test_channels_below_the_floor_are_counted() -> None:
    net = network()
    with torch.no_grad():
        net[0].weight[2:5] *= 1e-3  # type: ignore[operator]
        net[1].weight[:, 1] *= 1e-3  # type: ignore[operator]
        net[1].weight[:, 2] = 0  # type: ignore[operator]
    found = {f.layer: f for f in floored_layers(net, PER_CHANNEL, FLOOR)}
    assert {name: (f.channels, f.of) for name, f in found.items()} == {"0": (3, 8), "1": (1, 4)}
    for name, each in found.items():
        scales = scale(net.get_submodule(name), PER_CHANNEL)
        assert ((scales > 0) & (scales < FLOOR)).sum() == each.channels


@pytest.mark.parametrize("name", ["symmetric-channel-w8", "affine-channel-w8", "affine-channel-w4"])
def test_the_cost_is_that_of_the_touched_weights_alone(name: str) -> None:
    scheme = parse_scheme(name)
    net = network()
    with torch.no_grad():
        net[0].weight[2:5] *= 1e-3  # type: ignore[operator]
    (found,) = floored_layers(net, scheme, 1e-4)
    weight = net.get_parameter("0.weight").detach()[2:5]
    own = quantize(weight, kind=scheme.kind, bits=scheme.weight_bits, axis=0)
    low, high = -(2 ** (scheme.weight_bits - 1)), 2 ** (scheme.weight_bits - 1) - 1
    zero_point = torch.zeros(3)
    if scheme.kind == "affine":
        zero_point = low - (weight.flatten(1).amin(1).clamp(max=0) / 1e-4).round()
    floored = FakeQuantize(torch.full([3], 1e-4), zero_point, qmin=low, qmax=high, axis=0)(weight)
    for figure, values in ((found.sqnr_db, own.values), (found.floored_sqnr_db, floored)):
        error = (values.double() - weight.double()).square().sum()
        expected = 10 * math.log10(weight.double().square().sum() / error)
        assert figure == pytest.approx(expected, abs=1e-3)
    assert found.floored_sqnr_db < found.sqnr_db  # type: ignore[operator]


def test_one_scale_for_all() -> None:
    net = network()
    scheme = parse_scheme("affine-tensor-w8")
    with torch.no_grad():
        net[4].weight *= 1e-6  # type: ignore[operator]
    (found,) = floored_layers(net, scheme, torch.finfo(torch.float32).eps)
    assert (found.layer, found.channels, found.of) == ("4", None, None)
    warning = floor_warning(net, scheme, torch.finfo(torch.float32).eps, "torch's observer")
    assert warning is not None
    assert warning.startswith(
        "affine-tensor: the smallest scale of torch's observer, 1.19e-07, coarsens 4: SQNR "
    )


def test_the_line_names_the_worst_layers() -> None:
    net = nn.Sequential(*(nn.Linear(6, 6) for _ in range(6)))
    with torch.no_grad():
        for index, factor in enumerate([1, 0.02, 1e-3, 0.01, 1e-5, 1e-4]):
            net[index].weight *= factor  # type: ignore[operator]
    warning = floor_warning(net, PER_CHANNEL, FLOOR, "PT2E")
    assert warning is not None
    assert "\n" not in warning
    start, *rest = warning.split("; ")
    assert start.startswith(
        "pt2e-default: the smallest scale of PT2E, 0.000244, coarsens 4 (6 of 6 channels): "
        "SQNR 0.0 dB in place of "
    )
    assert [text.split()[0] for text in rest] == ["5", "2", "and"]
    assert rest[-1] == "and 2 more"


def test_nothing_below_no_line() -> None:
    assert floored_layers(network(), PER_CHANNEL, 1e-9) == []
    assert floor_warning(network(), PER_CHANNEL, 1e-9, "PT2E") is None
    dead = nn.Linear(4, 4)
    nn.init.zeros_(dead.weight)
    assert floor_warning(dead, PER_CHANNEL, FLOOR, "PT2E") is None
    nn.init.constant_(dead.weight, 1e-5)
    warning = floor_warning(dead, PER_CHANNEL, FLOOR, "PT2E")
    assert warning is not None
    assert "coarsens Linear (4 of 4 channels)" in warning
