"""The common factor and the shape add up to the change of the range."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qwd.quantize.statistics import weight_figures
from qwd.report.entry import report
from qwd.report.figures import ModelReport, TensorReport
from qwd.report.verdict import scale_shape
from qwd.report.verdict.values import as_deployed
from qwd.train.models import build
from tests.report.builders import figures, model, tensor


def of_tensors(**tensors: torch.Tensor) -> ModelReport:
    made = tuple(
        TensorReport(name=name, figures=weight_figures(w), folded=None)
        for name, w in tensors.items()
    )
    return model(tensors=made, deployed=())


def weights(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_a_factor_is_scale_alone() -> None:
    a = {"first": weights(0, 4, 30), "second": weights(1, 5, 7)}
    found = scale_shape.raw(
        [(of_tensors(**a), of_tensors(**{name: 0.25 * w for name, w in a.items()}))] * 3
    )
    assert found is not None
    assert found.total.mean == pytest.approx(math.log(0.25))
    assert found.scale.mean == pytest.approx(math.log(0.25))
    assert found.shape.mean == pytest.approx(0, abs=1e-12)
    assert (found.pairs, found.tensors, found.left_out) == (3, 2, ())


def test_a_tail_is_shape_alone() -> None:
    w = weights(0, 40, 100)
    longer = w.clone()
    longer.view(-1)[w.argmax()] *= 2
    found = scale_shape.raw([(of_tensors(w=w), of_tensors(w=longer))])
    assert found is not None
    assert found.shape.mean > 0.3
    assert abs(found.scale.mean) < 0.01
    assert found.total.low is None


def test_means_are_weighted_by_parameters_and_intervals_over_seeds() -> None:
    pairs = []
    for seed in range(5):
        a = {"big": weights(seed, 30, 10), "small": weights(seed + 9, 10, 10)}
        b = {name: w * (0.5 + 0.1 * seed) ** 2 for name, w in a.items()}
        pairs.append((of_tensors(**a), of_tensors(**{**b, "small": b["small"] * 3})))
    found = scale_shape.raw(pairs)
    assert found is not None
    expected = [math.log((0.5 + 0.1 * s) ** 2) + math.log(3) / 4 for s in range(5)]
    assert found.scale.mean == pytest.approx(np.mean(expected))
    half = 2.7764451 * np.std(expected, ddof=1) / 5**0.5
    assert found.scale.low == pytest.approx(np.mean(expected) - half)
    assert found.scale.high == pytest.approx(np.mean(expected) + half)


POSITIVE = st.floats(1e-30, 1e30)


@given(st.lists(st.tuples(POSITIVE, POSITIVE, POSITIVE, POSITIVE), min_size=1, max_size=6))
def test_the_parts_add_up(seeds: list[tuple[float, float, float, float]]) -> None:
    pairs = [
        tuple(
            model(tensors=(tensor(figures=figures(range=r, std=s)),)) for r, s in ((a, b), (c, d))
        )
        for a, b, c, d in seeds
    ]
    found = scale_shape.raw(pairs)  # type: ignore[arg-type]
    assert found is not None
    assert found.total.mean == pytest.approx(found.scale.mean + found.shape.mean, abs=1e-9)
    assert found.total.mean == pytest.approx(np.mean([math.log(c / a) for a, _, c, _ in seeds]))


def test_tensors_without_a_range_are_named() -> None:
    flat = tensor("flat", figures=figures(range=0.0, std=0.0))
    a = model(tensors=(tensor("w"), flat, tensor("gone")))
    b = model(tensors=(tensor("w"), flat))
    found = scale_shape.raw([(a, b)])
    assert found is not None
    assert (found.tensors, found.left_out) == (1, ("flat", "gone"))
    assert scale_shape.raw([(model(tensors=(flat,)), model(tensors=(flat,)))]) is None
    assert scale_shape.raw([]) is None


def test_folded_weights_are_those_of_the_deployed_network() -> None:
    without = model(summary=replace(model().summary, folded_range=None))
    assert scale_shape.folded([(without, without)]) is None
    a = model(tensors=(tensor("w", folded=figures(range=1.0, std=0.1)),), deployed=())
    b = model(tensors=(tensor("w", folded=figures(range=2.0, std=0.4)),), deployed=())
    found = scale_shape.folded([(a, b)])
    assert found is not None
    assert found.scale.mean == pytest.approx(math.log(4))
    assert found.shape.mean == pytest.approx(-math.log(2))


@pytest.mark.parametrize("name", ["small_cnn", "repvgg", "resnet20"])
def test_the_deployed_weights_are_those_that_the_summary_is_of(name: str) -> None:
    torch.manual_seed(0)
    (made,) = report(build(name, in_channels=1, image_size=8, num_classes=10)).models
    found = as_deployed(made).values()
    total = sum(f.numel for f in found)
    mean = sum((f.range or 0) * f.numel for f in found) / total
    assert mean == pytest.approx(made.summary.folded_range)


class Tied(nn.Module):
    """Two layers of one weight, one of them before a BatchNorm: deployment parts them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.bn(self.first(x)))


def test_a_tied_weight_is_deployed_twice() -> None:
    (made,) = report(Tied()).models
    assert set(as_deployed(made)) == {"first.weight", "second.weight"}
