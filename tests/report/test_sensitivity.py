"""Sensitivity: planted causes are found, figures are plain evaluations, words are honest."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qwd.errors import UsageError
from qwd.quantize.arithmetic import quantize
from qwd.quantize.schemes import parse_scheme
from qwd.report.accuracies import calibration_batches
from qwd.report.entry import report
from qwd.report.sensitivity import sensitivity, subset
from qwd.report.variants import Sensitivity
from qwd.report.watching import Watcher
from qwd.train.data import Data, Split

from .traps import (
    Net,
    centred,
    data_of,
    with_a_spike,
    with_an_outlier,
    with_biased_rounding,
    with_unequal_channels,
)

CPU = torch.device("cpu")


class Count(Watcher):
    def __init__(self) -> None:
        self.sure = self.further = self.done = 0
        self.n: int | None = None

    def begins(self, study: str, evaluations: int, further: int, n: int) -> None:
        assert self.done == 0
        self.sure, self.further, self.n = evaluations, further, n

    def evaluated(self) -> None:
        self.done += 1


def studied(
    network: nn.Module, scheme: str = "simulated-static", n: int = 2000, data: Data | None = None
) -> tuple[Sensitivity, Count]:
    data, count = data or data_of(network), Count()
    calibration = calibration_batches(data, 256)
    found = sensitivity(
        network, parse_scheme(scheme), data, calibration, n=n, device=CPU, watcher=count
    )
    return found, count


@pytest.mark.parametrize("trap", [with_an_outlier, with_unequal_channels])
def test_a_layer_of_bad_weights_is_found_and_leaving_it_in_float_recovers(trap: Any) -> None:
    found, _ = studied(trap())
    assert found.layers[0].name == "conv2"
    assert found.layers[0].alone.drop_pp > 10
    assert all(part.alone.drop_pp < 2 for part in found.layers[1:])
    assert found.mixed is not None
    assert found.mixed.left_float == ("conv2",)
    assert found.mixed.recovered_pp > 0.9 * found.quantized.drop_pp
    assert found.mixed.recovered_pp == found.layers[0].recovered_pp
    blame, mixed = found.advice
    assert blame.startswith(f"weights alone account for {found.weights_only.drop_pp:.2f} of")
    assert "more bits for activations will not help" in blame
    assert mixed.startswith("leaving conv2 in float recovers ")
    assert mixed.endswith("pp by the weights alone")


def test_a_layer_of_bad_outputs_is_found_and_its_weights_are_not_blamed() -> None:
    found, _ = studied(with_a_spike())
    assert found.layers[0].name == "conv1"
    assert found.weights_only.drop_pp < 2
    assert found.mixed is not None
    assert found.mixed.left_float == ("conv1",)
    assert found.mixed.by_weights_pp < 5
    blame, mixed = found.advice
    assert blame.startswith("activations alone account for")
    assert blame.endswith("per-channel weights will not help")
    assert mixed.endswith("by the weights alone: the output has to stay in float too")


def test_two_bad_layers_are_left_in_float_together() -> None:
    network = with_an_outlier()
    with torch.no_grad():
        network.linear.weight[0, 0] = 30  # of an output that is always zero
        network.conv2.weight[0] = -1.0
        network.conv2.weight[1, 0, 1, 1] = 10
    found, count = studied(centred(network))
    assert {part.name for part in found.layers[:2]} == {"conv2", "linear"}
    assert found.mixed is not None
    assert found.mixed.left_float == ("conv2", "linear")
    assert found.mixed.recovered_pp > 0.9 * found.quantized.drop_pp
    single = max(part.recovered_pp for part in found.layers)
    assert single < 0.75 * found.quantized.drop_pp
    assert "leaving conv2 and linear in float recovers" in found.advice[1]
    assert count.sure < count.done <= count.sure + count.further


def test_no_drop_is_said_to_be_none() -> None:
    found, count = studied(centred(Net()))
    assert found.mixed is None
    assert found.quantized.drop_pp == 0
    (sentence,) = found.advice
    assert sentence.startswith("nothing is lost on 200 images, with a drop of 0.00 pp (95 %")
    assert sentence.endswith("no layer is shown to need float")
    assert (count.done, count.n) == (count.sure, 200)
    # No class flips, and the order is still one of harm.
    assert [part.alone.kl for part in found.layers] == sorted(
        (part.alone.kl for part in found.layers), reverse=True
    )
    assert found.layers[0].alone.kl > found.layers[-1].alone.kl > 0


def test_every_evaluation_is_announced_before_the_first() -> None:
    found, count = studied(centred(Net()))
    assert count.sure == 3 + 2 * (len(found.layers) + len(found.activations))
    assert {part.name for part in found.layers} == {"conv1", "conv2", "linear"}
    assert {part.name for part in found.activations} == {"input"}


def test_layers_are_ranked_by_drop_then_flips() -> None:
    found, _ = studied(with_biased_rounding(), "affine-tensor-w2-a4")
    ranks = [(p.alone.drop_pp, p.alone.flip_rate, p.alone.kl) for p in found.layers]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == 3
    assert found.scheme == parse_scheme("affine-tensor-w2-a4").name


def plain(network: nn.Module, split: Split) -> Tensor:
    with torch.no_grad():
        return torch.cat([network(x) for x, _ in split.batches(None, 500, device=CPU)])


def test_weights_of_one_layer_and_of_all_equal_a_plain_evaluation() -> None:
    network = with_biased_rounding()
    data = data_of(network)
    split = data.validation
    reference = plain(network, split).argmax(dim=1)

    def flips_with(*names: str) -> int:
        rounded = Net()
        rounded.load_state_dict(network.state_dict())
        for name in names:
            weight = rounded.get_parameter(f"{name}.weight")
            weight.data = quantize(weight, kind="affine", bits=3).values
        return int((plain(rounded, split).argmax(dim=1) != reference).sum())

    found, _ = studied(network, "affine-tensor-w3-a8@simulated", data=data)
    assert found.weights_only.flip_n == flips_with("conv1", "conv2", "linear") > 0
    # The last layer's output is quantized too, in 256 steps: some more may flip.
    (last,) = (part for part in found.layers if part.name == "linear")
    assert last.alone.flip_n == pytest.approx(flips_with("linear"), abs=4)
    assert found.float_accuracy == 1
    assert found.weights_only.accuracy == pytest.approx(1 - found.weights_only.flip_n / 200)
    assert found.weights_only.drop_pp == pytest.approx(found.weights_only.flip_n / 2)


class Unread(Split):
    """A split whose images nobody may look at."""

    def __init__(self, split: Split):
        self.labels = split.labels

    def batches(self, *args: Any, **options: Any) -> Any:
        raise AssertionError("these images are for the figures reported")

    def subset(self, positions: Tensor) -> Split:
        raise AssertionError

    def sha256(self) -> str:
        return "0" * 64


def test_the_test_split_is_not_read() -> None:
    network = with_an_outlier()
    data = data_of(network)
    found, _ = studied(network, data=replace(data, test=Unread(data.test)))
    assert (found.split, found.n) == ("validation", 200)


def test_the_same_images_are_taken_at_every_call() -> None:
    network = with_a_spike()
    data = data_of(network)
    first, count = studied(network, n=70, data=data)
    again, _ = studied(network, n=70, data=data)
    assert (first, count.n, first.n) == (again, 70, 70)
    assert subset(data.validation, 70).sha256() == subset(data.validation, 70).sha256()
    assert subset(data.validation, 200) is data.validation


def test_the_network_is_left_as_it_was() -> None:
    network = with_an_outlier()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    studied(network)
    assert all(torch.equal(before[n], tensor) for n, tensor in network.state_dict().items())


def test_a_deep_network_is_studied_layer_by_layer() -> None:
    deep = nn.Sequential(
        nn.Flatten(), *(nn.Sequential(nn.Linear(36, 36), nn.ReLU()) for _ in range(40))
    )
    torch.manual_seed(0)
    for module in deep.modules():
        if isinstance(module, nn.Linear):
            nn.init.orthogonal_(module.weight, 2**0.5)
            nn.init.zeros_(module.bias)
    network = nn.Sequential(deep, nn.Linear(36, 4)).eval()
    found, count = studied(network, n=20, data=data_of(network, 400))
    assert len(found.layers) == 41
    assert count.done <= count.sure + count.further
    assert count.further <= 13


def test_through_the_report_with_the_first_scheme_of_activations() -> None:
    network = with_an_outlier()
    data = data_of(network)
    made = report(
        network,
        data,
        schemes=["affine-tensor", "symmetric-channel-w4-a8", "ao-static"],
        sensitivity=True,
        sensitivity_n=50,
    )
    found = made.models[0].sensitivity
    assert found is not None
    assert found.scheme == "symmetric-channel-w4-a8@simulated"
    assert (found.backend, found.n) == ("simulated", 50)
    text = " ".join(str(made).split())
    assert "Net: sensitivity" in text
    assert "50 images of the validation split, each 2.00 pp" in text
    default = report(network, data, schemes=["affine-tensor"], sensitivity=True).models[0]
    assert default.sensitivity is not None
    assert default.sensitivity.scheme == "simulated-static"
    assert report(network, data, schemes=["affine-tensor"]).models[0].sensitivity is None


class Branching(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > -1 else x


def test_what_cannot_be_traced_is_a_warning_and_the_rest_stands() -> None:
    network = Branching().eval()
    made = report(network, data_of(network), schemes=["affine-tensor"], sensitivity=True, fix=0)
    (one,) = made.models
    assert (one.sensitivity, one.remedies) == (None, None)
    assert one.schemes["affine-tensor"].accuracy > 0.9
    assert any(text.startswith("no sensitivity: ") for text in one.warnings)
    assert any(text.startswith("no remedies: ") for text in one.warnings)


def test_a_network_that_answers_nan_has_no_sensitivity() -> None:
    network = Net().eval()
    data = data_of(network)
    with torch.no_grad():
        network.conv1.weight[0, 0, 0, 0] = float("nan")
    (one,) = report(network, data, sensitivity=True, fix=0.5).models
    assert (one.sensitivity, one.remedies) == (None, None)
    assert any("not finite" in text for text in one.warnings)


def test_without_images_nothing_is_begun() -> None:
    with pytest.raises(UsageError, match="Net: sensitivity and remedies need the network and its"):
        report(Net(), sensitivity=True)
    with pytest.raises(UsageError, match="sensitivity_n 0: expected a whole number of at least 1"):
        report(Net(), "digits", sensitivity=True, sensitivity_n=0)
