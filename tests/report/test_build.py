"""Reports of networks in memory, of runs and of broken ones."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import qwd
from qwd.errors import InputError, UsageError, VerificationError
from qwd.quantize.folding import deploy
from qwd.report.entry import report
from qwd.train.data import load
from qwd.train.models import build
from qwd.train.session import train

WEIGHTS_ALONE = ("minmax-tensor", "affine-tensor", "affine-channel")


def network(name: str = "small_cnn") -> nn.Module:
    torch.manual_seed(0)
    return build(name, in_channels=1, image_size=8, num_classes=10)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = qwd.TrainConfig(epochs=6, threads=1)
    return train(config, out=tmp_path_factory.mktemp("runs") / "run").path


def test_a_network_in_memory_is_left_as_it_was() -> None:
    model = network().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = report(model, "digits", schemes=["minmax-tensor", "ao-static"])
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    (one,) = made.models
    assert one.name == "Sequential"
    assert one.float_accuracy is not None
    assert one.data is not None
    assert one.data.n == 360
    assert "ao-static" in str(made)


def test_without_data_there_are_weights_raw_and_folded_and_no_accuracy() -> None:
    (one,) = report(network()).models
    assert (one.float_accuracy, one.schemes, one.data) == (None, {}, None)
    assert one.summary.folded_range is not None


def test_a_pair_of_data_sets() -> None:
    images, labels = torch.randn(60, 1, 8, 8), torch.arange(60) % 10
    pair = TensorDataset(images, labels), TensorDataset(images[:20], labels[:20])
    (one,) = report(network(), pair, schemes=["affine-tensor"]).models
    assert one.data is not None
    assert one.data.n == 20
    with pytest.raises(UsageError, match=r"expected a name, \(train, test\) or Data"):
        report(network(), 3)  # type: ignore[arg-type]


def test_float_and_quantized_accuracy_equal_a_plain_evaluation() -> None:
    model = network().eval()
    data = load("digits")
    ((images, labels),) = data.test.batches(None, 360, device=torch.device("cpu"))
    (one,) = report(model, "digits", schemes=["minmax-tensor-w3"]).models
    with torch.no_grad():
        assert one.float_accuracy == (model(images).argmax(1) == labels).double().mean().item()
        rounded = deploy(model).module
        for module in rounded.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                w = module.weight.double()
                a, b = w.min(), w.max()
                scale = (b - a) / 7
                module.weight.copy_(a + ((w - a) / scale).round() * scale)
        expected = (rounded(images).argmax(1) == labels).double().mean().item()
    assert one.schemes["minmax-tensor-w3"].accuracy == expected


def test_the_summary_is_weighted_by_parameters() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    (one,) = report(model).models
    ranges = [(m.weight.max() - m.weight.min()).item() for m in model]  # type: ignore[operator]
    assert one.summary.range == pytest.approx((32 * ranges[0] + 16 * ranges[1]) / 48)


def test_branches_are_reported_as_the_kernel_they_become() -> None:
    (one,) = report(network("repvgg")).models
    kernel = one.deployed[0]
    assert kernel.sources == ("0.conv3.weight", "0.conv1.weight")
    assert kernel.name == "0.weight"
    weights = sum(k.figures.numel for k in one.deployed) + 128 * 10
    last = next(t for t in one.tensors if t.figures.shape == (10, 128))
    seen = [*(kernel.figures for kernel in one.deployed), last.figures]
    total = sum((f.range or 0) * f.numel for f in seen)
    assert one.summary.folded_range == pytest.approx(total / weights)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(144, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn(self.conv(x))
        return self.head(x.flatten(1)) if x.mean() < 9 else self.head(x.flatten(1) / 2)


def test_what_cannot_be_traced_is_reported_in_float_and_weights_with_the_reason() -> None:
    (one,) = report(Branching(), "digits").models
    assert set(one.schemes) == set(WEIGHTS_ALONE)
    assert one.summary.folded_range is None
    assert any("BatchNorm is not folded" in warning for warning in one.warnings)
    assert any(warning.startswith("ao-static: no accuracy") for warning in one.warnings)


class Sequence(nn.Module):
    """A BatchNorm1d that normalises positions, of which there are as many as features."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.bn = nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.bn(self.linear(x.squeeze(1))).flatten(1))


def test_a_folding_that_changes_the_outputs_is_not_used() -> None:
    torch.manual_seed(0)
    model = Sequence()
    model.bn.running_mean = torch.randn(8)
    model.bn.running_var = torch.rand(8) + 0.1
    (one,) = report(model, "digits", schemes=["minmax-tensor"]).models
    assert any("folding BatchNorm would change the outputs" in warning for warning in one.warnings)
    assert one.schemes["minmax-tensor"].flip_rate < 0.05
    assert one.summary.folded_range is None


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(10, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.matrix.T


def test_nothing_quantized_is_an_error() -> None:
    with pytest.raises(VerificationError, match="minmax-tensor: nothing was quantized"):
        report(Own(), "digits", schemes=["minmax-tensor"])


def test_weights_that_stay_in_float_are_named() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), Own())
    (one,) = report(model, "digits", schemes=["minmax-tensor"]).models
    assert one.schemes["minmax-tensor"].left_float == ("1.matrix",)


def test_a_run_is_measured_on_data_that_are_handed_over(trained: Path) -> None:
    images, labels = torch.randn(60, 1, 8, 8), torch.arange(60) % 10
    pair = TensorDataset(images, labels), TensorDataset(images[:20], labels[:20])
    (one,) = report(trained, pair, schemes=["affine-tensor"]).models
    assert one.data is not None
    assert (one.data.name, one.data.n) == ("custom", 20)
    (own,) = report(trained, schemes=["affine-tensor"]).models
    assert one.dose == own.dose
    assert own.dose


def test_a_network_that_answers_nan_gets_no_accuracy() -> None:
    model = network()
    with torch.no_grad():
        model.get_parameter("conv1.weight")[0, 0, 0, 0] = float("nan")
    (one,) = report(model, "digits").models
    assert (one.float_accuracy, one.schemes) == (None, {})
    assert any("not finite" in warning for warning in one.warnings)
    assert any("1 NaN and 0 infinite" in warning for warning in one.warnings)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run folder"):
        report(tmp_path)
    with pytest.raises(UsageError, match="nothing to report on"):
        report([])


def test_models_of_one_name_are_told_apart(trained: Path) -> None:
    made = report([network(), network()])
    assert [m.name for m in made.models] == ["Sequential-1", "Sequential-2"]


def test_replacing_the_data_changes_the_digest(trained: Path) -> None:
    ours = report(trained, schemes=["minmax-tensor"]).models[0].data
    theirs = report(trained, schemes=["minmax-tensor"], given={"mean": (0.0,), "std": (1.0,)})
    assert ours is not None
    other = theirs.models[0].data
    assert other is not None
    assert replace(ours, sha256="") == replace(other, sha256="")
    assert ours.sha256 != other.sha256


def test_the_callers_random_numbers_are_his_own(trained: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    report(trained, schemes=["ao-static"])
    report(network(), "digits", schemes=["minmax-tensor"])
    torch.manual_seed(3)
    state = torch.get_rng_state()
    report(trained, schemes=["ao-static"])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.rand(1) == expected


def test_wrong_arguments_are_one_line_errors(trained: Path) -> None:
    with pytest.raises(UsageError, match="is given twice"):
        report([trained, trained])
    with pytest.raises(UsageError, match="int: expected a network, or a path"):
        report(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="calibration_n 0: expected a whole number"):
        report(trained, calibration_n=0)
    with pytest.raises(UsageError, match="Sequential: fails on 2 images of"):
        report(network().double(), "digits")
    with pytest.raises(UsageError, match="expected a qwd.TrainConfig"):
        train({"wd": 1e-4})  # type: ignore[arg-type]
    assert set(report(trained, schemes="affine-tensor").models[0].schemes) == {"affine-tensor"}


def test_odd_tensors_are_named_not_dropped(tmp_path: Path) -> None:
    state = {
        "dense": torch.randn(3, 3),
        "codes": torch.ones(3, 3, dtype=torch.int8),
        "waves": torch.ones(3, 3, dtype=torch.complex64),
        "bn.running_mean": torch.ones(7),
    }
    torch.save(state, tmp_path / "odd.pt")
    (one,) = report(tmp_path / "odd.pt").models
    assert [t.name for t in one.tensors] == ["dense"]
    left_out = [warning for warning in one.warnings if "left out" in warning]
    assert left_out == [
        "codes: int8 tensor left out",
        "waves: complex64 tensor left out",
    ]


def test_folded_weights_that_are_not_finite_are_named() -> None:
    model = network()
    with torch.no_grad():
        model.get_buffer("bn1.running_var")[0] = -1.0
    (one,) = report(model, "digits", schemes=["minmax-tensor"]).models
    assert any("after folding, conv1.weight: 9 NaN" in warning for warning in one.warnings)
