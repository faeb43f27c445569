"""int8 does not notice a common factor: on networks that were trained."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import qwd
from qwd.quantize.schemes import parse_scheme
from qwd.report.build import Options
from qwd.report.build import build as build_report
from qwd.report.subject import Subject
from qwd.report.verdict import certified, certify, verdict
from qwd.train.data import Data, load
from qwd.train.models import build
from qwd.train.session import train

from .sweeps import two_decays


@pytest.fixture(scope="module")
def data() -> Data:
    return load("digits")


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[nn.Module]:
    """Of one seed, with little and with much decay."""
    folder = tmp_path_factory.mktemp("runs")
    made = [qwd.TrainConfig(wd=wd, epochs=5, threads=1) for wd in (1e-5, 2e-2)]
    return [train(c, out=folder / f"{c.wd:g}").model() for c in made]


def test_the_common_factor_of_a_trained_network_changes_no_prediction(
    networks: list[nn.Module], data: Data
) -> None:
    before = copy.deepcopy(networks[0].state_dict())
    found = certify(networks[0], networks[1], data, seed=0)
    assert (found.scheme, found.seed, found.images) == ("ao-static", 0, 360)
    assert (found.rescaled, found.unchanged, found.skipped) == (3, 0, ())
    # 4 in 10,000, of 360.
    assert found.changed == 0
    assert all(torch.equal(t, networks[0].state_dict()[n]) for n, t in before.items())
    # The way back, where var' is larger.
    assert certify(networks[1], networks[0], data).changed == 0


def test_the_same_network_twice_is_unchanged(networks: list[nn.Module], data: Data) -> None:
    found = certify(networks[0], networks[0], data)
    assert (found.changed, found.rescaled, found.unchanged) == (0, 0, 3)


def test_what_is_skipped_is_listed(networks: list[nn.Module], data: Data) -> None:
    dead = copy.deepcopy(networks[0])
    dead.bn2.running_var[0] = 0.0  # type: ignore[index,union-attr]
    found = certify(dead, networks[1], data)
    assert [layer.name for layer in found.skipped] == ["conv2"]
    assert "negative in 1 of 32 channels" in found.skipped[0].reason
    assert found.rescaled == 2


def test_changes_are_counted(
    networks: list[nn.Module], data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rescaling that forgets the statistics does change predictions."""

    def broken(network: nn.Module, ratios: dict[str, float]):
        made = copy.deepcopy(network)
        with torch.no_grad():
            made.conv3.weight.mul_(0.25)  # type: ignore[operator,union-attr]
        return made, {}

    monkeypatch.setattr("qwd.report.verdict.certificate.rescaled", broken)
    assert certify(networks[0], networks[1], data).changed > 10


def test_branches_that_deploy_as_one_kernel(data: Data) -> None:
    torch.manual_seed(0)
    network = build("repvgg", in_channels=1, image_size=8, num_classes=10)
    ((images, _),) = data.train.batches(torch.arange(256), 256, device=torch.device("cpu"))
    network.train()(images)
    network.eval()
    smaller = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in smaller.named_parameters():
            if "conv" in name:
                parameter.mul_(0.3)
    found = certify(network, smaller, data)
    # Two branches with a layer in each of seven blocks.
    assert found.rescaled + len(found.skipped) == 14
    assert found.rescaled > 7
    assert found.changed <= 1


def test_int8_accuracy_of_the_rescaled_network_is_the_same_in_the_report(
    networks: list[nn.Module], data: Data
) -> None:
    from qwd.quantize.rescale import norm_ratios, rescaled

    options = Options(schemes=(parse_scheme("ao-static"),), device=torch.device("cpu"))
    scaled, _ = rescaled(networks[0], norm_ratios(*networks))
    a, b = (
        build_report(Subject(name="n", model=n, state=n.state_dict(), data=data), options)
        for n in (networks[0], scaled)
    )
    assert a.summary.int8_accuracy == b.summary.int8_accuracy
    assert a.summary.folded_range == pytest.approx(b.summary.folded_range, rel=1e-6)
    assert a.summary.range is not None
    assert b.summary.range is not None
    assert b.summary.range < 0.6 * a.summary.range


def test_certificates_find_their_place(networks: list[nn.Module], data: Data) -> None:
    found = certify(networks[0], networks[1], data)
    before = verdict(two_decays())
    (setting,) = before.settings
    after = certified(before, setting.name, "wd 1e-4", [found])
    assert after.settings[0].contrasts[0].certificates == (found,)
    assert certified(after, setting.name, "wd 1e-4", []) == before
    assert certified(before, setting.name, "elsewhere", [found]) == before
    assert replace(after, settings=()) == replace(before, settings=())
