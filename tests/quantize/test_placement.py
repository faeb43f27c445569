"""Where the grids of activations stand: where integer kernels have them."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwd.quantize.backend import quantize as quantized
from tests.quantize.deployed import batches, deployed
from tests.quantize.networks import Wired
from tests.quantize.simulating import STATIC, convs, exact_when_off, grid_of, made, small_images


def parts(network: nn.Module, images: Tensor | None = None) -> tuple[str, ...]:
    return made(network, images=images).converted.activations


def test_a_residual_network_is_quantized_where_integer_kernels_quantize() -> None:
    found = quantized(deployed("resnet20"), STATIC, batches()).converted
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
    sums = ["add", *(f"add_{i}" for i in range(1, 9))]
    expected = ["input", "conv1"]
    for block, total in zip(blocks, sums, strict=True):
        expected += [f"{block}.conv1", f"{block}.conv2", total]
    assert found.activations == (*expected, "pool", "linear")
    layers = [f"{block}.conv{i}" for block in blocks for i in (1, 2)]
    assert found.layers == ("conv1", *layers, "linear")


@pytest.mark.parametrize(
    ("act", "ends"),
    [
        (nn.ReLU(), (0, None)),
        (nn.ReLU(inplace=True), (0, None)),
        (F.relu, (0, None)),
        (lambda x: F.relu(x, inplace=True), (0, None)),
        (torch.relu_, (0, None)),
        (lambda x: x.relu(), (0, None)),
        (nn.ReLU6(), (0, 6)),
        (F.relu6, (0, 6)),
        (nn.Hardtanh(-0.25, 0.25), (-0.25, 0.25)),
        (lambda x: F.hardtanh(x, -0.25, 0.25), (-0.25, 0.25)),
        (nn.Sequential(nn.Identity(), nn.Dropout(), nn.ReLU()), (0, None)),
        (nn.Sequential(nn.MaxPool2d(2), nn.ReLU()), (None, None)),
        (nn.GELU(), (None, None)),
    ],
)
def test_an_activation_function_is_part_of_the_kernel_before_it(act: Any, ends: Any) -> None:
    modules = convs(2, act=act) if isinstance(act, nn.Module) else convs(2)
    with torch.no_grad():
        modules["conv0"].weight *= 6  # type: ignore[operator]

    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.conv0(x)
        return net.conv1(net.act(y) if isinstance(act, nn.Module) else act(y))

    images = small_images()
    found = made(Wired(forward, **modules), images=images)
    before = modules["conv0"](images)
    lowest, highest = before.min().item(), before.max().item()
    a = lowest if ends[0] is None else ends[0]
    b = highest if ends[1] is None else ends[1]
    grid = grid_of(found, "conv0")
    assert float(grid.scale) == pytest.approx((b - a) / 255)
    assert grid.lowest * float(grid.scale) == pytest.approx(a, abs=float(grid.scale))
    others = [name for name in found.converted.activations if "conv" not in name]
    assert others == (["input", "act"] if isinstance(act, nn.GELU) else ["input"])


def test_what_has_a_second_reader_is_quantized_before_its_relu() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.conv0(x)
        return net.conv1(F.relu(y)) + net.conv2(y)

    found = made(Wired(forward, **convs()))
    assert found.converted.activations == ("input", "conv0", "conv1", "conv2", "add")
    assert grid_of(found, "conv0").lowest < -50


@pytest.mark.parametrize(
    "join",
    [
        lambda x, y: x + y,
        lambda x, y: x.add_(y),
        lambda x, y: torch.add(x, y, alpha=2),
        lambda x, y: x * y,
        lambda x, y: torch.cat([x, y], dim=1)[:, :3],
        lambda x, y: torch.stack([x, y])[0],
        lambda x, y: F.relu(x + y, inplace=True),
    ],
)
def test_sums_products_and_concatenations_have_grids(join: Any) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.conv2(join(net.conv0(x), net.conv1(x)))

    names = parts(Wired(forward, **convs()))
    assert len(names) == 5
    assert names[:3] == ("input", "conv0", "conv1")
    assert names[4] == "conv2"


def test_operators_in_place() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.conv0(x)
        y += net.conv1(x)
        return net.conv2(F.relu_(y))

    network = Wired(forward, **convs())
    found = made(network)
    assert found.converted.activations == ("input", "conv0", "conv1", "add", "conv2")
    assert grid_of(found, "add").lowest == 0
    exact_when_off(found, network, small_images())


@pytest.mark.parametrize(
    "move",
    [
        lambda x: F.max_pool2d(x, 2),
        lambda x: x[:, :, ::2, ::2],
        lambda x: F.pad(x, (1, 1, 0, 2)),
        lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
        lambda x: x.flatten(2).transpose(1, 2).reshape(x.shape[0], 3, 8, 8),
        lambda x: torch.flatten(x, 2).view(-1, 3, 8, 8).contiguous(),
        lambda x: torch.chunk(x, 2, dim=2)[1],
        lambda x: F.dropout(x, training=False),
        nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(2), nn.Identity(), nn.Dropout()),
    ],
)
def test_what_moves_values_keeps_their_grid(move: Any) -> None:
    modules = convs(2, move=move) if isinstance(move, nn.Module) else convs(2)

    def forward(net: Any, x: Tensor) -> Tensor:
        act = net.move if isinstance(move, nn.Module) else move
        return net.conv1(act(net.conv0(act(x))))

    assert parts(Wired(forward, **modules)) == ("input", "conv0", "conv1")


def test_padding_with_another_value_has_a_grid_of_its_own() -> None:
    network = Wired(lambda net, x: net.conv1(F.pad(net.conv0(x), (1, 1), value=7.0)), **convs(2))
    assert parts(network) == ("input", "conv0", "pad", "conv1")


@pytest.mark.parametrize(
    "average",
    [
        lambda x: F.avg_pool2d(x, 3, 1, 1),
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: x.mean((2, 3), keepdim=True),
    ],
)
def test_averages_have_a_grid_of_their_own(average: Any) -> None:
    names = parts(Wired(lambda net, x: net.conv1(average(net.conv0(x))), **convs(2)))
    assert len(names) == 4
    assert names[:2] == ("input", "conv0")


def test_float_operators_are_quantized_only_where_a_layer_reads_them() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = torch.sigmoid(net.conv0((x - 0.5) / 2))
        z = net.norm(torch.softmax(y, 1).flatten(1))
        return net.linear(F.gelu(z)) * z.shape[0]

    modules = convs(1, norm=nn.LayerNorm(192), linear=nn.Linear(192, 10))
    names = parts(Wired(forward, **modules))
    assert names == ("truediv", "conv0", "gelu", "linear", "mul")


def test_arithmetic_of_sizes_is_left_alone() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        n, c = x.shape[0], x.size(1)
        return net.linear(x.reshape(n * c + 0, -1)).reshape(n, c * 4)

    assert parts(Wired(forward, linear=nn.Linear(64, 4))) == ("input", "linear")


def test_a_layer_that_is_called_twice() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.again(F.relu(net.conv0(x))) + net.conv0(x)

    network = Wired(forward, **convs(1))
    network.again = network.conv0  # a second name of one module
    found = made(network)
    assert found.converted.layers == ("conv0",)
    assert found.converted.activations == ("input", "conv0", "add")
    assert sum(grid.name == "conv0" for grid in found.converted.grids) == 3
    assert found.description.quantized == ("conv0",)
    assert found.description.left_float == ()
    # It reads two grids, so that its bias has no codes.
    layer: Any = network.get_submodule("conv0")
    assert torch.equal(found.converted.get_submodule("conv0").bias, layer.bias)
    exact_when_off(found, network, small_images())


def test_names_that_are_taken() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.input(net.add(x) + x)

    network = Wired(forward, **convs(0))
    network.add_module("input", nn.Conv2d(3, 3, 3))
    network.add_module("add", nn.Conv2d(3, 3, 3, padding=1))
    network.add_module("observers", nn.Conv2d(3, 3, 3))
    network.add_module("layers", nn.Conv2d(3, 3, 3))
    found = made(network)
    assert found.converted.activations == ("input_", "add", "add_1", "input")
    assert found.description.left_float == ("observers", "layers")
